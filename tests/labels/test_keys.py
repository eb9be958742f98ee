"""Cardinalities of joins over keys of every type, and of the cases beside the checkout, against PostgreSQL."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_pilotscope.errors import StatementFailed
from pytest_pilotscope.labels import Label, cardinalities, read_schema
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import Subplan
from pytest_pilotscope.queries.queries import Query
from tests.conftest import LibraryOf

CASES = Path(__file__).parents[3] / "shared" / "cases"

# Sets by their aliases; the whole is compared with the statement itself. From 18 on the self-join is removed, and p2 stays.
EXPECTED: Mapping[str, Mapping[str, int]] = {
    "in_one": {"p": 10, "q": 1},
    "not_ne": {"p": 10, "q": 1},
    "computed": {"p": 10, "q": 1},
    "two_lists": {"p": 10, "q": 10, "r": 30, "p q": 100, "p r": 10, "q r": 100},
    "or_pair": {"p": 20, "q": 2},
    "enum": {"p": 10, "q": 10},
    "enum_chain": {"p": 30, "p q": 300, "p r": 300, "q r": 300},
    "enum_using": {"p": 30, "q": 30},
    "domain": {"p": 10, "q": 10},
    "expression": {"p": 30, "q": 30},
    "left_true": {"p": 30, "q": 10},
    "left_lower": {"p": 30, "q": 10},
    "self_key": {"p2": 10},
    "self_key_third": {"p2": 10, "q": 1, "p2 q": 10},
    "in_grouped": {"ANY_subquery": 3},
    "exists_nested": {"p": 30, "q": 30, "q r": 20},
    "cycle_and_cycle": {"a b": 300, "c d": 300, "c d e": 3000, "c d e f": 30_000, "a b c d e": 900_000},
    "ago": {},
    "abs": {},
    "yesterday_is_not_kept": {},
}
_OLD_SELF_JOIN = {
    "self_key": {"p": 10, "p2": 30, "p p2": 10},
    "self_key_third": {"p": 10, "p2": 30, "q": 1, "p p2": 10, "p q": 10},
}


@pytest.fixture(scope="module")
def cases(server: EmbeddedServer, module_scratch: Session, library_of: LibraryOf) -> Session:
    """Return the tables of the cases, on every PostgreSQL there is."""
    if not CASES.is_dir():
        pytest.skip(f"no cases: {CASES} is not there")
    module_scratch.execute(f"LOAD '{library_of(server)}'")
    for statement in (CASES / "schema.sql").read_text(encoding="utf-8").split(";"):
        if statement.strip():
            module_scratch.execute(statement)
    return module_scratch


def labelled(session: Session, sql: str, folder: Path) -> Mapping[Subplan, Label]:
    """Return the labels of a query; every set must have one."""
    labels = cardinalities(session, [Query(id="q", sql=sql)], schema=read_schema(session), fingerprint="f", cache_dir=folder)
    assert (dict(labels.unsupported), dict(labels.reasons)) == ({}, {})
    return labels["q"]


def test_the_cases(cases: Session, tmp_path: Path) -> None:
    """Constants, ORs, reduced outer joins, removed self-joins, semi joins and components have the planner's own meaning."""
    lines = [line for file in sorted(CASES.glob("truth_*.sql")) for line in file.read_text(encoding="utf-8").splitlines()]
    queries = [Query(id=line.split("#####")[0], sql=line.split("#####")[1]) for line in lines]
    labels = cardinalities(cases, queries, schema=read_schema(cases), fingerprint="f", cache_dir=tmp_path)
    assert (dict(labels.unsupported), dict(labels.reasons)) == ({}, {})
    expected = {**EXPECTED, **(_OLD_SELF_JOIN if cases.server_version < 180_000 else {})}
    for query in queries:
        found = {" ".join(sorted(subplan)): label.rows for subplan, label in labels[query.id].items()}
        whole = max(labels[query.id], key=len)
        assert labels[query.id][whole].rows == cases.scalar(query.sql), query.id
        assert {name: found[name] for name in expected[query.id]} == expected[query.id], query.id


def test_deep_statements(cases: Session, tmp_path: Path) -> None:
    """Sixty parentheses, 2,000 ORs and a list of 20,000 values are counted."""
    ors = " OR ".join(f"p.id = {number}" for number in range(2000))
    conditions = ["(" * 60 + "p.id = 1" + ")" * 60, ors, f"p.id IN ({', '.join(map(str, range(20_000)))})"]
    for condition, rows in zip(conditions, (1, 30, 30), strict=True):
        assert labelled(cases, f"SELECT count(*) FROM p WHERE {condition}", tmp_path)[frozenset("p")].rows == rows


KEYS = (
    "id", "en", "dom", "tg", "iv", "tt", "o", "ip", "nm", "bb", "mon", "bt", "vb", "ch", "mac", "arr",
    "ti", "jb", "rg", "cx", "xi", "num", "dbl", "rl", "ts", "tz", "d", "u", "bo", "tx", "vc", "bi",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_every_type(cases: Session, tmp_path: Path, key: str) -> None:
    """Whatever the type of a key, the join is counted in memory as PostgreSQL counts it."""
    sql = f"SELECT count(*) FROM p, q, r WHERE p.{key} = q.{key} AND q.{key} = r.{key} AND p.id < 9"
    labels = labelled(cases, sql, tmp_path)
    assert labels[frozenset("pqr")].rows == cases.scalar(sql)
    assert {label.source for label in labels.values()} == {"memory"}


@dataclass(frozen=True)
class Twins:
    """A type with values that are equal and look different, or look alike and are different; `setup` is run before."""

    type_name: str
    values: tuple[str, ...]
    setup: str = ""


TWINS = [
    Twins("numeric", ("1", "1.0", "1.00", "10", "NaN")),
    Twins("float8", ("0", "-0", "NaN", "0.1", "0.10000000000000002")),
    Twins("real", ("0", "-0", "NaN", "16777216")),
    Twins("interval", ("1 day", "24:00", "1 mon", "30 days", "-1 day", "-24:00")),
    Twins("jsonb", ("1", "1.0", '{"a": 1.00, "b": 2}', '{"b": 2.0, "a": 1}', '"1"')),
    Twins("numeric[]", ("{1,2}", "{1.0,2.00}", "{1}", "{NULL}", "{}")),
    Twins("numrange", ("[1,2)", "[1.0,2.00)", "empty", "(1,1)")),
    Twins("char(5)", ("a", "a  ", "ab", "")),
    Twins("text", ("a", "a ", "A", "a\\b", "a\tb", "\\N", "a\nb", '"', "'")),
    Twins("bytea", ("\\x00", "\\x0000", "\\x61", "a")),
    Twins("bit(3)", ("101", "100", "001")),
    Twins("varbit", ("101", "10", "1")),
    Twins("inet", ("10.0.0.1", "10.0.0.1/32", "10.0.0.1/8", "::1")),
    Twins("timetz", ("12:00+00", "13:00+01", "12:00+01")),
    Twins("timestamptz", ("2020-01-01 00:00+00", "2020-01-01 01:00+01", "2020-10-25 00:30+00", "2020-10-25 01:30+00")),
    Twins("money", ("1", "1.00", "-1")),
    Twins('text COLLATE "loose"', ("a", "A", "ä", "b"),
        "CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"),
    Twins("pair", ("(1,1.0)", "(1,1.00)", "(1,)"), "CREATE TYPE pair AS (i int, n numeric)"),
]  # fmt: skip


@pytest.mark.parametrize("twins", TWINS, ids=lambda twins: twins.type_name)
def test_equal_is_what_postgresql_calls_equal(cases: Session, tmp_path: Path, twins: Twins) -> None:
    """Values of a key are equal by the type's own equality, also where columns are read one after the other."""
    with cases.rolled_back():
        try:
            cases.execute(twins.setup or "SELECT 1")
        except StatementFailed as error:
            pytest.skip(f"{twins.type_name}: {error.reason}")
        cases.execute("SET LOCAL TimeZone = 'Europe/Berlin'; SET LOCAL bytea_output = 'escape'; SET LOCAL IntervalStyle = 'sql_standard'")
        for table, values in (("left_side", twins.values), ("right_side", twins.values[::-1]), ("third", twins.values[1:] * 2)):
            cases.execute(f"CREATE TABLE {table} (k {twins.type_name}, n int)")
            for number, value in enumerate(values):
                cases.execute(f"INSERT INTO {table} VALUES (CAST(%s AS {twins.type_name.split(' COLLATE')[0]}), %s)", (value, number))
        for joined in (
            "FROM left_side l, right_side r WHERE l.k = r.k",
            "FROM left_side l, right_side r, third t WHERE l.k = t.k AND t.k = r.k",
        ):
            labels = labelled(cases, f"SELECT count(*) {joined}", tmp_path)
            assert max(labels.items(), key=lambda item: len(item[0]))[1].rows == cases.scalar(f"SELECT count(*) {joined}")
            assert {label.source for label in labels.values()} == {"memory"}


def test_one_column_by_two_equalities(cases: Session, tmp_path: Path) -> None:
    """A column that is compared by one collation here and by another one there is of two classes."""
    with cases.rolled_back():
        try:
            cases.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
        except StatementFailed as error:
            pytest.skip(error.reason)
        cases.execute("CREATE TABLE l (t text)")
        cases.execute("INSERT INTO l VALUES ('a'), ('A'), ('b'), ('B'), ('b')")
        sql = "SELECT count(*) FROM l AS x, l AS y, l AS z WHERE x.t COLLATE loose = y.t AND y.t = z.t"
        labels = labelled(cases, sql, tmp_path)
        assert {"".join(sorted(subplan)): label.rows for subplan, label in labels.items()} == {
            **dict.fromkeys("xyz", 5),
            "xy": 13,
            "yz": 7,
            "xyz": cases.scalar(sql),
        }
        assert {label.source for label in labels.values()} == {"memory"}


@st.composite
def statements(draw: st.DrawFn) -> str:
    """Up to eight relations of three to six rows, with joins over keys of any type in paths, cycles and components."""
    aliases = [f"r{number}" for number in range(draw(st.integers(1, 8)))]
    sources = [f"{draw(st.sampled_from('pqr'))} AS {alias}" for alias in aliases]
    few = [f"{alias}.id <= {draw(st.integers(3, 6 if len(aliases) < 6 else 3))}" for alias in aliases]
    pairs = [pair for pair in pairwise(aliases) if draw(st.integers(0, 9))]
    pairs += [(draw(st.sampled_from(aliases)), draw(st.sampled_from(aliases))) for _ in range(draw(st.integers(0, 3)))]
    keys = st.sampled_from(KEYS)
    joins = [f"{left}.{key} = {right}.{key}" for left, right in pairs if left != right for key in [draw(keys)]]
    return f"SELECT count(*) FROM {', '.join(sources)} WHERE {' AND '.join(few + joins)}"


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(statements())
def test_random_joins_over_keys_of_any_type(cases: Session, sql: str) -> None:
    """Every set of up to eight relations has the count of the planner's SQL, and the whole that of the statement."""
    with tempfile.TemporaryDirectory() as folder:
        labels = labelled(cases, sql, Path(folder))
    assert {label.source for label in labels.values()} == {"memory"}
    meant = read_meaning(cases, sql).subplans()
    assert {subplan: label.rows for subplan, label in labels.items()} == {
        subplan: cases.scalar(level.count_sql(mask).sql) for subplan, (level, mask) in meant.items()
    }
    assert labels[max(labels, key=len)].rows == cases.scalar(sql)
