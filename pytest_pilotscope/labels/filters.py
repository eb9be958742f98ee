"""
Conditions on integer columns, evaluated in NumPy with SQL's three-valued logic.

A condition is true, false or unknown for a row. `holds` gives the rows where it is true and `fails` those where it is
false, so that NOT, AND and OR need no third value. Whatever depends on PostgreSQL's own rules (text, collations, dates,
floating point, casts) is not for this module: `is_plain` says no.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.queries.joins import Relation, Schema
from pytest_pilotscope.queries.predicates import (
    And,
    ColumnComparison,
    Comparison,
    Condition,
    Constant,
    InList,
    IsNull,
    Not,
    Opaque,
    Operator,
    Or,
    Predicate,
    condition_columns,
)

Mask: TypeAlias = npt.NDArray[np.bool_]
INTEGER_TYPES = frozenset(("smallint", "integer", "bigint"))
_FUNCTIONS: dict[Operator, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True, eq=False)
class Integers:
    """An integer column: (N,) values, 0 where NULL, and (N,) the NULLs, or None when there are none."""

    values: npt.NDArray[Any]
    nulls: Mask | None

    def known(self, mask: Mask) -> Mask:
        """Take the NULLs out of a mask."""
        return mask if self.nulls is None else mask & ~self.nulls


Columns: TypeAlias = Callable[[str], Integers]


def settled(relation: Relation, schema: Schema) -> Relation:
    """Return a relation whose predicates are conditions on integers, for `holds`, or `Opaque`, for PostgreSQL."""
    types = schema.get(relation.table, {})

    def settled_one(one: Predicate) -> Predicate:
        plain = is_plain(one.condition, lambda column: types.get(column) in INTEGER_TYPES)
        return one if plain else replace(one, condition=Opaque(one.columns, one.sql))

    return replace(relation, predicates=tuple(map(settled_one, relation.predicates)))


def is_plain(condition: Condition, is_integer: Callable[[str], bool]) -> bool:
    """Tell whether a condition is one of integer columns and numbers only."""
    if isinstance(condition, Not):
        return is_plain(condition.child, is_integer)
    if isinstance(condition, And | Or):
        return all(is_plain(child, is_integer) for child in condition.children)
    if not isinstance(condition, Comparison | ColumnComparison | InList | IsNull):
        return False
    return all(map(is_integer, condition_columns(condition))) and all(map(_is_number, _constants(condition)))


def holds(condition: Condition, columns: Columns) -> Mask:
    """Return the rows where a plain condition is true."""
    if isinstance(condition, Not):
        return fails(condition.child, columns)
    if isinstance(condition, And | Or):
        combine = operator.and_ if isinstance(condition, And) else operator.or_
        return reduce(combine, (holds(child, columns) for child in condition.children))
    if isinstance(condition, ColumnComparison):
        left, right = columns(condition.left), columns(condition.right)
        return left.known(right.known(_FUNCTIONS[condition.operator](left.values, right.values)))
    if isinstance(condition, IsNull):
        return _nulls(columns(condition.column))
    column = columns(_column(condition))
    return column.known(_test(condition, column.values))


def fails(condition: Condition, columns: Columns) -> Mask:
    """Return the rows where a plain condition is false; it may also be unknown."""
    if isinstance(condition, Not):
        return holds(condition.child, columns)
    if isinstance(condition, And | Or):
        combine = operator.or_ if isinstance(condition, And) else operator.and_
        return reduce(combine, (fails(child, columns) for child in condition.children))
    known = _known(condition, columns)
    return known & ~holds(condition, columns)


def _known(condition: Condition, columns: Columns) -> Mask:
    names = () if isinstance(condition, IsNull) else condition_columns(condition)
    rows = columns(condition_columns(condition)[0]).values.size
    return reduce(lambda mask, name: columns(name).known(mask), names, np.ones(rows, dtype=np.bool_))


def _test(condition: Condition, values: npt.NDArray[Any]) -> Mask:
    if isinstance(condition, Comparison):
        return _compared(values, condition.operator, condition.value)
    if isinstance(condition, InList):
        limits = np.iinfo(values.dtype)
        numbers = [value for value in condition.values if isinstance(value, int)]
        return np.isin(values, np.array([number for number in numbers if limits.min <= number <= limits.max], dtype=values.dtype))
    raise TypeError(f"not a plain condition: {condition}")


def _compared(values: npt.NDArray[Any], symbol: Operator, number: Constant) -> Mask:
    if not isinstance(number, int):
        raise TypeError(f"not an integer: {number}")
    limits = np.iinfo(values.dtype)
    if not limits.min <= number <= limits.max:  # then every value compares like zero does
        return np.full(values.shape, _FUNCTIONS[symbol](0, number), dtype=np.bool_)
    compared: Mask = _FUNCTIONS[symbol](values, values.dtype.type(number))
    return compared


def _constants(condition: Condition) -> tuple[Constant, ...]:
    if isinstance(condition, Comparison):
        return (condition.value,)
    return condition.values if isinstance(condition, InList) else ()


def _is_number(value: Constant) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _column(condition: Condition) -> str:
    return condition_columns(condition)[0]


def _nulls(column: Integers) -> Mask:
    return np.zeros(column.values.shape, dtype=np.bool_) if column.nulls is None else column.nulls
