"""
Conditions on sample rows, in three-valued logic: for a row a condition is true, false, or unknown because of a NULL.

`truth` answers only where the answer is exactly PostgreSQL's; where it cannot know, it says None.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache, reduce
from typing import TypeAlias

import numpy as np

from pytest_pilotscope.algorithms.typed_columns import Column, Mask, comparable, compared
from pytest_pilotscope.queries.evaluation import OPERATORS, Compared, Leaf, both, rows_where
from pytest_pilotscope.queries.predicates import ColumnComparison, Comparison, Condition, Constant, InList, IsNull, Like, Operator

Columns: TypeAlias = Callable[[str], Column | None]
"""From the name of a column to its values, or None where only PostgreSQL can compare them."""


def truth(condition: Condition, columns: Columns) -> Mask | None:
    """Return the (N,) rows for which a condition is true; None when only PostgreSQL can evaluate it."""
    return rows_where(condition, lambda leaf: _leaf(leaf, columns))


def _columns_compared(condition: ColumnComparison, columns: Columns) -> Compared | None:
    left, right = columns(condition.left), columns(condition.right)
    if left is None or right is None or left.kind != right.kind or (left.kind == "text" and condition.operator not in ("=", "<>")):
        return None
    holds = np.asarray(OPERATORS[condition.operator](left.values, right.values), dtype=np.bool_)
    return Compared(holds, both(left.known, right.known))


def _leaf(condition: Leaf, columns: Columns) -> Compared | None:
    if isinstance(condition, ColumnComparison):
        return _columns_compared(condition, columns)
    found = columns(condition.column)
    if found is None:
        return None
    if isinstance(condition, IsNull):
        return Compared(~found.known)
    holds = _holds(condition, found)
    return None if holds is None else Compared(holds, found.known)


def _holds(condition: Comparison | InList | Like, found: Column) -> Mask | None:
    if isinstance(condition, Comparison):
        return _test(found, condition.operator, condition.value)
    if isinstance(condition, InList):
        tests = [_test(found, "=", value) for value in condition.values]
        return None if any(test is None for test in tests) else reduce(np.logical_or, (test for test in tests if test is not None))
    return _like(condition, found)


def _test(found: Column, symbol: Operator, value: Constant) -> Mask | None:
    typed = comparable(value, found.kind)
    return None if typed is None else compared(found, symbol, typed)


def _like(condition: Like, found: Column) -> Mask | None:
    if found.kind != "text" or not condition.case_sensitive:
        return None  # ILIKE folds by the rules of a locale
    matches = matcher(condition.pattern)
    return None if matches is None else np.fromiter(map(matches, found.values), dtype=np.bool_, count=found.values.size)


@lru_cache(maxsize=4096)
def matcher(pattern: str) -> Callable[[str], bool] | None:
    """
    Return a test for LIKE with the backslash as escape character; None for a pattern that PostgreSQL refuses.

    The pieces between the `%` are looked for one after the other, each at the first place where it fits, so the time is
    linear in the text, however many `%` there are.
    """
    pieces = list(_pieces(pattern))
    if None in pieces:
        return None
    first, *others = [re.compile(piece or "", re.DOTALL) for piece in pieces]
    if not others:
        return lambda text: first.fullmatch(text) is not None
    *middle, _ = others
    last = re.compile(f"(?:{pieces[-1]})\\Z", re.DOTALL)

    def matches(text: str) -> bool:
        found = first.match(text)
        for piece in middle:
            found = None if found is None else piece.search(text, found.end())
        return found is not None and last.search(text, found.end()) is not None

    return matches


def _pieces(pattern: str) -> Iterator[str | None]:
    """Yield a regular expression for each piece between the wildcards `%`, and None at a backslash with nothing after it."""
    piece: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == "%":
            yield "".join(piece)
            piece = []
        elif character == "_":
            piece.append(".")
        elif character == "\\":
            escaped = next(characters, None)
            if escaped is None:
                yield None
                return
            piece.append(re.escape(escaped))
        else:
            piece.append(re.escape(character))
    yield "".join(piece)
