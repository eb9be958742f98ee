"""Three-valued logic in NumPy: for a row a condition is true, false, or unknown because of a NULL."""

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


class Truth(NamedTuple):
    """(N,) rows for which a condition is true, and (N,) those for which it is not unknown; None where it is known for all rows."""

    true: Mask
    known: Mask | None = None

    @property
    def false(self) -> Mask:
        """(N,) rows for which the condition is false."""
        return ~self.true if self.known is None else self.known & ~self.true

    def negated(self) -> Truth:
        """Return the truth of NOT: what is unknown stays unknown."""
        return Truth(self.false, self.known)

    def both(self, other: Truth) -> Truth:
        """Return the truth of AND: it is known where both are true, or one is false."""
        true = self.true & other.true
        if self.known is None and other.known is None:
            return Truth(true)
        return Truth(true, true | self.false | other.false)


def where_known(holds: Mask, *known: Mask | None) -> Truth:
    """Return the truth of a comparison that has been made for all rows, whose values are not NULL in the `known` rows only."""
    not_null = [mask for mask in known if mask is not None]
    if not not_null:
        return Truth(holds)
    all_known = reduce(np.logical_and, not_null)
    return Truth(holds & all_known, all_known)


def evaluated(condition: Condition, leaf: Callable[[Leaf], Truth | None]) -> Truth | None:
    """Evaluate a condition by the truth of its leaves; None when it is `Opaque` or a leaf is None: only PostgreSQL can evaluate it."""
    if isinstance(condition, Opaque):
        return None
    if isinstance(condition, Not):
        inner = evaluated(condition.child, leaf)
        return None if inner is None else inner.negated()
    if not isinstance(condition, And | Or):
        return leaf(condition)
    is_or = isinstance(condition, Or)  # a OR b is NOT (NOT a AND NOT b), also where a or b is unknown
    parts: list[Truth] = []
    for child in condition.children:
        part = evaluated(child, leaf)
        if part is None:
            return None
        parts.append(part.negated() if is_or else part)
    found = reduce(Truth.both, parts)
    return found.negated() if is_or else found
