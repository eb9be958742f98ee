"""The quick parser gives what the general one gives, and asks it whenever a query is not of the plain form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.mscn import quickparse
from algorithms.mscn.quickparse import quick_parse
from pytest_pilotscope.core import joins
from pytest_pilotscope.errors import UnsupportedQuery

SCHEMA = {
    "a": {"x": "integer", "y": "smallint", "s": "text", "d": "date", "n": "numeric(8,2)", "f": "boolean"},
    "b": {"x": "bigint", "z": "integer", "t": "character varying(10)", "e": "timestamp without time zone"},
    "c": {"x": "integer", "z": "integer", "w": "double precision"},
}

PLAIN = (
    "SELECT COUNT(*) FROM a",
    "select  count(*) from A as q, B r\twhere q.x = r.x and\n q.Y >= -1 ;",
    "SELECT MIN(a.s) AS first, MAX(b.z) FROM a, b WHERE a.x = b.x AND b.t LIKE '%x_' AND a.s NOT LIKE 'it''s'",
    "SELECT * FROM a, b, c WHERE a.x = b.x AND b.x = c.x AND a.x = 5",
    "SELECT * FROM a WHERE a.x BETWEEN 1 AND 2 AND a.d BETWEEN '2020-01-01' AND '2020-02-01'",
    "SELECT * FROM a, c WHERE a.x = c.x AND c.w <= 2.50 AND a.n <> -0.5 AND a.s IN ('b', 'a', 'b') AND a.y NOT IN (3,1)",
    "SELECT * FROM b WHERE b.e >= '2010-07-19 19:32:20'::timestamp AND b.t IS NOT NULL AND b.z IS NULL AND b.z != '7'",
    "SELECT * FROM a p, a q WHERE p.x = q.y AND p.s = 'and' AND q.s = ' x and y '",
)
UNUSUAL = (
    "SELECT * FROM a WHERE x = 1",
    "SELECT * FROM a WHERE a.x = 1 OR a.x = 2",
    "SELECT * FROM a WHERE (a.x = 1 OR a.y = 2) AND a.f",
    "SELECT * FROM a JOIN b ON a.x = b.x",
    "SELECT * FROM a, b WHERE a.x < b.x",
    "SELECT * FROM a, b WHERE a.s = b.t AND a.n = b.x",
    "SELECT * FROM a WHERE a.x = a.y",
    "SELECT * FROM a WHERE 1 = a.x",
    "SELECT * FROM a WHERE a.x = 1 + 1",
    "SELECT * FROM a WHERE a.x = '1 '",
    "SELECT * FROM a WHERE a.x IN (1, 2 + 3)",
    'SELECT * FROM "a" WHERE "a"."x" = 1',
    "SELECT a.x FROM a WHERE a.x = 1 GROUP BY a.x",
    "SELECT * FROM a WHERE a.x = 1 -- AND a.x = 2",
    "SELECT * FROM a WHERE a.s = 'a\\b' AND a.s LIKE 'a\\%'",
    "SELECT * FROM a WHERE a.s ILIKE 'a%'",
    "SELECT * FROM a WHERE a.d = date '2020-01-01'",
    "SELECT * FROM b WHERE b.e = '2020-01-01'::timestamp(3)",
)
REFUSED = (
    "SELECT * FROM a, a WHERE a.x = 1",
    "SELECT * FROM nobody WHERE nobody.x = 1",
    "SELECT * FROM a WHERE a.nothing = 1",
    "SELECT * FROM a WHERE q.x = 1",
    "SELECT * FROM a LEFT JOIN b ON a.x = b.x",
    "SELECT * FROM a WHERE a.x = 1 AND",
    "SELECT * FROM a WHERE",
    "DELETE FROM a WHERE a.x = 1",
)


@pytest.fixture
def no_general_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking the general parser fails the test."""

    def refuse(sql: str, schema: joins.Schema) -> joins.JoinQuery:
        raise AssertionError(f"the general parser was asked about {sql}")

    monkeypatch.setattr(quickparse, "parse", refuse)


@pytest.mark.parametrize("sql", PLAIN)
@pytest.mark.usefixtures("no_general_parser")
def test_plain_queries_are_taken_apart_alike(sql: str) -> None:
    """The same relations, predicates in the same order, equalities and classes, without asking the general parser."""
    assert quick_parse(sql, SCHEMA) == joins.parse(sql, SCHEMA)


@pytest.mark.parametrize("sql", UNUSUAL)
def test_everything_else_goes_to_the_general_parser(sql: str) -> None:
    """What is not plain has the general parser's result."""
    assert quick_parse(sql, SCHEMA) == joins.parse(sql, SCHEMA)


@pytest.mark.parametrize("sql", REFUSED)
def test_refuses_with_the_general_parsers_reason(sql: str) -> None:
    """There is one place that says no, and it says why."""
    with pytest.raises(UnsupportedQuery) as general:
        joins.parse(sql, SCHEMA)
    with pytest.raises(UnsupportedQuery, match=f"^{re.escape(str(general.value))}$"):
        quick_parse(sql, SCHEMA)


COLUMNS = [(alias, column) for alias, table in (("p", "a"), ("q", "b"), ("r", "c")) for column in SCHEMA[table]]
VALUES = st.one_of(
    st.integers(-5, 5).map(str),
    st.decimals(-3, 3, places=1).map(str),
    st.sampled_from(["'u'", "'it''s'", "' 5'", "'x'", "''", "'2020-01-01'", "'2020-01-01'::date", "'2020-01-01 10:00:00'::timestamp"]),
)
TESTS = st.one_of(
    st.tuples(st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="]), VALUES).map(" ".join),
    st.tuples(VALUES, VALUES).map(lambda ends: f"BETWEEN {ends[0]} AND {ends[1]}"),
    st.lists(VALUES, min_size=1, max_size=3).map(lambda values: f"IN ({', '.join(values)})"),
    st.lists(VALUES, min_size=1, max_size=3).map(lambda values: f"not in({','.join(values)})"),
    st.sampled_from(["LIKE 'a%'", "NOT LIKE '%_'", "IS NULL", "IS NOT NULL", "is  null"]),
    st.sampled_from(COLUMNS).map(lambda ref: f"= {ref[0]}.{ref[1]}"),
)
CONJUNCTS = st.lists(st.tuples(st.sampled_from(COLUMNS), TESTS), max_size=5)


@settings(deadline=None, max_examples=150)
@given(CONJUNCTS)
def test_agrees_with_the_general_parser_on_conjunctions(conjuncts: list[tuple[tuple[str, str], str]]) -> None:
    """Any conjunction of simple predicates and equalities: the same result or the same refusal."""
    where = " AND ".join(f"{alias}.{column} {test}" for (alias, column), test in conjuncts)
    sql = f"SELECT COUNT(*) FROM a AS p, b q, c AS r{' WHERE ' + where if where else ''}"
    try:
        wanted: joins.JoinQuery | str = joins.parse(sql, SCHEMA)
    except UnsupportedQuery as error:
        wanted = str(error)
    try:
        found: joins.JoinQuery | str = quick_parse(sql, SCHEMA)
    except UnsupportedQuery as error:
        found = str(error)
    assert found == wanted


def schema_of(dump: Path) -> dict[str, dict[str, str]]:
    """The tables of a dump by pg_dump."""
    schema = {}
    for name, body in re.findall(r"CREATE TABLE public\.(\w+) \((.*?)\n\);", dump.read_text(encoding="utf-8"), re.DOTALL):
        columns = [line.strip().rstrip(",").removesuffix(" NOT NULL").split(" ", 1) for line in body.strip().splitlines()]
        schema[name] = {column[0]: column[1] for column in columns}
    return schema


def test_agrees_on_the_queries_of_others(shared_data: Path) -> None:
    """STATS-CEB and JOB: the same results; all of STATS-CEB and two thirds of JOB are plain."""
    stats = [
        sql for name in ("train", "test") for sql in (shared_data / "stats_tiny" / f"{name}.sql").read_text().split(";\n") if sql.strip()
    ]
    job = [path.read_text() for path in sorted((shared_data / "imdb_tiny" / "queries").glob("*.sql"))]
    for statements, dump in ((stats, "stats_tiny"), (job, "imdb_tiny")):
        schema = schema_of(shared_data / dump / f"{dump}.sql")
        for sql in statements:
            assert quick_parse(sql, schema) == joins.parse(sql, schema)
