"""
Sample rows of a database such that no reference is lost: some rows of each table, and all rows that these refer to.

A row is known by its place in its table (`ctid`), which stays the same within the transaction that reads it. So keys of several columns,
tables that refer to themselves, and circles of references are nothing special, and nothing is written to the server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from psycopg2 import sql

from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.tables import ForeignKey, Table

Rows = npt.NDArray[np.int64]
"""Places of rows in one table, ascending: the number of the page, times 65536, plus the number in the page."""

_AT_ONCE = 20_000
_PLACE = "((({0}.ctid::text::point)[0]::bigint << 16) + ({0}.ctid::text::point)[1]::bigint)"
_BITS = 2**31 - 1
_NOTHING = np.empty(0, dtype=np.int64)


def sampled(
    session: Session, tables: Sequence[Table], keys: Sequence[ForeignKey], *, share: float | None, most: int | None, seed: int
) -> dict[int, Rows]:
    """
    Return the rows to take of each table that stores rows, by its oid: a `share` of them, or at `most` so many, and all that they refer to.

    The same data and seed give the same rows. The session is in a transaction that sees one state of the data.
    """
    stored = {table.oid: table for table in tables if not table.partitioned}
    taken = {oid: _drawn(session, table, share, most, seed) for oid, table in stored.items()}
    fresh: Mapping[int, Rows] = dict(taken)
    while any(rows.size for rows in fresh.values()):
        reached: dict[int, list[Rows]] = {oid: [] for oid in stored}
        for key in keys:
            for child in stored.keys() & set(key.child.leaves):
                for part in _parts(fresh.get(child, _NOTHING)):
                    for oid, rows in _referenced(session, key, stored[child], part):
                        if oid in reached:
                            reached[oid].append(rows)
        fresh = {oid: np.setdiff1d(np.concatenate(found), taken[oid]) for oid, found in reached.items() if found}
        taken |= {oid: np.union1d(taken[oid], rows) for oid, rows in fresh.items()}
    return taken


def places(rows: Rows) -> Iterator[sql.Composable]:
    """Yield the rows as conditions on `ctid`, some at a time."""
    for part in _parts(rows):
        yield _is_among(part)


def _parts(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _AT_ONCE] for start in range(0, rows.size, _AT_ONCE))


def _is_among(rows: Rows) -> sql.Composable:
    listed = ",".join(f'"({page},{number})"' for page, number in zip((rows >> 16).tolist(), (rows & 0xFFFF).tolist(), strict=True))
    return sql.SQL("ctid = ANY ({}::tid[])").format(sql.Literal(f"{{{listed}}}"))


def drawn_number(table: Table, seed: int) -> sql.Composable:
    """Return a random number of each row of a table, called `t` in its query: a hash of the primary key, or of the place without one."""
    named = [sql.Literal(str(table)), *(sql.SQL("t.{}").format(sql.Identifier(name)) for name in table.key or ("ctid",))]
    return sql.SQL("(hashtextextended(ROW({})::text, {}) & {})").format(sql.SQL(", ").join(named), sql.Literal(seed), sql.Literal(_BITS))


def _drawn(session: Session, table: Table, share: float | None, most: int | None, seed: int) -> Rows:
    number = drawn_number(table, seed)
    chosen = (
        sql.SQL("ORDER BY {}, t.ctid LIMIT {}").format(number, sql.Literal(most))
        if share is None
        else sql.SQL("WHERE {} < {}").format(number, sql.Literal(round(share * _BITS)))
    )
    statement = sql.SQL("SELECT {} FROM {} AS t {}").format(sql.SQL(_PLACE.format("t")), table.source, chosen)
    return np.sort(_numbers(session, statement)[:, 0])


def _referenced(session: Session, key: ForeignKey, child: Table, rows: Rows) -> Iterator[tuple[int, Rows]]:
    """Yield the rows that some rows of a table refer to by a foreign key, by the oid of the table that stores them."""
    equal = [
        sql.SQL("p.{} = c.{}").format(sql.Identifier(parent), sql.Identifier(column))
        for column, parent in zip(key.columns, key.key, strict=True)
    ]
    statement = sql.SQL("SELECT DISTINCT p.tableoid::bigint, {} FROM {} AS c JOIN {} AS p ON {} WHERE c.{}").format(
        sql.SQL(_PLACE.format("p")), child.source, key.parent.source, sql.SQL(" AND ").join(equal), _is_among(rows)
    )
    found = _numbers(session, statement, columns=2)
    for oid in np.unique(found[:, 0]).tolist():
        yield oid, np.sort(found[found[:, 0] == oid, 1])


def _numbers(session: Session, statement: sql.Composable, columns: int = 1) -> Rows:
    """Return the numbers that a statement gives, an array of this many columns."""
    pieces: list[bytes] = []
    session.copy_out(statement, pieces.append)
    return np.fromstring(b"".join(pieces), dtype=np.int64, sep=" ").reshape(-1, columns)
