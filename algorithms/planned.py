"""An estimator that takes a query's relations, filters and joins from the planner's report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.errors import ModelError, StatementFailed, UnsupportedQuery
from pytest_pilotscope.learning.algorithm import PartialCardinalities
from pytest_pilotscope.postgres.scans import MOST_ROWS
from pytest_pilotscope.queries.queries import Query

if TYPE_CHECKING:
    from pytest_pilotscope.labels import Labels
    from pytest_pilotscope.learning.algorithm import Cardinalities, Subplan
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.joins import JoinQuery, Schema
    from pytest_pilotscope.queries.meaning import Level, Statement

Rows = npt.NDArray[np.float64]


class PlannedEstimator(ABC):
    """
    Estimates the sets of relations that are inner joins of tables by equality of columns, also those in subqueries.

    PostgreSQL keeps its own estimates of the others, each with the reason. A subclass calls `open` when it is trained or loaded.
    """

    name: str

    def __init__(self) -> None:
        self._session: Session | None = None
        self._schema: Schema = {}

    def open(self, training: Training) -> None:
        """Keep the session and the schema that estimates are made with."""
        self._session, self._schema = training.session, training.schema

    @abstractmethod
    def rows(self, query: JoinQuery, masks: Sequence[int]) -> Rows:
        """Estimate the (S,) rows of sets of relations of one query level; the sets are inner joins of tables by equality of columns."""

    def steer_by_text(self, query: Query) -> PartialCardinalities | None:
        """
        Estimate the sets of the planner's report. Return None if PostgreSQL cannot plan the statement.

        Raise `UnsupportedQuery` if none of the sets can be estimated.
        """
        from pytest_pilotscope.postgres.meaning import read_meaning

        if self._session is None:
            raise ModelError(f"{self.name} has nothing to estimate with; train it, or load a model")
        try:
            statement = read_meaning(self._session, query.sql)
        except StatementFailed:
            return None
        found = PartialCardinalities({}, {})
        for level, sets in by_level(statement):
            reasons = {subplan: reason for subplan, mask in sets.items() if (reason := self._why_not(level, mask)) is not None}
            joins = {subplan: mask for subplan, mask in sets.items() if subplan not in reasons}
            rows = np.minimum(self.rows(level.query, list(joins.values())), MOST_ROWS) if joins else ()
            found.update(zip(joins, map(float, rows), strict=True))
            found.unknown.update(reasons)
        if not found:
            raise UnsupportedQuery(next(iter(found.unknown.values()), "it has no relations"), query.sql)
        return found

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Estimate the given sets. GEQO looks at other sets in each planning: those that were not reported are left to PostgreSQL."""
        found = self.steer_by_text(query)
        if found is None:
            raise UnsupportedQuery("PostgreSQL does not plan it", query.sql)
        reasons = {subplan: found.unknown.get(subplan, "the planner did not report it") for subplan in subplans.keys() - found.keys()}
        return PartialCardinalities({subplan: rows for subplan, rows in found.items() if subplan in subplans}, reasons)

    def _why_not(self, level: Level, mask: int) -> str | None:
        """Return the reason why a set has no estimate, None if it has one."""
        named = f"{{{', '.join(sorted(level.query.subplan(mask)))}}}"
        if not level.in_memory(mask):
            return f"{named} is no inner join of tables by equality of columns"
        unknown = {level.query.relations[alias].table for alias in level.query.subplan(mask)} - self._schema.keys()
        return f"{named} has tables outside of the search path: {', '.join(sorted(unknown))}" if unknown else None


def by_level(statement: Statement) -> list[tuple[Level, dict[Subplan, int]]]:
    """Return the sets of each query level that has relations, with their masks."""
    found: dict[int, tuple[Level, dict[Subplan, int]]] = {}
    for subplan, (level, mask) in statement.subplans().items():
        found.setdefault(level.id, (level, {}))[1][subplan] = mask
    return list(found.values())


def counted_sets(queries: Sequence[Query], labels: Labels) -> list[tuple[JoinQuery, dict[int, int]]]:
    """Return for each query level of these queries the true rows of the sets that can be estimated, by mask."""
    found = []
    for query in queries:
        known = labels.rows(query.id)
        for level, sets in by_level(labels.statements[query.id]) if known else ():
            rows = {mask: known[subplan] for subplan, mask in sets.items() if subplan in known and level.in_memory(mask)}
            if rows:
                found.append((level.query, rows))
    return found
