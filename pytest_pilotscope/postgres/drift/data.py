"""
Drift of data: rows are inserted or deleted, popular values become more popular, or time goes on.

The same data, drift and seed give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from psycopg2 import sql

from pytest_pilotscope.errors import DatasetError
from pytest_pilotscope.postgres.drift.arrivals import LATER, cut_of, dated_columns, return_rows, set_aside
from pytest_pilotscope.postgres.drift.deletes import delete_rows
from pytest_pilotscope.postgres.drift.inserts import insert_rows
from pytest_pilotscope.postgres.drift.skews import skew_values
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.tables import ForeignKey, Table, read_foreign_keys, read_tables

KINDS: Mapping[str, Callable[..., None]] = {
    "insert": insert_rows,
    "delete": delete_rows,
    "skew": skew_values,
    "time": return_rows,
}
"""The kinds of drift. Each takes the session, the tables, their foreign keys, the amount and the seed."""

_PARTITIONS = "SELECT oid::bigint FROM pg_class WHERE relispartition"
_ELSEWHERE = """
    SELECT p.oid::bigint, min(part.relid::regclass::text)
    FROM pg_class AS p, pg_partition_tree(p.oid) AS part JOIN pg_class AS c ON c.oid = part.relid
    WHERE p.relkind = 'p' AND c.relkind = 'f' GROUP BY p.oid
"""
_REFERENCES = """
    SELECT n.nspname::text, c.relname::text, k.conname::text, pg_get_constraintdef(k.oid)
    FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY n.nspname, c.relname, k.conname
"""


def drift_data(session: Session, kind: str, amount: float, seed: int) -> Mapping[str, tuple[int, int]]:
    """
    Change the data of the session's database, which is ours; return the rows of each table before and after.

    `amount` is the share of rows that `insert` adds to each table and `delete` takes away, and the power of `skew`: 1 leaves the values as
    they are. `time` brings back what `go_back` has set aside. Nothing is vacuumed or analyzed, now or later by itself. Triggers of users
    stay disabled. Raise DatasetError for tables that the role cannot read as a whole, and StatementFailed if a constraint no longer holds
    (a CHECK of the keys, for example).
    """
    tables = _tables(session)
    keys = read_foreign_keys(session, tables)
    before = _counts(session, tables)
    with _changing(session, tables):
        KINDS[kind](session, _parents_first(tables, keys), keys, amount, seed)
    keep_autovacuum_away(session)
    after = _counts(session, tables)
    return {name: (rows, after[name]) for name, rows in before.items()}


def go_back(session: Session, share: float, *, known: Mapping[str, str], chosen: Sequence[str]) -> str:
    """
    Set the rows aside that came after that share of the dated rows; return a sentence about the cut.

    Nothing is left of them but the schema `LATER`: tables are rewritten, vacuumed and analyzed. `known` are the columns that date the rows
    of the dataset's tables, `chosen` the names that the user gives. Raise DatasetError without dates.
    """
    tables = _tables(session)
    keys = read_foreign_keys(session, tables)
    dates = dated_columns(session, tables, known, chosen)
    cut = cut_of(session, dates, share)
    before = sum(_counts(session, tables).values())
    with _changing(session, tables):
        set_aside(session, tables, keys, dates, cut)
    session.execute("VACUUM (FULL)")
    session.execute("VACUUM (ANALYZE)")
    keep_autovacuum_away(session)
    columns = ", ".join(f"{table}.{column}" for table, column in dates.items())
    return f"{sum(_counts(session, tables).values())} of {before} rows came up to {cut}, by {columns}"


def _tables(session: Session) -> list[Table]:
    """
    Return the tables that hold all rows: a partitioned one in place of its partitions.

    Raise DatasetError for one that the role cannot read as a whole, and for one with rows on another server: that is no copy.
    """
    partitions = {oid for (oid,) in session.execute(_PARTITIONS)}
    elsewhere: dict[int, str] = dict(session.execute(_ELSEWHERE))
    tables = [table for table in read_tables(session) if table.oid not in partitions and table.schema != LATER]
    for table in tables:
        if table.hidden:
            raise DatasetError(f"the rows of table {table} cannot drift: the role does not have all of them, because {table.hidden}")
        if table.oid in elsewhere:
            raise DatasetError(
                f"the rows of table {table} cannot drift: its partition {elsewhere[table.oid]} is a foreign table, whose rows are on "
                "another server and would change there; detach it in the database that is measured"
            )
    return tables


def _parents_first(tables: Sequence[Table], keys: Sequence[ForeignKey]) -> list[Table]:
    """Return the tables, those that others refer to first; a circle of references begins at its first table by name."""
    waiting = {table: {key.parent for key in keys if key.child == table} - {table} for table in tables}
    ordered: list[Table] = []
    while waiting:
        free = [table for table, parents in waiting.items() if not parents & waiting.keys()]
        for table in free or [next(iter(waiting))]:
            ordered.append(table)
            del waiting[table]
    return ordered


def _counts(session: Session, tables: Sequence[Table]) -> dict[str, int]:
    count = sql.SQL("SELECT count(*) FROM {}")
    return {str(table): int(session.scalar(count.format(table.source))) for table in tables}


@contextmanager
def _changing(session: Session, tables: Sequence[Table]) -> Iterator[None]:
    """Change rows in one transaction, without triggers of users, and check every reference at its end."""
    with _transaction(session), _without_references(session):
        for table in tables:
            session.execute(sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER").format(table.identifier))
        yield


@contextmanager
def _transaction(session: Session) -> Iterator[None]:
    session.execute("BEGIN")
    try:
        yield
    except BaseException:
        if not session.closed:
            session.execute("ROLLBACK")
        raise
    session.execute("COMMIT")


@contextmanager
def _without_references(session: Session) -> Iterator[None]:
    """Drop the foreign keys for the length of the block. PostgreSQL checks every reference when they are made again."""
    references = session.execute(_REFERENCES)
    change = sql.SQL("ALTER TABLE {} {} CONSTRAINT {} {}").format
    for schema, table, name, _ in references:
        session.execute(change(sql.Identifier(schema, table), sql.SQL("DROP"), sql.Identifier(name), sql.SQL("")))
    yield
    session.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for schema, table, name, definition in references:
        session.execute(change(sql.Identifier(schema, table), sql.SQL("ADD"), sql.Identifier(name), sql.SQL(definition)))


def keep_autovacuum_away(session: Session) -> None:
    """Let nothing but statements vacuum or analyze the tables of a database of ours."""
    if session.scalar("SHOW autovacuum") == "off":  # a server started here
        return
    for table in read_tables(session):
        if not table.partitioned:
            session.execute(sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(table.identifier))
