"""Conditions in three-valued logic, in NumPy: for a row a condition is true, false, or unknown because of a NULL."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.queries.predicates import (
    And,
    ColumnComparison,
    Comparison,
    Condition,
    InList,
    IsNull,
    Like,
    Not,
    Opaque,
    Operator,
    Or,
)

Mask: TypeAlias = npt.NDArray[np.bool_]
Leaf: TypeAlias = Comparison | ColumnComparison | InList | Like | IsNull

OPERATORS: dict[Operator, Callable[[Any, Any], Mask]] = {
    "=": np.equal,
    "<>": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


class Compared(NamedTuple):
    """
    The truth of a leaf: (N,) `holds`, and (N,) the rows in which it is `known`, None for all of them.

    The others are unknown because of a NULL; there `holds` means nothing.
    """

    holds: Mask
    known: Mask | None = None


def rows_where(condition: Condition, leaf: Callable[[Leaf], Compared | None], *, value: bool = True) -> Mask | None:
    """
    Return the (N,) rows for which a condition has a truth value; for the rest it is the other one or unknown.

    None when the condition is `Opaque` or `leaf` returns None for a part of it: only PostgreSQL can evaluate it.
    """
    if isinstance(condition, Opaque):
        return None
    if isinstance(condition, Not):
        return rows_where(condition.child, leaf, value=not value)
    if not isinstance(condition, And | Or):
        compared = leaf(condition)
        return None if compared is None else _of_leaf(compared, value)
    parts = [rows_where(child, leaf, value=value) for child in condition.children]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return reduce(np.logical_and if isinstance(condition, And) is value else np.logical_or, known)  # AND is false if any child is


def _of_leaf(compared: Compared, value: bool) -> Mask:
    rows = compared.holds if value else ~compared.holds
    return rows if compared.known is None else rows & compared.known


def both(left: Mask | None, right: Mask | None) -> Mask | None:
    """Return the rows that are known in both of two columns, None for all."""
    return left if right is None else right if left is None else left & right
