"""True cardinalities: the ceiling for every estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_pilotscope.core.results import TrainingReport
from pytest_pilotscope.errors import IncompleteEstimate

if TYPE_CHECKING:
    from pytest_pilotscope.algorithm import Cardinalities
    from pytest_pilotscope.core.queries import Query
    from pytest_pilotscope.training import Training


class Oracle:
    """
    Knows the exact cardinality of every subplan.

    A query's labels are taken from the cache, or counted when the query is met for the first time, which is its warm-up. So the times
    measured are those of an estimator that is perfect and free.
    """

    name = "oracle"

    def __init__(self) -> None:
        self._training: Training | None = None
        self._known: dict[str, dict[frozenset[str], float]] = {}

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing, but remember where labels come from."""
        self._training = training
        return training.report(parameters={"no_ai": True})

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Return the true rows of every subplan; raises `IncompleteEstimate` where one could not be counted."""
        if query.sql not in self._known:
            self._known[query.sql] = self._true_rows(query)
        known = self._known[query.sql]
        missing = subplans.keys() - known.keys()
        if missing:
            raise IncompleteEstimate(self.name, query_id=query.id, missing=len(missing), total=len(subplans))
        return {subplan: known[subplan] for subplan in subplans}

    def _true_rows(self, query: Query) -> dict[frozenset[str], float]:
        if self._training is None:
            raise RuntimeError("the oracle has no data to count in: call train() first")
        labels = self._training.labels([query]).get(query.id, {})
        return {subplan: float(label.rows) for subplan, label in labels.items() if label.rows is not None}
