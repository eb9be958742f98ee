"""`delete`: a share of each table's rows goes, and with a row all rows that refer to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psycopg2 import sql

from pytest_pilotscope.postgres.drift.rows import drawing_order, equal, names
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.tables import ForeignKey, Table

_REFERRING = sql.SQL("""
    WITH more AS (
        INSERT INTO pilotscope_gone SELECT c.tableoid, c.ctid FROM {} AS c JOIN {} AS p ON {}
        JOIN pilotscope_gone AS g ON g.relation = p.tableoid AND g.place = p.ctid
        ON CONFLICT DO NOTHING RETURNING 1
    ) SELECT count(*) FROM more
""")
_DRAWN = sql.SQL("""
    INSERT INTO pilotscope_gone
    SELECT t.tableoid, t.ctid FROM {table} AS t LEFT JOIN pilotscope_gone AS g ON g.relation = t.tableoid AND g.place = t.ctid
    WHERE g.place IS NULL ORDER BY {order}
    LIMIT greatest(0, (SELECT round({share} * count(*))::bigint FROM {table}) - (
        SELECT count(*) FROM {table} AS t JOIN pilotscope_gone AS g ON g.relation = t.tableoid AND g.place = t.ctid))
""")
_GONE = sql.SQL("DELETE FROM {} AS t USING pilotscope_gone AS g WHERE g.relation = t.tableoid AND g.place = t.ctid")


def delete_rows(session: Session, tables: Sequence[Table], keys: Sequence[ForeignKey], share: float, seed: int) -> None:
    """
    Delete a share of the rows of each of the tables, which are in the order of their references.

    First go the rows that refer to rows that go; where these are fewer than the share, drawn ones follow. So a table that refers to several
    others loses more than the share.
    """
    gone_rows(session)
    for table in tables:
        follow(session, (key for key in keys if key.child == table))
        session.execute(_DRAWN.format(table=table.source, order=drawing_order(table, seed), share=sql.Literal(share)))
    while follow(session, keys):  # rows of a table that refers to itself, and of circles
        pass
    for table in tables:
        remove_gone(session, table)


def gone_rows(session: Session) -> None:
    """Make the table of the rows that go, `pilotscope_gone`, which lasts as long as the transaction."""
    session.execute("CREATE TEMP TABLE pilotscope_gone (relation oid, place tid, PRIMARY KEY (relation, place)) ON COMMIT DROP")


def remove_gone(session: Session, table: Table) -> None:
    """Delete the rows of a table that go."""
    session.execute(_GONE.format(table.source))


def follow(session: Session, keys: Iterable[ForeignKey]) -> int:
    """Let the rows go that refer to rows that go; return their number."""
    found = 0
    for key in keys:
        same = equal(sql.SQL("p"), names(key.key), sql.SQL("c"), names(key.columns))
        found += int(session.scalar(_REFERRING.format(key.child.source, key.parent.source, same)))
    return found
