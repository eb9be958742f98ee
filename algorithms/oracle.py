"""True cardinalities: the ceiling for every estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_pilotscope.core.queries import Query
from pytest_pilotscope.core.results import TrainingReport
from pytest_pilotscope.errors import IncompleteEstimate, LabelError, UnsupportedQuery
from pytest_pilotscope.postgres.subplans import LeveledSubplan

if TYPE_CHECKING:
    from pytest_pilotscope.algorithm import Cardinalities
    from pytest_pilotscope.training import Training


class Oracle:
    """
    Knows the exact cardinality of every subplan.

    A query's labels are taken from the cache, or counted when the query is met for the first time, which is its warm-up. So the times
    measured are those of an estimator that is perfect and free. Subqueries that are planned on their own are counted, too.
    """

    name = "oracle"
    learns = False

    def __init__(self) -> None:
        self._training: Training | None = None
        self._known: dict[str, dict[frozenset[str], float]] = {}

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing, but remember where labels come from."""
        self._training = training
        return training.report(parameters={"no_ai": True})

    def steer_by_text(self, query: Query) -> Cardinalities | None:
        """Return the true rows of every subplan of a query that was met before, None of one that was not, or could not be counted."""
        return self._known.get(query.sql)

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Return the true rows of every subplan; `IncompleteEstimate` where one could not be counted, `LabelError` where none may be."""
        true = self._true_rows(query, subplans)
        missing = subplans.keys() - true.keys()
        if missing:
            raise IncompleteEstimate(self.name, query_id=query.id, missing=len(missing), total=len(subplans))
        self._known[query.sql] = {subplan: true[subplan] for subplan in subplans}
        return self._known[query.sql]

    def _true_rows(self, query: Query, subplans: Cardinalities) -> dict[frozenset[str], float]:
        from pytest_pilotscope.labels import by_level, subqueries_of

        if self._training is None:
            raise RuntimeError("the oracle has no data to count in: call train() first")
        inner = enumerate(subqueries_of(query.sql, self._training.schema), start=1)
        subqueries = [Query(id=f"{query.id}, subquery {number}", sql=sql) for number, sql in inner]
        labels = self._training.labels([query, *subqueries])
        if any(one.id not in labels and one.id not in labels.unsupported for one in (query, *subqueries)):
            raise LabelError(
                f"oracle has no rows for query {query.id!r}: --no-collection was given, and the cache has no labels of it for this data; "
                "run once without --no-collection"
            )
        itself, *others = (labels.get(one.id, {}) for one in (query, *subqueries))
        found = by_level(subplans, itself, others)
        if not subplans.keys() <= found.keys():
            if query.id in labels.unsupported:
                raise UnsupportedQuery(labels.unsupported[query.id], query.sql)
            if any(isinstance(subplan, LeveledSubplan) for subplan in subplans):
                raise UnsupportedQuery("its subqueries cannot be told apart, or taken apart, by their relations", query.sql)
        return {subplan: float(label.rows) for subplan, label in found.items() if label.rows is not None}
