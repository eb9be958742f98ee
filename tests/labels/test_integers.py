"""Three-valued logic in NumPy, against SQLite's."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pilotscope.labels.integers import Integers, holds, settled
from pytest_pilotscope.queries.joins import Relation
from pytest_pilotscope.queries.predicates import (
    And,
    ColumnComparison,
    Comparison,
    Condition,
    Constant,
    InList,
    IsNull,
    Like,
    Not,
    Opaque,
    Or,
    TypedText,
    predicate,
    render,
)

cells = st.one_of(st.none(), st.integers(-3, 3), st.sampled_from([2**31 - 1, -(2**31)]))
numbers: st.SearchStrategy[Constant] = st.one_of(st.integers(-4, 4), st.sampled_from([2**31, -(2**31) - 1, 2**70]))
columns = st.sampled_from(["x", "y"])
operators = st.sampled_from(["=", "<>", "<", "<=", ">", ">="])
leaves: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Comparison, columns, operators, numbers),
    st.builds(ColumnComparison, columns, operators, columns),
    st.builds(InList, columns, st.lists(numbers, min_size=1, max_size=3).map(tuple)),
    st.builds(IsNull, columns),
)


def combined(children: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    """Return connectives over conditions."""
    several = st.lists(children, min_size=2, max_size=3).map(tuple)
    return st.one_of(st.builds(Not, children), st.builds(And, several), st.builds(Or, several))


def integers(values: list[int | None]) -> Integers:
    """Return a column of cells."""
    nulls = np.array([value is None for value in values], dtype=np.bool_)
    known = np.array([value or 0 for value in values], dtype=np.int32)
    return Integers(known, nulls if nulls.any() else None)


@settings(deadline=None)
@given(st.lists(st.tuples(cells, cells), max_size=6), st.recursive(leaves, combined, max_leaves=5))
def test_a_condition_holds_and_fails_where_sqlite_says_so(rows: list[tuple[int | None, int | None]], condition: Condition) -> None:
    """True, false and unknown are told apart for every kind of condition on integers."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (x INTEGER, y INTEGER)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        expected = [value for (value,) in connection.execute(f"SELECT {render(condition)} FROM t ORDER BY rowid")]
    table = {name: integers([row[place] for row in rows]) for place, name in enumerate(("x", "y"))}
    for value in (True, False):
        found = holds(condition, table.__getitem__, value=value)
        assert found is not None
        assert found.tolist() == [one is not None and bool(one) is value for one in expected]


@pytest.mark.parametrize(
    "condition",
    [
        Like("x", "a"),
        Opaque(("x",), '"x" + 1 > 2'),
        Comparison("x", "=", "1"),
        Comparison("x", "=", True),
        Comparison("x", "<", TypedText("2010-01-01", "date")),
        Comparison("s", "=", 1),
        Or((IsNull("x"), InList("x", (1, "b")))),
    ],
)
def test_postgresql_evaluates_conditions_that_follow_its_own_rules(condition: Condition) -> None:
    """Text, truth values, dates and anything with SQL of its own is left to PostgreSQL, also deep inside."""
    relation = Relation(alias="t", table="t", predicates=(predicate(condition), predicate(Not(And((IsNull("x"), condition))))))
    found = settled(relation, {"t": {"x": "integer", "s": "text"}}).predicates
    assert [type(one.condition) for one in found] == [Opaque, Opaque]
