"""True cardinalities: the ceiling for every estimator."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import LabelError, UnsupportedQuery
from pytest_pilotscope.learning.algorithm import PartialCardinalities
from pytest_pilotscope.postgres.adherence import verify
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.learning.algorithm import Cardinalities
    from pytest_pilotscope.learning.training import Training

MOST_PLANNINGS = 10
"""At most so many plannings of a query, to find the sets that GEQO looks at when it is given the true rows."""


class Oracle:
    """
    Knows the exact cardinality of every subplan that can be counted.

    The oracle takes a query's labels from the cache, or counts them in the query's warm-up. So the measured times are those of an estimator
    that is perfect and free. It also counts in subqueries that PostgreSQL plans on their own. PostgreSQL keeps its own estimate of a set
    that cannot be counted, and the oracle gives the reason.

    With `geqo_threshold` or more relations, PostgreSQL looks at other sets of relations each time that it is given other rows. The oracle
    then plans the query with all rows that it knows, counts the sets that PostgreSQL looked at, and repeats this until the plan has known
    sets only.
    """

    name = "oracle"
    learns = False

    def __init__(self) -> None:
        self._training: Training | None = None
        self._known: dict[tuple[str, str], PartialCardinalities] = {}
        self._refused: dict[tuple[str, str], str] = {}

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing, but keep the source of labels."""
        self._training = training
        return training.report(parameters={"no_ai": True})

    def steer_by_text(self, query: Query) -> Cardinalities | None:
        """Return the true rows of a known query's subplans, None for a new query; raise `UnsupportedQuery` again for a refused one."""
        if self._training is None:
            return None
        key = (query.sql, self._training.data_fingerprint)
        if key in self._refused:
            raise UnsupportedQuery(self._refused[key], query.sql)
        return self._known.get(key)

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Return the true rows of the subplans that can be counted; `UnsupportedQuery` if none can, `LabelError` if counting is off."""
        if self._training is None:
            raise RuntimeError("the oracle has no data to count in: call train() first")
        key = (query.sql, self._training.data_fingerprint)
        try:
            self._known[key] = _counted(self._training, query)
        except UnsupportedQuery as error:
            self._refused[key] = error.reason
            raise
        return self._known[key]


def _counted(training: Training, query: Query) -> PartialCardinalities:
    """Return the rows of all sets of a query that PostgreSQL may look at and that can be counted."""
    found = PartialCardinalities({}, {})
    for _ in range(MOST_PLANNINGS):
        if not _learn(training, query, found) or _is_settled(training, query, found):
            break
    if not found and found.unknown:
        raise UnsupportedQuery(next(iter(found.unknown.values())), query.sql)
    return found


def _learn(training: Training, query: Query, found: PartialCardinalities) -> bool:
    """Add the rows of the sets that PostgreSQL considers when it is given those in `found`; return False if counting is off."""
    with training.session.cardinalities(found) if found else nullcontext():
        labels = training.labels([query])
    if query.id in labels.unsupported:
        raise UnsupportedQuery(labels.unsupported[query.id], query.sql)
    if query.id not in labels and not found:
        raise LabelError(
            f"oracle has no rows for query {query.id!r}: --no-collection was given, and the cache has no labels of it for this data; "
            "run once without --no-collection"
        )
    found.update(labels.rows(query.id))
    found.unknown.update(labels.unknown(query.id))
    return query.id in labels


def _is_settled(training: Training, query: Query, found: PartialCardinalities) -> bool:
    """Tell whether PostgreSQL's plan with these rows has only sets that were counted or cannot be counted."""
    if max(map(len, found), default=0) < 3:
        return True  # PostgreSQL looks at two relations in one way only
    with training.session.cardinalities(found):
        considered = training.session.subplans(query.sql)
        new = considered.keys() - found.keys() - found.unknown.keys()
        if not new:
            return True
        plan = training.session.explain(query.sql)
    tried = {**found, **dict.fromkeys(found.unknown, 1.0)}
    return verify(plan, tried, dict.fromkeys(new, "")).not_injected == 0
