"""The tables of a database as they are stored, which of them a role may read, and the foreign keys between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg2 import sql

from pytest_pilotscope.postgres.catalog import PRIVILEGES, forbidden_part
from pytest_pilotscope.postgres.session import Session

# A table of an extension comes with the extension. Row-level security would hide rows without a word.
_TABLES = """
    SELECT c.oid::bigint, n.nspname::text, c.relname::text, c.relkind = 'p',
        has_table_privilege(c.oid, 'SELECT'), row_security_active(c.oid), {privileges},
        ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
            ORDER BY attnum),
        ARRAY(SELECT a.attname::text FROM pg_index AS i, unnest(i.indkey) WITH ORDINALITY AS k (attnum, place)
            JOIN pg_attribute AS a USING (attnum) WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid ORDER BY place),
        ARRAY(SELECT relid::oid::bigint FROM pg_partition_tree(c.oid) WHERE isleaf)
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence <> 't' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
    ORDER BY n.nspname, c.relname
"""
_FOREIGN_KEYS = """
    SELECT k.conrelid::bigint, k.confrelid::bigint,
        ARRAY(SELECT attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u (attnum, place)
            JOIN pg_attribute AS a USING (attnum) WHERE attrelid = k.conrelid ORDER BY place),
        ARRAY(SELECT attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u (attnum, place)
            JOIN pg_attribute AS a USING (attnum) WHERE attrelid = k.confrelid ORDER BY place)
    FROM pg_constraint AS k WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY k.conrelid, k.conname
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """
    A table, a partition, or a `partitioned` table, whose rows are in the `leaves` (by oid); any other one is its own leaf.

    `columns` are those that are stored, `key` those of the primary key. The role may not read it for the reason `hidden`; row-level
    security hides rows of a `secured` one from it.
    """

    oid: int
    schema: str
    name: str
    partitioned: bool
    columns: tuple[str, ...]
    key: tuple[str, ...]
    leaves: tuple[int, ...]
    hidden: str | None
    secured: bool

    @property
    def identifier(self) -> sql.Identifier:
        """The name, quoted, with its schema."""
        return sql.Identifier(self.schema, self.name)

    @property
    def source(self) -> sql.Composable:
        """The item of FROM that reads its rows and none of tables that inherit from it."""
        return self.identifier if self.partitioned else sql.SQL("ONLY {}").format(self.identifier)

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignKey:
    """A foreign key: `columns` of the table `child` refer to the columns `key` of the table `parent`."""

    child: Table
    parent: Table
    columns: tuple[str, ...]
    key: tuple[str, ...]


def read_tables(session: Session) -> list[Table]:
    """Return all tables of the database, by name, in every schema."""
    return [
        Table(
            oid=oid,
            schema=schema,
            name=name,
            partitioned=partitioned,
            columns=tuple(columns),
            key=tuple(key),
            leaves=tuple(leaves) if partitioned else (oid,),
            secured=secured,
            hidden=_hidden(readable, secured, schema, *privileges),
        )
        for oid, schema, name, partitioned, readable, secured, *privileges, columns, key, leaves in session.execute(
            _TABLES.format(privileges=PRIVILEGES)
        )
    ]


def _hidden(readable: bool, secured: bool, schema: str, in_schema: bool, in_part: bool, columns: Sequence[str]) -> str | None:
    """Return why a role may not read all of a table; None if it may."""
    if readable and in_schema:
        return "row-level security shows it some rows only" if secured else None
    if in_schema and in_part:
        part = forbidden_part(schema, in_schema, in_part, columns)
        return f"it may not read {part}, and a clone has whole tables" if part else "it has rights on columns only, not on the table"
    return f"it may not read {forbidden_part(schema, in_schema, in_part, columns) or 'it'}"


def read_foreign_keys(session: Session, tables: list[Table]) -> list[ForeignKey]:
    """Return the foreign keys between these tables; one of a partitioned table once."""
    by_oid = {table.oid: table for table in tables}
    return [
        ForeignKey(child=by_oid[child], parent=by_oid[parent], columns=tuple(columns), key=tuple(key))
        for child, parent, columns, key in session.execute(_FOREIGN_KEYS)
        if child in by_oid and parent in by_oid
    ]
