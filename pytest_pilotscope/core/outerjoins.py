"""
LEFT JOINs that no condition above them turns into inner joins: their text, and the order in which they can be done.

Which sets of relations the planner can build follows `make_outerjoininfo` (src/backend/optimizer/plan/initsplan.c) and
`join_is_legal` (src/backend/optimizer/path/joinrels.c).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, Union

Source: TypeAlias = Union[str, "OuterJoin"]
"""An item of a FROM clause: the alias of a relation, or an outer join. Items beside each other are joined by conditions elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterJoin:
    """
    `left LEFT JOIN right ON conditions`, without those conditions of ON that only restrict the right side.

    `needs_left` and `needs_right` are the relations that must be there on each side before the join can be done;
    `strict` says that ON is never true where the left side is NULL. `conditions` are SQL, qualified with the aliases.
    """

    left: tuple[Source, ...]
    right: tuple[Source, ...]
    conditions: tuple[str, ...]
    needs_left: frozenset[str]
    needs_right: frozenset[str]
    strict: bool


def aliases_of(sources: Sequence[Source]) -> frozenset[str]:
    """Return all relations below some sources."""
    return frozenset(
        alias for source in sources for alias in ([source] if isinstance(source, str) else aliases_of((*source.left, *source.right)))
    )


def outer_joins(sources: Sequence[Source]) -> Iterator[OuterJoin]:
    """Yield the outer joins of some sources, inner ones first."""
    for source in sources:
        if isinstance(source, OuterJoin):
            yield from outer_joins(source.left)
            yield from outer_joins(source.right)
            yield source


class FromClause:
    """
    Writes the FROM clause of a subplan.

    `relation_sql` gives the SQL of a relation with its filter, `conditions_of` the SQL of the conditions that hold between
    the relations of a nullable side (given by its relations) and are no part of one within it.
    """

    def __init__(self, relation_sql: Callable[[str], str], conditions_of: Callable[[frozenset[str]], list[str]]) -> None:
        self._relation_sql = relation_sql
        self._conditions_of = conditions_of

    def items(self, sources: Sequence[Source], subplan: frozenset[str]) -> tuple[list[str], list[str]]:
        """Return the items that are left when only the relations of a subplan are kept, and the conditions still to be applied."""
        items: list[str] = []
        pending: list[str] = []
        for source in sources:
            if isinstance(source, str):
                items += [self._relation_sql(source)] if source in subplan else []
            else:
                found, waiting = self._outer(source, subplan)
                items += found
                pending += waiting
        return items, pending

    def _outer(self, join: OuterJoin, subplan: frozenset[str]) -> tuple[list[str], list[str]]:
        left, pending = self.items(join.left, subplan)
        right, inside = self.items(join.right, subplan)
        inside += self._conditions_of(aliases_of(join.right))
        if not left or not right:
            return left + right, pending + inside
        on = " AND ".join([*join.conditions, *inside]) or "TRUE"  # what restricts the right side may as well stand in ON
        return [f"({_crossed(left)} LEFT JOIN {_crossed(right)} ON {on})"], pending


def _crossed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"({' CROSS JOIN '.join(items)})"


@dataclass(frozen=True, slots=True)
class Order:
    """An outer join on bit masks: what it needs on either side, and whether it is strict."""

    left: int
    right: int
    strict: bool


class OrderedSearch:
    """The sets that `join_search_one_level` builds when outer joins restrict the order."""

    def __init__(self, neighbours: Sequence[int], orders: Sequence[Order]) -> None:
        self._neighbours = neighbours
        self._orders = orders
        self._singles = [1 << position for position in range(len(neighbours))]

    def subsets(self) -> list[int]:
        """Enumerate them, smaller ones first, then by mask."""
        levels: list[set[int]] = [set(), set(self._singles)]
        for size in range(2, len(self._singles) + 1):
            level = {joined for smaller in levels[-1] for joined in self._linear(smaller)}
            for left_size in range(2, size // 2 + 1):
                pairs = [(left, right) for left in levels[left_size] for right in levels[size - left_size] if not left & right]
                level |= {left | right for left, right in pairs if self._related(left, right) and self._legal(left, right)}
            everything = [(left, single) for left in levels[-1] for single in self._singles if not left & single]
            levels.append(level or {left | single for left, single in everything if self._legal(left, single)})
        return sorted({mask for level in levels for mask in level}, key=lambda mask: (mask.bit_count(), mask))

    def _linear(self, smaller: int) -> Iterator[int]:
        outside = [single for single in self._singles if not single & smaller]
        tied = self._around(smaller) & ~smaller or any(self._restricted(smaller, order) for order in self._orders)
        for single in outside:
            if (not tied or self._related(smaller, single)) and self._legal(smaller, single):
                yield smaller | single

    def _related(self, left: int, right: int) -> bool:
        """Tell whether a pair is considered: a join clause, or an order that asks for it (`have_join_order_restriction`)."""
        if self._around(left) & right:
            return True
        if not any(self._asks_for(left, right, order) for order in self._orders):
            return False
        return not self._has_legal_clause(left) and not self._has_legal_clause(right)

    def _has_legal_clause(self, mask: int) -> bool:
        return any(self._around(mask) & single and not mask & single and self._legal(mask, single) for single in self._singles)

    @staticmethod
    def _asks_for(left: int, right: int, order: Order) -> bool:
        one, other = order.left, order.right
        return (
            (one & left == one and other & right == other)
            or (one & right == one and other & left == other)
            or bool(other & left and other & right)
            or bool(one & left and one & right)
        )

    @staticmethod
    def _restricted(mask: int, order: Order) -> bool:
        """Tell whether an order concerns a set that it is not within (`has_join_restriction`)."""
        if (order.left | order.right) & mask == order.left | order.right:
            return False
        return bool(order.left & mask or order.right & mask)

    def _legal(self, left: int, right: int) -> bool:
        joined = left | right
        matched: Order | None = None
        must_be_left_join = False
        for order in self._orders:
            if not order.right & joined or joined & order.right == joined or self._done(order, left) or self._done(order, right):
                continue
            if self._performs(order, left, right) or self._performs(order, right, left):
                if matched is not None:
                    return False
                matched = order
            elif not (order.right & left and order.right & right):
                if joined & order.left:
                    return False
                must_be_left_join = True
        return not must_be_left_join or (matched is not None and matched.strict)

    @staticmethod
    def _done(order: Order, mask: int) -> bool:
        return mask & order.left == order.left and mask & order.right == order.right

    @staticmethod
    def _performs(order: Order, left: int, right: int) -> bool:
        return left & order.left == order.left and right & order.right == order.right

    def _around(self, mask: int) -> int:
        around = 0
        for position, neighbours in enumerate(self._neighbours):
            if mask >> position & 1:
                around |= neighbours
        return around
