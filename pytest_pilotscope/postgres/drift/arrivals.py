"""`time`: the rows that came after a date are set aside, with all rows that refer to them, and come back later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg2 import sql

from pytest_pilotscope.errors import DatasetError
from pytest_pilotscope.postgres.drift.deletes import follow, gone_rows, remove_gone
from pytest_pilotscope.postgres.drift.rows import names as quoted
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.tables import ForeignKey, Table

LATER = "pilotscope_later"
"""The schema of the rows that are set aside."""

_DATE, _NUMBER = "date", "number"
_KINDS = {"date": _DATE, "timestamp": _DATE, "timestamptz": _DATE, **dict.fromkeys(("int2", "int4", "int8", "numeric"), _NUMBER)}
_TYPES = """
    SELECT attname::text, typname::text FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
    WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""
_CUT = sql.SQL("SELECT percentile_disc({}) WITHIN GROUP (ORDER BY came), max(came), count(came) FROM ({}) AS dated")
_CAME_LATER = sql.SQL("INSERT INTO pilotscope_gone SELECT t.tableoid, t.ctid FROM {} AS t WHERE {} > {}")
_SET_ASIDE = sql.SQL("""
    CREATE TABLE {} AS SELECT {} FROM {} AS t JOIN pilotscope_gone AS g ON g.relation = t.tableoid AND g.place = t.ctid
""")
_RETURN = sql.SQL("INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM {}")


def dated_columns(session: Session, tables: Sequence[Table], known: Mapping[str, str], chosen: Sequence[str]) -> dict[Table, str]:
    """
    Return the column that dates the rows of each table: the first of those `chosen`, else that `known` of the dataset, else the first date.

    A chosen name may have the table's in front. Raise DatasetError if no table has one, and for a column that is no date and no number.
    """
    names = set(chosen or (f"{table}.{column}" for table, column in known.items()))
    missing = list(chosen)
    found: dict[Table, str] = {}
    kinds = {}
    for table in tables:
        for column, kind in session.execute(_TYPES, (table.oid,)):
            is_named = names & {column, f"{table.name}.{column}", f"{table}.{column}"}
            missing = [name for name in missing if name not in is_named]
            if table not in found and (is_named if names else _KINDS.get(kind) == _DATE):
                found[table], kinds[f"{table}.{column}"] = column, _KINDS.get(kind)
    if missing or not found:
        what = f"is called {' or '.join(map(repr, missing))}" if missing else "is a date or a timestamp"
        raise DatasetError(f"no column of database {session.database!r} {what}; name the one that dates its rows: --drift time:70%:COLUMN")
    if None in kinds.values() or len(set(kinds.values())) > 1:
        listed = ", ".join(f"{column} ({kind or 'neither'})" for column, kind in kinds.items())
        raise DatasetError(
            f"these columns do not date rows in one way: {listed}; name dates only, or numbers only: --drift time:70%:COLUMN"
        )
    return found


def cut_of(session: Session, dates: Mapping[Table, str], share: float) -> object:
    """Return the date up to which that share of the dated rows came; raise DatasetError if none is dated, or none came later."""
    dated = [sql.SQL("SELECT {} AS came FROM {} AS t").format(_came(column), table.source) for table, column in dates.items()]
    ((cut, last, count),) = session.execute(_CUT.format(sql.Literal(share), sql.SQL(" UNION ALL ").join(dated)))
    columns = ", ".join(f"{table}.{column}" for table, column in dates.items())
    if not count or (cut == last and share < 1):
        reason = f"none came after {cut}" if count else "none has a date"
        raise DatasetError(f"the rows of database {session.database!r} cannot be cut in time by {columns}: {reason}; name another column")
    return cut


def set_aside(session: Session, tables: Sequence[Table], keys: Sequence[ForeignKey], dates: Mapping[Table, str], cut: object) -> None:
    """Move the rows that came after `cut`, and all rows that refer to them, to the schema `LATER`."""
    gone_rows(session)
    session.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(LATER)))
    for table, column in dates.items():
        session.execute(_CAME_LATER.format(table.source, _came(column), sql.Literal(cut)))
    while follow(session, keys):
        pass
    for table in tables:
        columns = [sql.SQL("t.{}").format(name) for name in quoted(table.columns)]
        session.execute(_SET_ASIDE.format(_aside(table), sql.SQL(", ").join(columns), table.source))
        remove_gone(session, table)


def return_rows(session: Session, tables: Sequence[Table], keys: Sequence[ForeignKey], share: float, seed: int) -> None:
    """Put the rows that were set aside back, and drop their schema. Nothing here is random."""
    for table in tables:
        columns = sql.SQL(", ").join(quoted(table.columns))
        session.execute(_RETURN.format(table.identifier, _aside(table), columns=columns))
    forget_aside(session)


def forget_aside(session: Session) -> None:
    """Drop the rows that were set aside."""
    session.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(LATER)))


def _came(column: str) -> sql.Composable:
    return sql.SQL("t.{}").format(sql.Identifier(column))


def _aside(table: Table) -> sql.Identifier:
    return sql.Identifier(LATER, f"rows_{table.oid}")
