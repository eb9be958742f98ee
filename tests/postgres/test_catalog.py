"""Tables and columns read from the catalog."""

from __future__ import annotations

from pytest_pilotscope.postgres.catalog import indexable_schema, read_schema
from pytest_pilotscope.postgres.session import Session

_STATEMENTS = """
    CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing;
    CREATE FOREIGN TABLE far (id int) SERVER nowhere;
    CREATE SCHEMA "S s"; CREATE DOMAIN "S s"."D d" AS int NOT NULL; CREATE TYPE with_json AS (a int, b json); CREATE TYPE plain AS (a int);
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE TABLE t (
        id int, d "S s"."D d", name varchar(40), at timestamp(3), long interval year to month, letter "char", mood mood, moods mood[],
        range int4range, plain plain, b jsonb, j json, js json[], place point, transaction xid, with_json with_json
    );
    CREATE TABLE p (id int, j json) PARTITION BY RANGE (id);
    CREATE MATERIALIZED VIEW m AS SELECT 1 AS id, NULL::point AS place
"""


def test_what_a_btree_can_be_on(scratch: Session) -> None:
    """No foreign table, and no type without an order, whether it is a column's own or within an array or a row."""
    scratch.execute(_STATEMENTS)
    schema = read_schema(scratch)
    found = indexable_schema(scratch, schema)
    assert {table: tuple(columns) for table, columns in found.items()} == {
        "m": ("id",),
        "p": ("id",),
        "t": ("id", "d", "name", "at", "long", "letter", "mood", "moods", "range", "plain", "b"),
    }
    for table, columns in found.items():
        for column in columns:
            assert columns[column] == schema[table][column]
            scratch.execute(f'CREATE INDEX ON "{table}" ("{column}")')
