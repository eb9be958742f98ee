"""`insert`: a share of each table's rows is copied. A copy has new keys, and refers to the copy of what its original refers to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from psycopg2 import sql

from pytest_pilotscope.postgres.drift.rows import drawing_order, equal, names, unique_columns
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.tables import ForeignKey, Table

_TYPES = """
    SELECT attname::text, t.typname::text, format_type(atttypid, atttypmod), CASE WHEN atttypmod > 4 THEN atttypmod - 4 END
    FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
"""
_LARGEST = "(SELECT max({column}) FROM {table})"
_FRESH: Mapping[str, str] = {
    **dict.fromkeys(("int2", "int4", "int8", "numeric", "float4", "float8"), f"{_LARGEST} + o.place"),
    "date": f"{_LARGEST} + o.place::integer",
    **dict.fromkeys(("timestamp", "timestamptz"), f"{_LARGEST} + o.place * interval '1 second'"),
    "uuid": "md5(o.{column}::text || o.place)",
    **dict.fromkeys(("text", "varchar", "bpchar"), "left(o.{column}::text, {room} - length('~' || o.place)) || '~' || o.place"),
}
"""By the name of a type, the new value of a unique column (`{column}`) in the copy with the number `place`."""
_LONGEST_TEXT = 1000

_ORIGINALS = sql.SQL("""
    CREATE TEMP TABLE {originals} ON COMMIT DROP AS
    SELECT row_number() OVER (ORDER BY {order}) AS place, {columns} FROM {table} AS t ORDER BY {order}
    LIMIT (SELECT round({share} * count(*)) FROM {table})
""")
_COPIES = sql.SQL("CREATE TEMP TABLE {copies} ON COMMIT DROP AS SELECT {values} FROM {originals} AS o {parents} ORDER BY o.place")
_INSERT = sql.SQL("INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {new} FROM {copies} ON CONFLICT DO NOTHING")
_FORGET = sql.SQL("DELETE FROM {copies} AS c WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {same})")


def insert_rows(session: Session, tables: Sequence[Table], keys: Sequence[ForeignKey], share: float, seed: int) -> None:
    """
    Copy a share of the rows of each of the tables, which are in the order of their references.

    Each unique index gets a new value in one of its columns that is no reference. Where that is impossible (pairs of references), a copy
    whose key exists already is left out. A row that refers to a row that is not copied keeps its reference; so do rows in a circle.
    """
    for number, table in enumerate(tables):
        if share == 0 or not table.columns:
            continue
        done = tables[:number]
        own = [key for key in keys if key.child == table]
        used = Counter(column for key in own for column in key.columns)
        followed = [key for key in own if key.parent in done and all(used[column] == 1 for column in key.columns)]
        fresh = _fresh_values(session, table, references=used.keys())
        session.execute(
            _ORIGINALS.format(
                originals=_temporary("originals", table),
                order=drawing_order(table, seed),
                columns=sql.SQL(", ").join(sql.SQL("t.{}").format(name) for name in names(table.columns)),
                table=table.source,
                share=sql.Literal(share),
            )
        )
        session.execute(_copies(table, followed, fresh))
        _insert(session, table, [key for key in keys if key.parent == table])


def _fresh_values(session: Session, table: Table, references: Collection[str]) -> dict[str, sql.Composable]:
    """Return the new value of one column of each unique index that has a column besides `references`."""
    types = {name: (kind, spelled, room) for name, kind, spelled, room in session.execute(_TYPES, (table.oid,))}
    fresh: dict[str, sql.Composable] = {}
    for columns in unique_columns(session, table):
        free = [name for name in columns if types[name][0] in _FRESH and name not in references]
        if not free or fresh.keys() & set(columns):
            continue
        kind, spelled, room = types[free[0]]
        value = sql.SQL(_FRESH[kind]).format(column=sql.Identifier(free[0]), table=table.source, room=sql.Literal(room or _LONGEST_TEXT))
        fresh[free[0]] = sql.SQL("CASE WHEN o.{} IS NOT NULL THEN ({})::{} END").format(sql.Identifier(free[0]), value, sql.SQL(spelled))
    return fresh


def _copies(table: Table, followed: Sequence[ForeignKey], fresh: Mapping[str, sql.Composable]) -> sql.Composable:
    """Return the statement that makes the copies, each with its old values (`old_...`) and its new ones."""
    new = {column: sql.SQL("o.{}").format(sql.Identifier(column)) for column in table.columns} | dict(fresh)
    parents = []
    for number, key in enumerate(followed):
        parent = sql.Identifier(f"parent_{number}")
        found = equal(parent, _old(key.parent, key.key), sql.SQL("o"), names(key.columns))
        parents.append(sql.SQL("LEFT JOIN {} AS {} ON {}").format(_temporary("copies", key.parent), parent, found))
        for column, theirs in zip(key.columns, _new(key.parent, key.key), strict=True):
            new[column] = sql.SQL("coalesce({}.{}, o.{})").format(parent, theirs, sql.Identifier(column))
    olds = zip(names(table.columns), _old(table, table.columns), strict=True)
    news = zip(new.values(), _new(table, list(new)), strict=True)
    values = [
        *(sql.SQL("o.{} AS {}").format(column, name) for column, name in olds),
        *(sql.SQL("{} AS {}").format(value, name) for value, name in news),
    ]
    return _COPIES.format(
        copies=_temporary("copies", table),
        originals=_temporary("originals", table),
        values=sql.SQL(", ").join(values),
        parents=sql.SQL(" ").join(parents),
    )


def _insert(session: Session, table: Table, referring: Sequence[ForeignKey]) -> None:
    """Insert the copies; forget those that were left out, so that nothing refers to them."""
    copies = _temporary("copies", table)
    session.execute(
        _INSERT.format(
            table=table.identifier,
            columns=sql.SQL(", ").join(names(table.columns)),
            new=sql.SQL(", ").join(_new(table, table.columns)),
            copies=copies,
        )
    )
    for key in {key.key for key in referring}:
        same = equal(sql.SQL("t"), names(key), sql.SQL("c"), _new(table, key))
        session.execute(_FORGET.format(copies=copies, table=table.source, same=same))


def _temporary(what: str, table: Table) -> sql.Identifier:
    return sql.Identifier("pg_temp", f"pilotscope_{what}_{table.oid}")


def _old(table: Table, columns: Sequence[str]) -> list[sql.Composable]:
    return [sql.Identifier(f"old_{table.columns.index(column)}") for column in columns]


def _new(table: Table, columns: Sequence[str]) -> list[sql.Composable]:
    return [sql.Identifier(f"new_{table.columns.index(column)}") for column in columns]
