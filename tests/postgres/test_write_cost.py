"""The cost that an index adds to writing is measured in tables of their own, which are gone afterwards."""

from __future__ import annotations

import pytest

from pytest_pilotscope.errors import StatementFailed
from pytest_pilotscope.postgres.indexes import Index
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.write_cost import ROUNDS, ROWS, write_cost

INDEX = Index("my table", ("a", "the b"))
TABLES = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace ORDER BY 1"


def test_an_index_costs_time_and_wal(scratch: Session) -> None:
    """A key, generated columns and triggers of the table are no obstacle; every version of PostgreSQL counts the WAL."""
    scratch.execute('CREATE TABLE "my table" (a int PRIMARY KEY, "the b" text NOT NULL, c int GENERATED ALWAYS AS (a * 2) STORED)')
    scratch.execute('INSERT INTO "my table" SELECT i, repeat(i::text, 3) FROM generate_series(1, 3000) AS i')
    before = scratch.execute(TABLES)
    cost = write_cost(scratch, INDEX)
    assert cost is not None
    assert cost.rows == ROWS
    assert len(cost.without_ms) == len(cost.with_ms) == ROUNDS
    assert all(ms > 0 for ms in (*cost.without_ms, *cost.with_ms))
    assert cost.wal_bytes > 10 * ROWS
    assert scratch.execute(TABLES) == before


def test_a_table_without_rows_has_no_cost(scratch: Session) -> None:
    """There is nothing to insert; nothing stays behind."""
    scratch.execute('CREATE TABLE "my table" (a int, "the b" int)')
    before = scratch.execute(TABLES)
    assert write_cost(scratch, INDEX) is None
    assert scratch.execute(TABLES) == before


def test_an_error_leaves_nothing_behind(scratch: Session) -> None:
    """The tables are dropped if the index cannot be built."""
    scratch.execute('CREATE TABLE "my table" (a int)')
    before = scratch.execute(TABLES)
    with pytest.raises(StatementFailed, match=r'column "the b" does not exist'):
        write_cost(scratch, INDEX)
    assert scratch.execute(TABLES) == before
