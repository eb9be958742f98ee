"""Three-valued logic in NumPy, against SQLite's."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pilotscope.labels.filters import Integers, fails, holds, is_plain
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
    """Connectives over conditions."""
    several = st.lists(children, min_size=2, max_size=3).map(tuple)
    return st.one_of(st.builds(Not, children), st.builds(And, several), st.builds(Or, several))


def integers(values: list[int | None]) -> Integers:
    """A column of cells."""
    nulls = np.array([value is None for value in values], dtype=np.bool_)
    known = np.array([value or 0 for value in values], dtype=np.int32)
    return Integers(known, nulls if nulls.any() else None)


@settings(deadline=None)
@given(st.lists(st.tuples(cells, cells), max_size=6), st.recursive(leaves, combined, max_leaves=5))
def test_a_condition_holds_and_fails_where_sqlite_says_so(rows: list[tuple[int | None, int | None]], condition: Condition) -> None:
    """True, false and unknown are told apart for every kind of plain condition."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (x INTEGER, y INTEGER)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        expected = [value for (value,) in connection.execute(f"SELECT {render(condition)} FROM t ORDER BY rowid")]
    table = {name: integers([row[place] for row in rows]) for place, name in enumerate(("x", "y"))}
    assert is_plain(condition, lambda column: True)
    assert holds(condition, table.__getitem__).tolist() == [value == 1 for value in expected]
    assert fails(condition, table.__getitem__).tolist() == [value == 0 for value in expected]


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
def test_what_depends_on_the_database_is_not_plain(condition: Condition) -> None:
    """Text, truth values, dates and anything with SQL of its own is left to PostgreSQL, also deep inside."""
    assert not is_plain(condition, lambda column: column == "x")
    assert not is_plain(Not(And((IsNull("x"), condition))), lambda column: column == "x")
