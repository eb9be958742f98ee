"""Measure the cost that an index adds to writing: rows of its table are inserted into two other tables, with and without such an index."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from pytest_pilotscope.postgres.indexes import PREFIX, Index
from pytest_pilotscope.queries.predicates import quote_identifier

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

ROWS, ROUNDS = 1000, 5
SAMPLE, WITHOUT, WITH = (f"{PREFIX}write_cost_{name}" for name in ("sample", "without", "with"))
"""The names of the tables; they have no triggers, constraints or other indexes, and are dropped at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteCost:
    """The times of inserting `rows` rows, by round, without and with the index, and the bytes of WAL that the index added to them."""

    rows: int
    without_ms: tuple[float, ...]
    with_ms: tuple[float, ...]
    wal_bytes: int


class _Insert(NamedTuple):
    ms: float
    wal_bytes: int


def write_cost(session: Session, index: Index) -> WriteCost | None:
    """
    Measure an index in a database of ours; return None for a table without rows.

    Both tables are emptied before each of the rounds, in which they take turns, after one that is not counted.
    """
    with _tables(session, index) as rows:
        if not rows:
            return None
        rounds = [_round(session, first=(WITHOUT, WITH)[number % 2]) for number in range(ROUNDS + 1)][1:]
    return WriteCost(
        rows=rows,
        without_ms=tuple(found[WITHOUT].ms for found in rounds),
        with_ms=tuple(found[WITH].ms for found in rounds),
        wal_bytes=min(found[WITH].wal_bytes for found in rounds) - min(found[WITHOUT].wal_bytes for found in rounds),
    )


@contextmanager
def _tables(session: Session, index: Index) -> Iterator[int]:
    """Make the tables, and give the number of rows; drop them at the end."""
    try:
        session.execute(f"CREATE TABLE {SAMPLE} AS SELECT * FROM {quote_identifier(index.table)} LIMIT {ROWS}")  # noqa: S608  # a quoted name
        for table in (WITHOUT, WITH):
            session.execute(f"CREATE TABLE {table} (LIKE {SAMPLE})")
        session.execute(Index(WITH, index.columns).statement)
        yield int(session.scalar(f"SELECT count(*) FROM {SAMPLE}"))  # noqa: S608  # a constant
    finally:
        session.execute(f"DROP TABLE IF EXISTS {SAMPLE}, {WITHOUT}, {WITH}")


def _round(session: Session, *, first: str) -> dict[str, _Insert]:
    order = (first, WITH if first == WITHOUT else WITHOUT)
    session.execute(f"TRUNCATE {WITHOUT}, {WITH}")
    return {table: _inserted(session, table) for table in order}


def _inserted(session: Session, table: str) -> _Insert:
    explained = session.scalar(f"EXPLAIN (ANALYZE, WAL, TIMING off, FORMAT json) INSERT INTO {table} SELECT * FROM {SAMPLE}")  # noqa: S608  # constants
    return _Insert(float(explained[0]["Execution Time"]), int(explained[0]["Plan"]["WAL Bytes"]))
