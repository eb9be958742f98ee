"""The cardinality of every subplan of random queries over random tables, against counting by joining."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pilotscope.core.joins import Schema, parse
from pytest_pilotscope.core.queries import Query
from pytest_pilotscope.labels import Label, cardinalities, cyclic
from tests.labels.sqlite_rows import Rows, SqliteSource

SCHEMA: Schema = {table: {"x": "integer", "y": "bigint", "z": "smallint", "s": "text", "v": "character varying(9)"} for table in "abc"}
NUMBERS = ("x", "y", "z")
TEXTS = ("s", "v")


@dataclass(frozen=True)
class Case:
    """Tables and a query over them."""

    rows: Rows
    sql: str


@st.composite
def tables(draw: st.DrawFn) -> Rows:
    """Small tables with NULLs and many duplicates; keys are dense in some and far apart in others; a table may be empty."""
    stretch = draw(st.sampled_from([1, 100_000]))
    number = st.one_of(st.none(), st.integers(-1, 2).map(lambda value: value * stretch))
    text = st.one_of(st.none(), st.sampled_from(["", "k", "it's", "tab\t"]))
    row = st.tuples(number, number, st.one_of(st.none(), st.integers(-1, 2)), text, text)
    return {table: draw(st.lists(row, max_size=7)) for table in SCHEMA}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A query of up to five relations with self-joins, any equalities (also within a relation, also in cycles) and filters."""
    aliases = [f"r{number}" for number in range(draw(st.integers(1, 5)))]
    sources = [f"{draw(st.sampled_from(sorted(SCHEMA)))} AS {alias}" for alias in aliases]
    alias = st.sampled_from(aliases)
    conditions = []
    for _ in range(draw(st.integers(0, 6))):
        columns = draw(st.sampled_from([NUMBERS, NUMBERS, TEXTS]))
        left, right = (f"{draw(alias)}.{draw(st.sampled_from(columns))}" for _ in range(2))
        if left != right:
            conditions.append(f"{left} = {right}")
    filters = ["{}.x >= 0", "{}.y = 1", "NOT ({}.z = 1 OR {}.x IS NULL)", "{}.s LIKE 'k%'", "{}.z IN (0, 2)", "{}.v IS NULL", "{}.s < {}.v"]
    conditions += [draw(st.sampled_from(filters)).replace("{}", draw(alias)) for _ in range(draw(st.integers(0, 2)))]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return Case(draw(tables()), f"SELECT count(*) FROM {', '.join(sources)}{where}")


def labelled(source: SqliteSource, sql: str, folder: Path, schema: Schema = SCHEMA) -> dict[frozenset[str], Label]:
    """The labels of one query."""
    return dict(cardinalities(source, [Query(id="q", sql=sql)], schema=schema, fingerprint="f", cache_dir=folder)["q"])


@settings(deadline=None, max_examples=150)
@given(cases())
def test_every_subplan_has_the_count_of_the_join(case: Case) -> None:
    """NULLs, duplicates, empty relations, self-joins, products and cycles are counted as SQL joins them, and in memory."""
    query = parse(case.sql, SCHEMA)
    source = SqliteSource(SCHEMA, case.rows)
    with tempfile.TemporaryDirectory() as folder:
        labels = labelled(source, case.sql, Path(folder))
    assert list(labels) == list(query.subplans())
    assert {label.source for label in labels.values()} == {"memory"}
    assert {subplan: label.rows for subplan, label in labels.items()} == {
        subplan: source.exact(query.count_sql(subplan)) for subplan in query.subplans()
    }
    source.close()


@pytest.mark.parametrize(
    "joins",
    [
        "a.x = b.x AND a.y = b.y",
        "a.x = b.x AND b.y = c.y AND c.z = a.z",
        "a.x = b.x AND b.y = c.y AND c.z = a.z AND a.s = c.s",
        "a.x = b.x AND b.y = c.y AND c.z = d.z AND d.s = a.s",
        "a.x = b.x AND b.y = c.y AND c.z = d.z AND d.s = a.s AND a.v = c.v",
        "a.x = b.x AND a.y = b.y AND c.x = d.x AND c.y = d.y",
        "a.x = b.x AND b.y = c.y AND c.z = a.z AND c.s = d.s AND d.v = e.v",
    ],
)
def test_cycles_of_every_shape(joins: str, tmp_path: Path) -> None:
    """Shared pairs of keys, triangles with and without a chord, squares, two cycles, a cycle with a tail."""
    schema = dict.fromkeys("abcde", SCHEMA["a"])
    rows = {table: [(i % 3, i * k % 5, i % 2, "st"[i % 2], "vw"[i * k % 2]) for i in range(6 + k)] for k, table in enumerate(schema, 1)}
    source = SqliteSource(schema, rows)
    sql = f"SELECT 1 FROM {', '.join(table for table in schema if table + '.' in joins)} WHERE {joins}"
    query = parse(sql, schema)
    labels = labelled(source, sql, tmp_path, schema)
    assert labels[query.subplans()[-1]].rows not in (0, None)
    assert {s: label.rows for s, label in labels.items()} == {s: source.exact(query.count_sql(s)) for s in query.subplans()}
    source.close()


def test_a_cycle_is_counted_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that does not fit into one piece has the same sum."""
    monkeypatch.setattr(cyclic, "_PIECE_ROWS", 7)
    test_cycles_of_every_shape("a.x = b.x AND b.y = c.y AND c.z = a.z", tmp_path)


def test_a_cycle_that_is_too_much_goes_to_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the subplan that is too large is counted by the database, and with the same result."""
    monkeypatch.setattr(cyclic, "_MOST_ROWS", 10)
    rows: Rows = {table: [(i % 3, i % 5, i % 2, None, None) for i in range(30)] for table in SCHEMA}
    source = SqliteSource(SCHEMA, rows)
    sql = "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.y = c.y AND c.z = a.z"
    labels = labelled(source, sql, tmp_path)
    triangle = labels.pop(frozenset("abc"))
    assert (triangle.source, triangle.rows) == ("postgres", source.exact(source.counted[0]))
    assert len(source.counted) == 1
    assert {label.source for label in labels.values()} == {"memory"}
    source.close()


def test_counts_beyond_64_bits_are_exact(tmp_path: Path) -> None:
    """Thirteen relations that share one key with 40 rows each have 40^13 rows, more than 2^63."""
    source = SqliteSource(SCHEMA, {"a": [(1, 1, 1, None, None)] * 40})
    aliases = [f"r{number}" for number in range(13)]
    sql = f"SELECT 1 FROM {', '.join(f'a {alias}' for alias in aliases)} WHERE {' AND '.join(f'r0.x = {a}.x' for a in aliases[1:])}"
    assert labelled(source, sql, tmp_path)[frozenset(aliases)].rows == 40**13 > 2**63
    source.close()


def test_numbers_and_texts_beyond_32_bits_join(tmp_path: Path) -> None:
    """Keys need not be small integers: 64-bit ones, and texts with characters that COPY escapes."""
    rows: Rows = {
        "a": [(None, 2**40, None, "back\\slash", None), (None, -(2**40), None, "\\N", None)],
        "b": [(None, 2**40, None, "back\\slash", None), (None, 2**40, None, "other", None), (None, 1, None, "\\N", None)],
    }
    source = SqliteSource(SCHEMA, rows)
    assert labelled(source, "SELECT 1 FROM a, b WHERE a.y = b.y", tmp_path)[frozenset("ab")].rows == 2
    assert labelled(source, "SELECT 1 FROM a, b WHERE a.s = b.s", tmp_path)[frozenset("ab")].rows == 2
    source.close()
