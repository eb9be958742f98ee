"""Candidates and starting point of an index selection, and the selection from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pytest_pilotscope.algorithms.index.extend import Columns, Limits, Selection, WorkloadCosts, extend
from pytest_pilotscope.algorithms.index.query_columns import IndexedQuery
from pytest_pilotscope.postgres.indexes import ExistingIndex, Index, drop_index, existing_indexes
from pytest_pilotscope.postgres.session import Session

Start = Literal["existing", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartingPoint:
    """The indexes that stay, and those that were dropped as part of the result."""

    kept: tuple[ExistingIndex, ...]
    dropped: tuple[ExistingIndex, ...]

    @property
    def kept_indexes(self) -> frozenset[Index]:
        """The kept indexes that are btrees over columns."""
        return frozenset(existing.index for existing in self.kept if existing.index is not None)


def take_start(session: Session, *, drop: bool) -> StartingPoint:
    """
    List the indexes of a database of our own; with `drop`, drop those that no constraint needs.

    Call it with `drop` only on a copy.
    """
    found = existing_indexes(session)
    dropped = tuple(existing for existing in found if drop and not existing.constraint)
    for existing in dropped:
        drop_index(session, existing.qualified)
    return StartingPoint(kept=tuple(existing for existing in found if existing not in dropped), dropped=dropped)


def select(queries: Sequence[IndexedQuery], costs: WorkloadCosts, limits: Limits, kept: frozenset[Index]) -> Selection:
    """Run Extend for `queries` on top of the kept indexes, which it can widen but neither replace nor repeat."""
    return extend(candidate_columns(queries), column_partners(queries), costs, limits, kept=kept)


def candidate_columns(queries: Iterable[IndexedQuery]) -> Columns:
    """Return table -> columns with which an index can help at least one query."""
    found: dict[str, set[str]] = {}
    for query in queries:
        for table, columns in query.indexable.items():
            found.setdefault(table, set()).update(columns)
    return {table: frozenset(columns) for table, columns in found.items()}


def column_partners(queries: Iterable[IndexedQuery]) -> dict[tuple[str, str], frozenset[str]]:
    """Return (table, column) -> the columns of the table that some query can use together with it."""
    found: dict[tuple[str, str], set[str]] = {}
    for query in queries:
        for table, columns in query.indexable.items():
            for column in columns:
                found.setdefault((table, column), set()).update(columns)
    return {key: frozenset(columns) for key, columns in found.items()}
