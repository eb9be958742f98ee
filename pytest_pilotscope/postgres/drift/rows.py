"""Rows and columns for all kinds of drift: a row is known by its table (`tableoid`) and its place in it (`ctid`)."""

from __future__ import annotations

from collections.abc import Sequence

from psycopg2 import sql

from pytest_pilotscope.postgres.sampling import drawn_number
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.tables import Table

_UNIQUE = """
    SELECT ARRAY(SELECT a.attname::text FROM unnest(i.indkey) AS k JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k
        ORDER BY a.attnum)
    FROM pg_index AS i WHERE i.indrelid = %s AND (i.indisunique OR i.indisexclusion) ORDER BY NOT i.indisprimary, i.indexrelid
"""


def drawing_order(table: Table, seed: int) -> sql.Composable:
    """Return the sort key of a drawing from a table, called `t` in its query: by a hash of each row's key, then by its place."""
    return sql.SQL("{}, t.tableoid, t.ctid").format(drawn_number(table, seed))


def unique_columns(session: Session, table: Table) -> list[Sequence[str]]:
    """Return the columns of each unique index, the primary key first, without the expressions in it."""
    return [columns for (columns,) in session.execute(_UNIQUE, (table.oid,))]


def equal(left: sql.Composable, ours: Sequence[sql.Composable], right: sql.Composable, theirs: Sequence[sql.Composable]) -> sql.Composable:
    """Return the condition that columns of one relation equal those of another."""
    pairs = [sql.SQL("{}.{} = {}.{}").format(left, own, right, other) for own, other in zip(ours, theirs, strict=True)]
    return sql.SQL(" AND ").join(pairs)


def names(columns: Sequence[str]) -> list[sql.Composable]:
    """Return the names of columns, quoted."""
    return [sql.Identifier(column) for column in columns]
