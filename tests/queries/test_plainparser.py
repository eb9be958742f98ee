"""Plain queries are taken apart by their text, and nothing else is."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_pilotscope.errors import UnsupportedQuery
from pytest_pilotscope.queries.joins import ColumnRef, JoinQuery
from pytest_pilotscope.queries.plainparser import PlainQuery, parse_plain, read_plain
from pytest_pilotscope.queries.predicates import (
    ColumnComparison,
    Comparison,
    Condition,
    InList,
    IsNull,
    Like,
    Not,
    Or,
    TypedText,
)

SCHEMA = {
    "a": {"x": "integer", "y": "smallint", "s": "text", "d": "date", "n": "numeric(8,2)", "f": "boolean", "e": "text"},
    "b": {"x": "bigint", "z": "integer", "t": "character varying(10)", "w": "timestamp(3) without time zone"},
    "c": {"x": "integer", "z": "integer", "Mixed": "integer", "w": "double precision"},
}


def classes(query: JoinQuery) -> list[str]:
    """Return the classes of equal columns in short."""
    return [" = ".join(f"{ref.alias}.{ref.column}" for ref in members) for members in query.classes]


def filters(query: JoinQuery, alias: str) -> list[str]:
    """Return the conditions of one relation as SQL."""
    return [predicate.sql for predicate in query.relations[alias].predicates]


@pytest.mark.parametrize(
    ("written", "typed"),
    [
        ("x >= -1", [Comparison("x", ">=", -1)]),
        ("-1 <= A.X", [Comparison("x", ">=", -1)]),
        ("x != '5'", [Comparison("x", "<>", 5)]),
        ("s = 'it''s'", [Comparison("s", "=", "it's")]),
        ("n < 2.50", [Comparison("n", "<", TypedText("2.50", "numeric"))]),
        ("x BETWEEN 1 AND 2", [Comparison("x", ">=", 1), Comparison("x", "<=", 2)]),
        ("x NOT BETWEEN 1 AND 2", [Or((Comparison("x", "<", 1), Comparison("x", ">", 2)))]),
        ("x IN (3, 1, 3, -2)", [InList("x", (-2, 1, 3))]),
        ("x IN (3)", [Comparison("x", "=", 3)]),
        ("s NOT IN ('b', 'a')", [Not(InList("s", ("a", "b")))]),
        ("s NOT IN ('b')", [Comparison("s", "<>", "b")]),
        ("s LIKE '%(a)%'", [Like("s", "%(a)%")]),
        ("s NOT LIKE 'a_'", [Not(Like("s", "a_"))]),
        ("s ILIKE 'a%'", [Like("s", "a%", case_sensitive=False)]),
        ("x IS NULL", [IsNull("x")]),
        ("x IS NOT NULL", [Not(IsNull("x"))]),
        ("x < y", [ColumnComparison("x", "<", "y")]),
        ("x = y", [ColumnComparison("x", "=", "y")]),
        ("d >= '2010-01-01'::date", [Comparison("d", ">=", TypedText("2010-01-01", "date"))]),
        ("((x > 1) AND (y > 2 AND (d < '2010-01-01')))", None),
    ],
)
def test_a_condition_has_the_form_that_the_planner_gives_it(written: str, typed: list[Condition] | None) -> None:
    """BETWEEN is two conditions, a list of one value is an equality, and a constant has the type of its column."""
    found = [predicate.condition for predicate in read_plain(f"SELECT count(*) FROM a WHERE {written}", SCHEMA).relations["a"].predicates]
    assert len(found) == 3 if typed is None else found == typed


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM a, b AS bb WHERE a.x = bb.x AND bb.z > 1",
        "SELECT extract(year from d), min(s) FROM a INNER JOIN b bb ON (a.x = bb.x) WHERE z > 1;",
        'select * from "a" join B as "bb" on "bb".x = A.x and 1 < Z',
    ],
)
def test_every_plain_way_to_write_a_join_is_the_same(sql: str) -> None:
    """Comma, ON, unqualified columns, quotes and a select list do not change relations, classes or sets."""
    query = read_plain(sql, SCHEMA)
    assert {relation.alias: relation.table for relation in query.relations.values()} == {"a": "a", "bb": "b"}
    assert set(query.equalities[0]) == {ColumnRef("a", "x"), ColumnRef("bb", "x")}
    assert classes(query) == ["a.x = bb.x"]
    assert filters(query, "bb") == ['"z" > 1']
    assert query.subplans() == (frozenset({"a"}), frozenset({"bb"}), frozenset({"a", "bb"}))


def test_classes_are_the_transitive_closure() -> None:
    """a = b and b = c make {a, c} a set."""
    query = read_plain("SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.x = c.x", SCHEMA)
    assert classes(query) == ["a.x = b.x = c.x"]
    assert frozenset({"a", "c"}) in query.subplans()


def test_a_constant_reaches_every_equal_column_and_takes_the_place_of_the_join() -> None:
    """b is restricted to 5 as well; the relations are still connected."""
    query = read_plain("SELECT 1 FROM a, b, c WHERE a.x = 5 AND a.x = b.x AND b.z = c.z", SCHEMA)
    assert [filters(query, alias) for alias in "abc"] == [['"x" = 5'], ['"x" = 5'], []]
    assert classes(query) == ["b.z = c.z"]
    assert [sorted(subplan) for subplan in query.subplans()] == [["a"], ["b"], ["c"], ["a", "b"], ["b", "c"], ["a", "b", "c"]]


def test_relations_with_the_same_constant_are_connected() -> None:
    """`a.y = 2 AND c.z = 2` is one class for the planner, too; with 2 and 3 the sets are others."""
    start = "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.z = c.x AND a.y = 2 AND c.z = "
    assert frozenset("ac") in read_plain(f"{start}2", SCHEMA).subplans()
    assert frozenset("ac") not in read_plain(f"{start}3", SCHEMA).subplans()


def test_two_columns_of_a_relation_in_one_class_are_equal() -> None:
    """c.x = a.x and c.z = a.x restrict c to x = z also where a is not joined."""
    assert filters(read_plain("SELECT 1 FROM a, c WHERE c.x = a.x AND c.z = a.x", SCHEMA), "c") == ['"x" = "z"']


def test_parentheses_may_be_deep() -> None:
    """They are counted, not descended into."""
    query = read_plain(f"SELECT 1 FROM a WHERE {'(' * 5000}x = 1{')' * 5000}", SCHEMA)
    assert filters(query, "a") == ['"x" = 1']


@pytest.mark.parametrize(
    ("rest", "what"),
    [
        ("a WHERE x = 1 OR y = 2", "'or'"),
        ("a LEFT JOIN b ON a.x = b.x", "'left'"),
        ("a WHERE x IN (SELECT 1)", "'select'"),
        ("a GROUP BY x", "'group'"),
        ("a WHERE x + 1 = 2", "'+'"),
        ("a WHERE x", "its end"),
        ("a WHERE (x = 1", "its end"),
        ("a -- WHERE x = 1", "'--', which may begin a comment,"),
        ("a WHERE x = 2.5", "the constant '2.5' beside a column of type integer"),
        ("a WHERE x = 9999999999999999999", "the constant '9999999999999999999' beside a column of type integer"),
        ("a WHERE s = 1", "the constant '1' beside a column of type text"),
        ("a WHERE d = 'yesterday'", "the constant 'yesterday' beside a column of type date"),
        ("a WHERE f = 't'", "the constant 't' beside a column of type boolean"),
        ("a WHERE x = 1 AND x = 2", "a column that is equal to 2 constants"),
        ("a, b WHERE a.x < b.x", "the join by <"),
        ("a, b WHERE a.n = b.x", "the comparison of a.n with b.x"),
        ("a WHERE x = x", "the comparison of a.x with a.x"),
    ],
)
def test_what_is_not_plain_is_named(rest: str, what: str) -> None:
    """Only PostgreSQL knows what it means; there is no query."""
    reason = f"{what} has no place in a plain conjunction over tables, so that only PostgreSQL knows its meaning"
    with pytest.raises(UnsupportedQuery, match=re.escape(f": {reason}; query: ")):
        read_plain(f"SELECT 1 FROM {rest}", SCHEMA)
    assert parse_plain(f"SELECT 1 FROM {rest}", SCHEMA) is None


@pytest.mark.parametrize(
    ("rest", "reason"),
    [
        ("nowhere", "table 'nowhere' is not in the schema"),
        ("a, b AS a", "two relations are called 'a'"),
        ("a, b WHERE x = 1", "column x belongs to more than one relation (a, b)"),
        ("a WHERE a.k = 1", "column a.k belongs to no relation"),
    ],
)
def test_names_that_mean_nothing_are_named(rest: str, reason: str) -> None:
    """Unknown tables, aliases given twice, and columns of no relation or of several."""
    with pytest.raises(UnsupportedQuery, match=re.escape(f": {reason}; query: ")):
        read_plain(f"SELECT 1 FROM {rest}", SCHEMA)


TOKENS = (
    "and or not is null true false a.x r.z x s = < - -- , ; . ( ) 1 2.5 'k' E'k' e'k' date '1' \" ' like in between escape join on left "
    "inner group order by limit for where select from as cast :: + * /* */ $1 a.f union all natural exists interval any \u00e4 \\ collate"
)


@settings(deadline=None)
@given(st.lists(st.sampled_from(TOKENS.split()), max_size=12))
@example(["a", "WHERE", "s", "=", "e'k'"])
@example(["a", "WHERE", "d", "'1'", "=", "x"])
def test_any_other_text_is_refused(words: list[str]) -> None:
    """Whatever stands there, the answer is a query or an `UnsupportedQuery`; escapes and typed literals are none of ours."""
    for start in ("SELECT 1 FROM a,", "SELECT 1 FROM a WHERE x = 1 AND", "SELECT"):
        parse_plain(" ".join([start, *words]), SCHEMA)
    assert parse_plain("SELECT 1 FROM a WHERE s = e'k'", SCHEMA) is None
    assert parse_plain("SELECT 1 FROM a WHERE d = date '2010-01-01'", SCHEMA) is None


@pytest.mark.parametrize("joined", ["hub.k = r{0}.k", "hub.k{0} = r{0}.k"])
def test_many_relations_are_read_without_their_sets(joined: str) -> None:
    """A clique or a star of 40 relations has more sets than fit into memory; its relations and joins are read, and no set is made."""
    schema = {
        "hub": {"k": "integer", **{f"k{number}": "integer" for number in range(39)}},
        **{f"r{n}": {"k": "integer"} for n in range(39)},
    }

    def star(children: int) -> PlainQuery:
        names, joins = [f"r{n}" for n in range(children)], [joined.format(n) for n in range(children)]
        return read_plain(f"SELECT 1 FROM {', '.join(['hub', *names])} WHERE {' AND '.join(joins)}", schema)

    large = star(39)
    assert (len(large.relations), len(large.equalities), large.masks) == (40, 39, ())
    assert len(star(10).masks) >= 2**10
    assert star(11).masks == ()
