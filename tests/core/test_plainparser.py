"""The quick parser reads what it reads exactly as sqlglot does, and leaves the rest alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_pilotscope.core.joinparser import parse_query
from pytest_pilotscope.core.plainparser import parse_plain
from pytest_pilotscope.datasets.stats.dataset import StatsDataset
from pytest_pilotscope.datasets.stats.schema import TABLES

SCHEMA = {
    "a": {"x": "integer", "y": "smallint", "s": "text", "date": "date", "f": "boolean", "e": "text"},
    "b": {"x": "bigint", "z": "integer", "t": "character varying(10)", "Mixed": "integer"},
}

columns = st.sampled_from(["a.x", "A.Y", "r.x", "r.z", "z", "y", "a.s", "r.t", "e", "a.date", 'r."Mixed"', "a . x"])
constants = st.sampled_from(["1", "-2", "'7'", "'it''s'", "2.50", "''", "'2010-01-01'", "12345678901234567890", "'b%'", "''''"])
operators = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="])
conditions = st.one_of(
    st.builds("{} {} {}".format, columns, operators, columns),
    st.builds("{}{}{}".format, columns, operators, constants),
    st.builds("{} {} {}".format, constants, operators, columns),
    st.builds("{} {}BETWEEN {} and {}".format, columns, st.sampled_from(["", "NOT "]), constants, constants),
    st.builds("{} {}in ({}, {})".format, columns, st.sampled_from(["", "not "]), constants, constants),
    st.builds("{} {} {}".format, columns, st.sampled_from(["LIKE", "not like", "ILIKE", "NOT ILIKE"]), constants),
    st.builds("{} IS {}".format, columns, st.sampled_from(["NULL", "not null"])),
)
starts = st.sampled_from(
    [
        "SELECT COUNT(*) FROM a, b AS r",
        "select min(a.s), max((r.t)) from a as a , b r",
        'SELECT DISTINCT x FROM "a", "b" AS "r"',
        "SELECT 'from', extract(year from date) FROM a, b r",
        "SELECT * FROM a, b",
        "SELECT 1 FROM A AS a, public.b AS r",
    ]
)
TOKENS = (
    "and or not is null true false a.x r.z x s = < - -- , ; . ( ) 1 2.5 'k' E'k' e'k' date '1' \" ' like in between escape join on left "
    "group order by limit for where select from as cast :: + * /* */ $1 a.f union all natural exists interval any \u00e4 \\ collate"
)
tokens = st.sampled_from(TOKENS.split())


def agree(sql: str) -> bool:
    """Compare the two parsers; True when the quick one took the query."""
    plain = parse_plain(sql, SCHEMA)
    assert plain is None or plain == parse_query(sql, SCHEMA)
    return plain is not None


@settings(deadline=None)
@given(starts, st.lists(conditions, max_size=4))
def test_plain_queries_are_read_alike(start: str, where: list[str]) -> None:
    """Relations, typed conditions, classes and derived conditions are equal."""
    agree(f"{start}{' WHERE ' if where else ''}{' AND '.join(where)}")


@settings(deadline=None)
@given(starts, st.lists(st.one_of(tokens, tokens, conditions, st.just("AND")), max_size=6), st.lists(tokens, max_size=2))
@example("SELECT 1 FROM a", ["WHERE", "s", "=", "e'k'"], [])
@example("SELECT 1 FROM a", ["WHERE", "date", "'1'", "=", "x"], [])
@example("SELECT 1", ["--", "FROM", "a"], [])
@example("SELECT 1 FROM a", ["a.x"], ["="])
def test_anything_else_is_left_to_sqlglot(start: str, where: list[str], tail: list[str]) -> None:
    """No order of words and symbols is taken for a plain query that sqlglot reads differently or refuses."""
    agree(" ".join([start, *where, *tail]))
    agree(" ".join([start, "WHERE a.x = 1", *where, *tail]))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM a AS q, b WHERE q.x = b.x AND q.y >= -1 AND 3 > b.z AND q.s LIKE '%k' AND q.x BETWEEN 1 AND 2;",
        "select count(*) from a, a as c where a.x = c.y and c.s is not null and c.y not in (1, 2)",
        'SELECT 1 FROM b WHERE "Mixed" != 7',
    ],
)
def test_the_queries_it_is_for_are_taken(sql: str) -> None:
    """The forms of the benchmarks do not fall back."""
    assert agree(sql)


def test_a_generated_workload_is_read_alike_and_without_sqlglot() -> None:
    """Every query of the generated STATS workload is plain."""
    schema = {table: dict.fromkeys(columns, "integer") for table, columns in TABLES.items()}
    workload = StatsDataset(name="stats_tiny", scale=0.01).workload()
    queries = [*workload.train[:100], *workload.test]
    plain = [parse_plain(query.sql, schema) for query in queries]
    assert plain == [parse_query(query.sql, schema) for query in queries]


@pytest.mark.parametrize("pattern", ["stats_tiny/*.sql", "imdb_tiny/queries/*.sql"])
def test_published_workloads_are_read_alike(shared_data: Path, pattern: str) -> None:
    """STATS and JOB queries give the same, where they are plain and where they are not (then the quick parser declines)."""
    texts = [text for file in shared_data.glob(pattern) for text in file.read_text(encoding="utf-8").split(";") if "CREATE" not in text]
    queries = [text.strip() for text in texts if text.strip().lower().startswith("select") and "pg_catalog" not in text]
    schema = _every_column(queries)
    taken = [plain is not None for plain in (parse_plain(sql, schema) for sql in queries)]
    assert [parse_plain(sql, schema) or parse_query(sql, schema) for sql in queries] == [parse_query(sql, schema) for sql in queries]
    assert sum(taken) > 0.7 * len(taken)


def _every_column(queries: list[str]) -> dict[str, dict[str, str]]:
    """A schema in which every table has every column that is mentioned anywhere, as text."""
    import sqlglot
    from sqlglot import exp

    trees = [sqlglot.parse_one(sql, read="postgres") for sql in queries]
    names = {column.name for tree in trees for column in tree.find_all(exp.Column)}
    return {table.name: dict.fromkeys(names, "text") for tree in trees for table in tree.find_all(exp.Table)}
