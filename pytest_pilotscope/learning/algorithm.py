"""
The protocols of learned components, one for each decision that a component can take.

An algorithm has a `train` method and at most one of `steer`, `decide` and `prepare`; that method tells which decision it takes.
It imports neither pytest nor mlflow: it returns what the run logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from math import isfinite
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import Scalar, TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.learning.decision import Decision
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database

Subplan = frozenset[str]
Cardinalities = Mapping[Subplan, float]


class PartialCardinalities(dict[Subplan, float]):
    """
    Rows of some subplans; `unknown` has the reason for each of the others.

    An estimator returns this if it cannot know all rows. PostgreSQL then uses its own estimates for the others, and their plan nodes count
    as not steered.
    """

    def __init__(self, rows: Cardinalities, unknown: Mapping[Subplan, str]) -> None:
        super().__init__(rows)
        self.unknown = dict(unknown)


def unknown_of(rows: Cardinalities | None) -> Mapping[Subplan, str]:
    """Return the subplans that an answer leaves unknown, each with its reason."""
    return rows.unknown if isinstance(rows, PartialCardinalities) else {}


def is_finite(value: object) -> TypeGuard[float]:
    """Tell whether a value that an algorithm returned is a finite number of 64 bits; True and False are none."""
    try:
        return not isinstance(value, bool) and isinstance(value, Real) and isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


A_SCALAR = "a text without NUL, a finite number, true, false or none"


def is_scalar(value: object) -> bool:
    """Tell whether a value that an algorithm returned is `A_SCALAR`."""
    return value is None or isinstance(value, bool) or is_finite(value) or (isinstance(value, str) and "\0" not in value)


class Algorithm(Protocol):
    """
    The methods that all algorithms have. An algorithm with no other method leaves PostgreSQL alone.

    An attribute `inference` (optional, a text) names the way in which it computes its decisions, such as a compiled one; the record has it
    as a parameter.
    """

    name: str

    def train(self, training: Training) -> TrainingReport:
        """Learn from the training queries, select by the validation queries, and return the report to log."""


@runtime_checkable
class CardinalityEstimator(Protocol):
    """An algorithm that estimates cardinalities."""

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """
        Estimate the rows of every subplan the planner will ask about.

        `subplans` maps each set of aliases to PostgreSQL's own estimate. The answer must have the same keys; if one is missing, the run
        leaves the query to PostgreSQL, with the reason. A NaN, an infinite or a negative value fails the run. Raise `UnsupportedQuery` to
        leave a query to PostgreSQL. Return `PartialCardinalities` to leave some sets to PostgreSQL, each with a reason; their plan nodes
        count as not steered.
        """


@runtime_checkable
class TextSteering(Protocol):
    """A cardinality estimator that also finds the subplans itself (optional), so that no planning is needed to list them."""

    def steer_by_text(self, query: Query) -> Cardinalities | None:
        """
        Estimate the rows of every subplan from the text of a query. Return None if only the planner knows the subplans; `steer` follows.

        The first answer for a query is compared with the planner's own list: if a subplan is missing, the query is left to PostgreSQL.
        Additional subplans (of a relation that the planner removes) have no effect.
        """


@runtime_checkable
class Decider(Protocol):
    """
    An algorithm that decides for each query: rows, a join order and methods, settings of the planner, or nothing.

    A true attribute `settings_only` (optional) promises that it decides on nothing but settings, so that a server needs no library.
    """

    def decide(self, query: Query, session: Session) -> Decision:
        """
        Decide for a query. `Decision()` is PostgreSQL's own plan, which counts as a decision that was followed.

        `session` is the one in which the query will run: it can plan the query, and the decision has to leave it as it was. Raise
        `UnsupportedQuery` to leave the query to PostgreSQL, because the algorithm cannot decide.
        """


def needs_library(algorithm: object) -> bool:
    """Tell whether an algorithm, or its class, decides on single queries by more than settings: then the planner has to be steered."""
    return isinstance(algorithm, CardinalityEstimator | Decider) and not getattr(algorithm, "settings_only", False)


@runtime_checkable
class LearningOn(Protocol):
    """A decider that also learns from the queries it is asked about (optional)."""

    def learn_on(self, query: Query) -> None:
        """Learn from earlier queries. The run calls this before every `decide` and counts its time for no query."""


@runtime_checkable
class Observing(Protocol):
    """A decider or an estimator that learns from the executions of a stream (optional)."""

    def observe(self, query: Query, decision: Decision, execution_ms: float) -> None:
        """
        Learn from the execution of a query under the algorithm's own decision.

        A stream (`--stream`) calls this after each query that the algorithm decided on, before the next one. `execution_ms` is the median
        of the rounds; the limit for a query that was cut off. An estimator's decision has its rows. Its time is in no query's time.
        """


@runtime_checkable
class Explaining(Protocol):
    """A decider that also explains its decisions (optional)."""

    def explain(self, query: Query) -> Mapping[str, Scalar]:
        """Return facts about the last decision for a query, for the record and the report: short names with their units."""


@runtime_checkable
class DatabasePreparer(Protocol):
    """
    An algorithm that chooses the indexes or the settings of a database.

    Three members are optional. A static method `restriction(database)` returns in a few words what is impossible on its server, for the
    header. A static method `check_training(database)` raises `UsageError`, before anything is generated, if nothing can be learned there.
    A true attribute `copies` means that `train` or `prepare` calls `database.copy()`; a user's own database is then made ready for copying.
    """

    def prepare(self, database: Database) -> AbstractContextManager[Database]:
        """Change a database for the length of the block, and undo every change on leaving."""


@runtime_checkable
class Persistent(Protocol):
    """
    An algorithm that can be saved and loaded. Loading a model must never run code: safetensors and JSON, no pickle.

    Two attributes are optional. `selection` is the validation metric by which `--load-model best` chooses, and True if smaller is better.
    `decider(folder)` is a static method that returns a function from SQL to the decision, to serve a model without a database.
    """

    model_id: str

    def save(self, folder: Path) -> None:
        """Write all that `load` needs to `model/<model_id>/` and `metadata/<model_id>.json` below `folder`."""

    def load(self, folder: Path, training: Training) -> None:
        """Read the files of `save`. Raise `ModelError` for a broken file and for a model of another schema or other data."""
