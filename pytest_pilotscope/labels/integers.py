"""
Conditions on integer columns, evaluated in NumPy.

Text, collations, dates, floating point and casts follow PostgreSQL's own rules: PostgreSQL evaluates every condition on them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.queries.evaluation import OPERATORS, Compared, Leaf, Mask, both, rows_where
from pytest_pilotscope.queries.joins import Relation, Schema
from pytest_pilotscope.queries.predicates import ColumnComparison, Comparison, Condition, Constant, IsNull, Like, Opaque

INTEGER_TYPES = frozenset(("smallint", "integer", "bigint"))


@dataclass(frozen=True, slots=True, eq=False)
class Integers:
    """An integer column: (N,) values, 0 where NULL, and (N,) the NULLs, or None when there are none."""

    values: npt.NDArray[Any]
    nulls: Mask | None

    @property
    def known(self) -> Mask | None:
        """(N,) rows that are not NULL, or None when all are."""
        return None if self.nulls is None else ~self.nulls


Columns: TypeAlias = Callable[[str], Integers | None]
"""Name -> column, None for one of another type."""

_NO_ROWS = Integers(np.empty(0, dtype=np.int64), None)


def settled(relation: Relation, schema: Schema) -> Relation:
    """Return a relation whose predicates are conditions on integers, for `holds`, or `Opaque`, for PostgreSQL."""
    types = schema.get(relation.table, {})

    def column(name: str) -> Integers | None:
        return _NO_ROWS if types.get(name) in INTEGER_TYPES else None

    predicates = [
        one if holds(one.condition, column) is not None else replace(one, condition=Opaque(one.columns, one.sql))
        for one in relation.predicates
    ]
    return replace(relation, predicates=tuple(predicates))


def holds(condition: Condition, columns: Columns, *, value: bool = True) -> Mask | None:
    """Return the (N,) rows for which a condition is true, or false as `value` says; None when only PostgreSQL can evaluate it."""
    return rows_where(condition, lambda leaf: _leaf(leaf, columns), value=value)


def _leaf(leaf: Leaf, columns: Columns) -> Compared | None:
    if isinstance(leaf, ColumnComparison):
        left, right = columns(leaf.left), columns(leaf.right)
        if left is None or right is None:
            return None
        return Compared(OPERATORS[leaf.operator](left.values, right.values), both(left.known, right.known))
    column = columns(leaf.column)
    if column is None or isinstance(leaf, Like):
        return None
    if isinstance(leaf, IsNull):
        return Compared(np.zeros(column.values.shape, dtype=np.bool_) if column.nulls is None else column.nulls)
    if isinstance(leaf, Comparison):
        return Compared(OPERATORS[leaf.operator](column.values, leaf.value), column.known) if _is_number(leaf.value) else None
    numbers = [value for value in leaf.values if _is_number(value)]
    if len(numbers) < len(leaf.values):
        return None
    limits = np.iinfo(column.values.dtype)
    possible = [number for number in numbers if limits.min <= number <= limits.max]
    return Compared(np.isin(column.values, np.array(possible, dtype=column.values.dtype)), column.known)


def _is_number(value: Constant) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)
