"""Read tables, columns, indexes and foreign keys from PostgreSQL's catalog."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import StatementFailed, named

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.joins import Schema

_COLUMNS = """
    SELECT c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod)
    FROM pg_catalog.pg_class AS c
    JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid
    WHERE c.relkind IN ('r', 'p', 'm', 'f')
      AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
      AND pg_catalog.pg_table_is_visible(c.oid)
      AND a.attnum > 0 AND NOT a.attisdropped
      AND c.relispopulated AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
    ORDER BY c.relname, a.attnum
"""
PRIVILEGES = """
    pg_catalog.has_schema_privilege(n.oid, 'USAGE'), pg_catalog.has_any_column_privilege(c.oid, 'SELECT'),
    ARRAY(SELECT attname::text FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
        AND NOT pg_catalog.has_column_privilege(c.oid, attnum, 'SELECT') ORDER BY attnum)
"""
"""The three columns of a query on pg_class `c` and pg_namespace `n` that `forbidden_part` takes."""

_UNREADABLE = """
    SELECT n.nspname::text, c.relname::text, {privileges}
    FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'm', 'f', 'v') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
      AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT'))
"""
_UNPOPULATED = """
    SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind = 'm' AND NOT c.relispopulated
"""


def read_schema(session: Session) -> Schema:
    """
    Read the tables that a query finds without a schema name: table -> column -> type, in the order of their definition.

    Types are spelled by `format_type`: `integer`, `character varying(40)`, `timestamp without time zone`. Views are left
    out, because an optimizer sees the tables behind them; so are materialized views that are not populated, and columns that the role may
    not read.
    """
    schema: dict[str, dict[str, str]] = {}
    for table, column, column_type in session.execute(_COLUMNS):
        schema.setdefault(str(table), {})[str(column)] = str(column_type)
    return schema


def forbidden_part(schema: str, in_schema: bool, in_part: bool, columns: Sequence[str]) -> str:
    """Return what a role may not read of a relation: its schema, some `columns`, or all of it (an empty text)."""
    if not in_schema:
        return f"schema {schema}"
    return f"{'column' if len(columns) == 1 else 'columns'} {named(columns)}" if in_part and columns else ""


def unreadable_relations(session: Session) -> dict[tuple[str, str], str]:
    """Return the tables and views (schema, name), in any schema, that the role may not read, each with its `forbidden_part`."""
    found = session.execute(_UNREADABLE.format(privileges=PRIVILEGES))
    return {(schema, name): forbidden_part(schema, *privileges) for schema, name, *privileges in found}


def unpopulated_views(session: Session) -> set[tuple[str, str]]:
    """Return the materialized views (schema, name) that hold nothing yet: PostgreSQL plans a query on one, and refuses to run it."""
    return {(schema, name) for schema, name in session.execute(_UNPOPULATED)}


_FOREIGN = "SELECT relname FROM pg_catalog.pg_class WHERE relkind = 'f' AND pg_catalog.pg_table_is_visible(oid)"
_UNDEFINED_FUNCTION = "42883"


def indexable_schema(session: Session, schema: Schema) -> Schema:
    """Return the part of `schema` that a btree can be on: no foreign tables, and no columns of a type without an order (json, point)."""
    foreign = {str(table) for (table,) in session.execute(_FOREIGN)}
    types = {column_type for columns in schema.values() for column_type in columns.values()}
    sortable = {column_type for column_type in types if _is_sortable(session, column_type)}
    return {
        table: {column: column_type for column, column_type in columns.items() if column_type in sortable}
        for table, columns in schema.items()
        if table not in foreign
    }


def _is_sortable(session: Session, column_type: str) -> bool:
    """Tell whether the type, and each type inside it, has a default operator class for btree: PostgreSQL sorts by nothing else."""
    try:
        session.execute(f"SELECT NULL::{column_type} WHERE false ORDER BY 1")
    except StatementFailed as error:
        if error.sqlstate != _UNDEFINED_FUNCTION:
            raise
        return False
    return True


_INDEXED = """
    SELECT c.relname, a.attname FROM pg_catalog.pg_index AS i
    JOIN pg_catalog.pg_class AS c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
    WHERE pg_catalog.pg_table_is_visible(c.oid) AND i.indpred IS NULL
"""


def indexed_columns(session: Session) -> set[tuple[str, str]]:
    """Return the columns (table, column) that lead an index over all rows."""
    return {(str(table), str(column)) for table, column in session.execute(_INDEXED)}


_REFERENCES = """
    SELECT c.relname, a.attname, p.relname, b.attname FROM pg_catalog.pg_constraint AS k
    JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_class AS p ON p.oid = k.confrelid
    JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
    JOIN pg_catalog.pg_attribute AS b ON b.attrelid = p.oid AND b.attnum = k.confkey[1]
    WHERE k.contype = 'f' AND cardinality(k.conkey) = 1
      AND pg_catalog.pg_table_is_visible(c.oid) AND pg_catalog.pg_table_is_visible(p.oid)
      AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT') AND pg_catalog.has_column_privilege(p.oid, b.attnum, 'SELECT')
    ORDER BY 1, 2, 3, 4
"""


def read_references(session: Session) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Return the declared foreign keys of one column: ((table, column), (referenced table, its column)), if the role may read both."""
    rows = session.execute(_REFERENCES)
    return [((str(table), str(column)), (str(parent), str(key))) for table, column, parent, key in rows]
