"""The algorithm `bound`: for every set of relations the most rows that it can have, from exact counts of single columns."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import numpy as np

from pytest_pilotscope.algorithms.bound.filters import FilterBound
from pytest_pilotscope.algorithms.bound.joins import JoinBound
from pytest_pilotscope.algorithms.bound.reading import Degrees, read_counts
from pytest_pilotscope.algorithms.planned import PlannedEstimator, Rows
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.queries.joins import JoinQuery
from pytest_pilotscope.queries.predicates import quote_identifier
from pytest_pilotscope.record.results import TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training


class Bound(PlannedEstimator):
    """
    Degree-sequence bounds (Deeds et al., SafeBound, SIGMOD 2023); it needs no training queries.

    An estimate is never below the truth while the data are those of the training. PostgreSQL then fears a slow plan more than it hopes for
    a fast one.
    """

    name = "bound"
    learns = False

    def __init__(self) -> None:
        super().__init__()
        self._degrees = Degrees({}, {})
        self._filters: FilterBound | None = None

    def train(self, training: Training) -> TrainingReport:
        """Count the values of every column."""
        session, schema = training.session, training.schema
        self.open(training)
        rows = {table: int(session.scalar(f"SELECT count(*) FROM {quote_identifier(table)}")) for table in schema}  # noqa: S608  # quoted
        with training.progress("bound columns", sum(map(len, schema.values()))) as advance:
            self._degrees, counts = read_counts(session, schema, advance)
        self._filters = FilterBound(table_rows=rows, columns=counts)
        return training.report(scalars={"num_columns": len(self._degrees.steps)})

    def rows(self, query: JoinQuery, masks: Sequence[int]) -> Rows:
        """Return the most rows of (S,) sets of relations."""
        if self._filters is None:
            raise ModelError("bound has no counts yet; train it")
        within = reduce(or_, masks, 0)
        filtered = [self._filters.rows(each) if within >> bit & 1 else 0.0 for bit, each in enumerate(query.relations.values())]
        bound = JoinBound(query, self._degrees.by, filtered)
        return np.array([bound.rows(mask) for mask in masks])
