"""
What a learned component must be able to do: small protocols, one per decision that is taken over.

An algorithm has a `train` method and at most one of `steer`, `choose` and `prepare`; which one it has says which decision it takes.
It imports neither pytest nor mlflow: what is to be logged, it returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import Scalar, TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database

Subplan = frozenset[str]
Cardinalities = Mapping[Subplan, float]


class PartialCardinalities(dict[Subplan, float]):
    """
    Rows of the subplans that are known, where not all are. `unknown` has the reason for each of the others.

    Only an estimator that cannot know them answers so: PostgreSQL's own estimates hold for the others, and the nodes of the plan that have
    them count as not steered.
    """

    def __init__(self, rows: Cardinalities, unknown: Mapping[Subplan, str]) -> None:
        super().__init__(rows)
        self.unknown = dict(unknown)


def unknown_of(rows: Cardinalities | None) -> Mapping[Subplan, str]:
    """Return the reasons for the subplans that an answer names as unknown."""
    return rows.unknown if isinstance(rows, PartialCardinalities) else {}


class Algorithm(Protocol):
    """The life all algorithms share. An algorithm with nothing but this leaves PostgreSQL alone."""

    name: str

    def train(self, training: Training) -> TrainingReport:
        """Learn from the training queries, choose by the validation queries, and return what is to be logged."""


@runtime_checkable
class CardinalityEstimator(Protocol):
    """Takes over the estimation of cardinalities."""

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """
        Estimate the rows of every subplan the planner will ask about.

        `subplans` maps each set of aliases to PostgreSQL's own estimate. The answer must have the same keys; a missing key, a NaN, an
        infinite or a negative value fails the run. `UnsupportedQuery` leaves the query to PostgreSQL: it counts as not steered. A
        `PartialCardinalities` leaves the sets to PostgreSQL that it gives a reason for.
        """


@runtime_checkable
class TextSteering(Protocol):
    """A cardinality estimator that finds the subplans itself, and so spares a query the planning that lists them; it is free to."""

    def steer_by_text(self, query: Query) -> Cardinalities | None:
        """
        Estimate the rows of every subplan from the text of a query; None where only the planner knows the subplans: then `steer` is asked.

        The answer is held against the planner's own list when the plan is read back: a subplan left out is an `IncompleteEstimate`.
        What the planner does not know (a relation that it removes) does no harm.
        """


@runtime_checkable
class PlanChooser(Protocol):
    """Takes over the choice among candidate plans."""

    def choose(self, query: Query, session: Session) -> Cardinalities:
        """Return the cardinalities whose injection makes PostgreSQL run the chosen plan; nothing for PostgreSQL's own plan."""


@runtime_checkable
class LearningOn(Protocol):
    """A plan chooser that learns from the queries it is asked about; it is free to."""

    def learn_on(self, query: Query) -> None:
        """Called before `choose`, each time, for learning from earlier queries; however long it takes, it is in no query's time."""


@runtime_checkable
class Explaining(Protocol):
    """A plan chooser that says why; it is free to."""

    def explain(self, query: Query) -> Mapping[str, Scalar]:
        """Return facts about the last choice for a query, for the record and the report: short names, with units where there are any."""


@runtime_checkable
class DatabasePreparer(Protocol):
    """
    Takes over what a database is set up with: its indexes or its settings.

    A static method `restriction(database)` is optional: it says in a few words what cannot be done on its server, for the header. An
    attribute `copies` that is true says that `train` or `prepare` uses `database.copy()`, which somebody's own database must be made
    ready for.
    """

    def prepare(self, database: Database) -> AbstractContextManager[Database]:
        """Change a database for the length of the block, and put back on leaving whatever was changed."""


@runtime_checkable
class Persistent(Protocol):
    """
    Can be saved and loaded again. Loading a model must never run code: safetensors and JSON, no pickle.

    Two attributes are optional: `selection`, the name of the validation metric by which `--load-model best` chooses and whether smaller is
    better; and `decider(folder)`, a static method that gives a function from SQL to the decision, for serving without a database.
    """

    model_id: str

    def save(self, folder: Path) -> None:
        """Write `model/<model_id>/` and `metadata/<model_id>.json` below `folder`: everything that `load` needs."""

    def load(self, folder: Path, training: Training) -> None:
        """Read what `save` wrote; raises `ModelError` for a broken file and for a model of another schema or other data."""
