"""The cardinality of every subplan of random queries over random tables, against counting by joining."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pilotscope.labels import Label, cardinalities, cyclic
from pytest_pilotscope.queries.joins import Schema, Subplan
from pytest_pilotscope.queries.queries import Query
from tests.labels.sqlite_rows import Rows, SqliteSource
from tests.labels.statements import built

SCHEMA: Schema = {table: {"x": "integer", "y": "bigint", "z": "smallint", "s": "text", "v": "character varying(9)"} for table in "abc"}
NUMBERS = ("x", "y", "z")
TEXTS = ("s", "v")


@dataclass(frozen=True)
class Case:
    """Tables and a query over them."""

    rows: Rows
    sql: str


@st.composite
def tables(draw: st.DrawFn, most_rows: int) -> Rows:
    """Small tables with NULLs and many duplicates; keys are dense in some and far apart in others; a table may be empty."""
    stretch = draw(st.sampled_from([1, 100_000]))
    number = st.one_of(st.none(), st.integers(-1, 2).map(lambda value: value * stretch))
    text = st.one_of(st.none(), st.sampled_from(["", "k", "it's", "tab\t"]))
    row = st.tuples(number, number, st.one_of(st.none(), st.integers(-1, 2)), text, text)
    return {table: draw(st.lists(row, max_size=most_rows)) for table in SCHEMA}


@st.composite
def matching_tables(draw: st.DrawFn) -> Rows:
    """Tables of three or four rows whose keys have two values, so that joins of many relations have rows."""
    bit = st.integers(0, 1)
    row = st.tuples(bit, bit, bit, st.sampled_from("kl"), st.sampled_from("kl"))
    return {table: draw(st.lists(row, min_size=3, max_size=4)) for table in SCHEMA}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """
    Return a query of up to eight relations with self-joins and filters.

    Its equalities are within a relation, between two, in cycles, in several components; or one of many is missing, so that there is a
    product.
    """
    aliases = [f"r{number}" for number in range(draw(st.integers(1, 8)))]
    sources = [f"{draw(st.sampled_from(sorted(SCHEMA)))} AS {alias}" for alias in aliases]
    alias = st.sampled_from(aliases)
    conditions = [*draw(components(aliases)), *(draw(equality(alias, alias)) for _ in range(draw(st.integers(0, 2))))]
    filters = [
        "{}.x >= 0", "{}.y = 1", "NOT ({}.z = 1 OR {}.x IS NULL)", "{}.s LIKE 'k%'", "{}.z IN (0, 2)", "{}.v IS NULL", "{}.s < {}.v"
    ]  # fmt: skip
    conditions += [draw(st.sampled_from(filters)).replace("{}", draw(alias)) for _ in range(draw(st.integers(0, 2)))]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    rows = draw(tables(7) if len(aliases) < 6 else st.one_of(tables(4), matching_tables()))
    return Case(rows, f"SELECT count(*) FROM {', '.join(sources)}{where}")


@st.composite
def components(draw: st.DrawFn, aliases: list[str]) -> list[str]:
    """Paths over parts of the relations by any columns, and cycles with another key at each step."""
    found = []
    start = 0
    while start < len(aliases):
        stop = draw(st.integers(start + 1, min(start + 4, len(aliases))))
        part = aliases[start:stop]
        if len(part) > 1 and draw(st.booleans()):
            keys = draw(st.permutations(["x", "y", "z", "s"]))
            found += [f"{left}.{key} = {right}.{key}" for left, right, key in zip(part, [*part[1:], part[0]], keys, strict=False)]
        else:
            found += [draw(equality(st.just(left), st.just(right))) for left, right in pairwise(part)]
        start = stop
    return found


@st.composite
def equality(draw: st.DrawFn, lefts: st.SearchStrategy[str], rights: st.SearchStrategy[str]) -> str:
    """Return an equality of two different columns of one kind."""
    columns = draw(st.sampled_from([NUMBERS, NUMBERS, TEXTS]))
    left, right = f"{draw(lefts)}.{draw(st.sampled_from(columns))}", f"{draw(rights)}.{draw(st.sampled_from(columns))}"
    hypothesis.assume(left != right)
    return f"{left} = {right}"


def labelled(source: SqliteSource, sql: str, folder: Path, schema: Schema = SCHEMA) -> dict[frozenset[str], Label]:
    """Return the labels of one query."""
    return dict(cardinalities(source, [Query(id="q", sql=sql)], schema=schema, fingerprint="f", cache_dir=folder)["q"])


def exact(source: SqliteSource, sql: str, schema: Schema = SCHEMA) -> dict[Subplan, int]:
    """Return the counts by joining."""
    return {subplan: source.exact(level.count_sql(mask).sql) for subplan, (level, mask) in built(sql, schema).subplans().items()}


@st.composite
def separate_cycles(draw: st.DrawFn) -> Case:
    """Two to four cycles of two to four relations each, eight in all at most, with nothing between them."""
    sizes = draw(st.lists(st.integers(2, 4), min_size=2, max_size=4).filter(lambda sizes: sum(sizes) <= 8))
    conditions, aliases = [], []
    for number, size in enumerate(sizes):
        part = [f"r{number}_{position}" for position in range(size)]
        keys = draw(st.permutations(["x", "y", "z", "s"]))
        conditions += [f"{left}.{key} = {right}.{key}" for left, right, key in zip(part, [*part[1:], part[0]], keys, strict=False)]
        aliases += part
    sources = [f"{draw(st.sampled_from(sorted(SCHEMA)))} AS {alias}" for alias in aliases]
    return Case(draw(matching_tables()), f"SELECT count(*) FROM {', '.join(sources)} WHERE {' AND '.join(conditions)}")


@settings(deadline=None, max_examples=30)
@given(separate_cycles())
def test_cycles_beside_each_other(case: Case) -> None:
    """The whole has the count of the join, whichever component is finished first."""
    source = SqliteSource(SCHEMA, case.rows)
    with tempfile.TemporaryDirectory() as folder:
        labels = labelled(source, case.sql, Path(folder))
    [level] = built(case.sql, SCHEMA).levels
    whole = max(level.query.masks)
    assert labels[level.query.subplan(whole)].rows == source.exact(level.count_sql(whole).sql)
    source.close()


@pytest.mark.slow
@settings(deadline=None, max_examples=150)
@given(cases())
def test_every_subplan_has_the_count_of_the_join(case: Case) -> None:
    """NULLs, duplicates, empty relations, self-joins, products and cycles are counted as SQL joins them, and in memory."""
    source = SqliteSource(SCHEMA, case.rows)
    with tempfile.TemporaryDirectory() as folder:
        labels = labelled(source, case.sql, Path(folder))
    expected = exact(source, case.sql)
    assert list(labels) == list(expected)
    assert {label.source for label in labels.values()} == {"memory"}
    assert {subplan: label.rows for subplan, label in labels.items()} == expected
    source.close()


def test_a_path_beside_a_cycle(tmp_path: Path) -> None:
    """The count of a component that is finished first multiplies those of the others."""
    rows: Rows = {
        "a": [(i % 2, i % 2, None, None, None) for i in range(4)],
        "b": [(i % 2, i % 2, i % 2, "st"[i % 2], None) for i in range(4)],
    }
    source = SqliteSource(SCHEMA, rows)
    sql = (
        "SELECT 1 FROM a AS p, a AS q, b AS c, b AS d, b AS e, b AS f "
        "WHERE p.x = q.x AND p.y = q.y AND c.x = d.x AND d.y = e.y AND e.z = f.z AND f.s = c.s"
    )
    labels = labelled(source, sql, tmp_path)
    assert {subplan: label.rows for subplan, label in labels.items()} == exact(source, sql)
    assert labels[frozenset("pqcdef")].rows == labels[frozenset("pq")].rows * labels[frozenset("cdef")].rows  # type: ignore[operator]
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
    labels = labelled(source, sql, tmp_path, schema)
    assert [*labels.values()][-1].rows not in (0, None)
    assert {subplan: label.rows for subplan, label in labels.items()} == exact(source, sql, schema)
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
