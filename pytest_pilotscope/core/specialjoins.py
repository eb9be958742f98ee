"""
Joins that are no inner ones: LEFT and FULL, and EXISTS and IN, which PostgreSQL plans as semi and anti joins.

Which sets of relations the planner can build follows `make_outerjoininfo` (src/backend/optimizer/plan/initsplan.c) and
`join_is_legal` (src/backend/optimizer/path/joinrels.c); the word is that of its `SpecialJoinInfo`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, Union

from pytest_pilotscope.core.connectivity import smaller_first

Source: TypeAlias = Union[str, "SpecialJoin"]
"""An item of a FROM clause: the alias of a relation, or a special join. Items beside each other are joined by conditions elsewhere."""

Kind: TypeAlias = Literal["LEFT", "FULL", "SEMI", "ANTI"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialJoin:
    """
    `left LEFT JOIN right ON conditions`, without those conditions of ON that only restrict the right side, or another kind.

    FULL has all conditions of ON. SEMI has none: they are like those of an inner join. `needs_left` and `needs_right` are the
    relations that must be there on each side before the join can be done; `strict` says that ON is never true where the left
    side is NULL, `equalities_only` that ON compares the sides of a SEMI by `=` alone, so that its right side can be made
    unique and joined to anything. `conditions` are SQL, qualified with the aliases.
    """

    kind: Kind = "LEFT"
    left: tuple[Source, ...]
    right: tuple[Source, ...]
    conditions: tuple[str, ...]
    needs_left: frozenset[str]
    needs_right: frozenset[str]
    strict: bool
    equalities_only: bool = False

    @property
    def nullable(self) -> tuple[frozenset[str], ...]:
        """The sides with conditions of their own, because the join makes them NULL, or hides them (the right of an ANTI)."""
        if self.kind == "SEMI":
            return ()
        sides = (self.left, self.right) if self.kind == "FULL" else (self.right,)
        return tuple(aliases_of(side) for side in sides)

    def tests(self, subplan: frozenset[str]) -> bool:
        """Tell whether a subplan has this join done, as a semi or anti join: then its right side is a test of the other rows."""
        right = aliases_of(self.right)
        left = subplan & aliases_of(self.left)
        return right <= subplan and (
            (self.kind == "SEMI" and bool(left)) or (self.kind == "ANTI" and bool(left) and self.needs_left <= left)
        )


def aliases_of(sources: Sequence[Source]) -> frozenset[str]:
    """Return all relations below some sources."""
    return frozenset(
        alias for source in sources for alias in ([source] if isinstance(source, str) else aliases_of((*source.left, *source.right)))
    )


def special_joins(sources: Sequence[Source]) -> Iterator[SpecialJoin]:
    """Yield the special joins of some sources, inner ones first."""
    for source in sources:
        if isinstance(source, SpecialJoin):
            yield from special_joins(source.left)
            yield from special_joins(source.right)
            yield source


class FromClause:
    """
    Writes the FROM clause of a subplan.

    `relation_sql` gives the SQL of a relation with its filter, `conditions_of` the SQL of the conditions that hold between
    the relations of a side with conditions of its own, or that tie a SEMI's right side (given by its relations), and are no
    part of a side within it.
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
                found, waiting = self._special(source, subplan)
                items += found
                pending += waiting
        return items, pending

    def _special(self, join: SpecialJoin, subplan: frozenset[str]) -> tuple[list[str], list[str]]:
        left, pending = self.items(join.left, subplan)
        right, inside = self.items(join.right, subplan)
        if join.kind == "FULL":
            pending += self._conditions_of(aliases_of(join.left))
        if join.kind != "SEMI" or join.tests(subplan):
            inside += self._conditions_of(aliases_of(join.right))
        if join.tests(subplan):
            return left, [*pending, _test(join, right, inside)]
        if not left or not right or join.kind in ("SEMI", "ANTI"):
            return left + right, pending + inside
        if join.kind == "FULL":
            return [f"({_joined(left, pending)} FULL JOIN {_joined(right, inside)} ON {' AND '.join(join.conditions) or 'TRUE'})"], []
        on = " AND ".join([*join.conditions, *inside]) or "TRUE"  # what restricts the right side may as well stand in ON
        return [f"({_joined(left, [])} LEFT JOIN {_joined(right, [])} ON {on})"], pending


def _test(join: SpecialJoin, right: Sequence[str], conditions: Sequence[str]) -> str:
    where = " AND ".join([*join.conditions, *conditions]) or "TRUE"
    return f"{'NOT ' if join.kind == 'ANTI' else ''}EXISTS (SELECT 1 FROM {', '.join(right)} WHERE {where})"  # noqa: S608  # rendered by us


def _joined(items: Sequence[str], conditions: Sequence[str]) -> str:
    """Write an inner join of items; a single one is joined with a row without columns, to have a place for its conditions."""
    if not conditions:
        return items[0] if len(items) == 1 else f"({' CROSS JOIN '.join(items)})"
    *first, last = items if len(items) > 1 else (items[0], "(SELECT 1) AS pilotscope_row")
    return f"({' CROSS JOIN '.join(first)} JOIN {last} ON {' AND '.join(conditions)})"


@dataclass(frozen=True, slots=True)
class Order:
    """A special join on bit masks: what it needs on either side, all of its right side, its kind, and two facts about its ON."""

    left: int
    right: int
    whole_right: int
    kind: Kind
    strict: bool
    unique: bool


class OrderedSearch:
    """The sets that `join_search_one_level` builds when special joins restrict the order; `items` are what is joined, as masks."""

    def __init__(self, neighbours: Sequence[int], orders: Sequence[Order], items: Sequence[int]) -> None:
        self._neighbours = neighbours
        self._orders = orders
        self._items = items

    def subsets(self) -> set[int]:
        """Enumerate them."""
        levels: list[set[int]] = [set(), set(self._items)]
        for size in range(2, len(self._items) + 1):
            level = {joined for smaller in levels[-1] for joined in self._linear(smaller)}
            for left_size in range(2, size // 2 + 1):
                pairs = [(left, right) for left in levels[left_size] for right in levels[size - left_size] if not left & right]
                level |= {left | right for left, right in pairs if self._related(left, right) and self._legal(left, right)}
            everything = [(left, item) for left in levels[-1] for item in self._items if not left & item]
            levels.append(level or {left | item for left, item in everything if self._legal(left, item)})
        return {mask for level in levels for mask in level}

    def _linear(self, smaller: int) -> Iterator[int]:
        outside = [item for item in self._items if not item & smaller]
        tied = self._around(smaller) & ~smaller or any(self._restricted(smaller, order) for order in self._orders)
        for item in outside:
            if (not tied or self._related(smaller, item)) and self._legal(smaller, item):
                yield smaller | item

    def _related(self, left: int, right: int) -> bool:
        """Tell whether a pair is considered: a join clause, or an order that asks for it (`have_join_order_restriction`)."""
        if self._around(left) & right:
            return True
        if not any(self._asks_for(left, right, order) for order in self._orders):
            return False
        return not self._has_legal_clause(left) and not self._has_legal_clause(right)

    def _has_legal_clause(self, mask: int) -> bool:
        return any(self._around(mask) & item and not mask & item and self._legal(mask, item) for item in self._items)

    @staticmethod
    def _asks_for(left: int, right: int, order: Order) -> bool:
        one, other = order.left, order.right
        return order.kind != "FULL" and (
            (one & left == one and other & right == other)
            or (one & right == one and other & left == other)
            or bool(other & left and other & right)
            or bool(one & left and one & right)
        )

    @staticmethod
    def _restricted(mask: int, order: Order) -> bool:
        """Tell whether an order concerns a set that it is not within (`has_join_restriction`)."""
        if order.kind == "FULL" or (order.left | order.right) & mask == order.left | order.right:
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
                if order.kind != "LEFT" or joined & order.left:
                    return False
                must_be_left_join = True
        return not must_be_left_join or (matched is not None and matched.kind == "LEFT" and matched.strict)

    @staticmethod
    def _done(order: Order, mask: int) -> bool:
        if order.kind == "SEMI" and mask & order.whole_right == order.whole_right and mask != order.whole_right:
            return True  # made unique, and joined to something
        return mask & order.left == order.left and mask & order.right == order.right

    @staticmethod
    def _performs(order: Order, left: int, right: int) -> bool:
        if left & order.left == order.left and right & order.right == order.right:
            return True
        return order.unique and right == order.whole_right

    def _around(self, mask: int) -> int:
        around = 0
        for position, neighbours in enumerate(self._neighbours):
            if mask >> position & 1:
                around |= neighbours
        return around


def ordered_subsets(sources: Sequence[Source], aliases: Sequence[str], neighbours: Sequence[int]) -> list[int]:
    """
    Enumerate the sets of relations that the planner builds, as bit masks over `aliases`, smaller ones first, then by mask.

    Each side of a FULL JOIN is a search of its own (`deconstruct_recurse`), and the join is one item of the search around it.
    """
    bit = {alias: 1 << position for position, alias in enumerate(aliases)}
    orders = [_order(join, bit) for join in special_joins(sources)]
    found: set[int] = set()

    def items(part: Sequence[Source]) -> Iterator[int]:
        for source in part:
            if isinstance(source, str):
                yield bit[source]
            elif source.kind == "FULL":
                yield search(source.left) | search(source.right)
            else:
                yield from items((*source.left, *source.right))

    def search(part: Sequence[Source]) -> int:
        found.update(OrderedSearch(neighbours, orders, list(items(part))).subsets())
        return _mask(aliases_of(part), bit)

    search(sources)
    return smaller_first(found)


def _order(join: SpecialJoin, bit: dict[str, int]) -> Order:
    left, right, whole_right = (_mask(aliases, bit) for aliases in (join.needs_left, join.needs_right, aliases_of(join.right)))
    return Order(left, right, whole_right, join.kind, join.strict, join.kind == "SEMI" and join.equalities_only)


def _mask(aliases: frozenset[str], bit: dict[str, int]) -> int:
    return sum(bit[alias] for alias in aliases)
