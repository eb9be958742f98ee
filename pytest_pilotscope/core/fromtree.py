"""
Outer joins in the text of a query, made as simple as PostgreSQL makes them before it plans.

A *region* is a set of relations joined by inner joins, with the conditions between them. The right side of a LEFT JOIN is a
region of its own; its left side belongs to the region around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, Union

from sqlglot import exp

from pytest_pilotscope.core.conditions import Typer, conjuncts
from pytest_pilotscope.core.outerjoins import OuterJoin, Source, outer_joins
from pytest_pilotscope.core.outerjoins import aliases_of as aliases_of_sources

Node: TypeAlias = Union[str, "Join"]
Facts: TypeAlias = frozenset[str]
"""Relations that a condition is never true for when they are all NULL."""


@dataclass(slots=True)
class Region:
    """Items of a FROM clause joined by inner joins, and the conditions on them."""

    items: list[Node] = field(default_factory=list)
    conditions: list[exp.Expression] = field(default_factory=list)


@dataclass(slots=True)
class Join:
    """An outer join as written; RIGHT is LEFT with the sides changed."""

    kind: Literal["LEFT", "FULL"]
    left: Region
    right: Region
    on: list[exp.Expression]


def aliases_of(items: Sequence[Node]) -> frozenset[str]:
    """Return all relations below some items."""
    return frozenset(
        alias for item in items for alias in ([item] if isinstance(item, str) else aliases_of([*item.left.items, *item.right.items]))
    )


def reduce_outer_joins(region: Region, typer: Typer, known: Facts = frozenset()) -> None:
    """
    Turn outer joins into inner ones where a condition above them refuses the rows they add (`reduce_outer_joins`, prepjointree.c).

    Conditions of left sides move to the region around them. What stays is a LEFT JOIN, or a FULL JOIN.
    """
    before = -1
    while before != len(region.conditions):
        before = len(region.conditions)
        facts = known.union(*(nonnullable(condition, typer) for condition in region.conditions))
        region.items = [kept for item in region.items for kept in _reduced(item, region, facts)]
    for join in joins_beside(region.items):
        inside = frozenset[str]().union(*(nonnullable(condition, typer) for condition in join.on))
        reduce_outer_joins(join.right, typer, inside & aliases_of(join.right.items))


def _reduced(item: Node, around: Region, facts: Facts) -> list[Node]:
    if isinstance(item, str):
        return [item]
    needs_left, needs_right = (bool(facts & aliases_of(side.items)) for side in (item.left, item.right))
    if item.kind == "FULL" and needs_right and not needs_left:
        item.left, item.right = item.right, item.left
        needs_left, needs_right = True, False
    if item.kind == "FULL" and needs_left and not needs_right:
        item.kind = "LEFT"
    if item.kind == "FULL" and not needs_left:
        return [item]
    around.conditions += item.left.conditions
    item.left.conditions = []
    if needs_right:
        around.conditions += item.right.conditions + item.on
        return [kept for part in (*item.left.items, *item.right.items) for kept in _reduced(part, around, facts)]
    item.left.items = [kept for part in item.left.items for kept in _reduced(part, around, facts)]
    return [item]


def nonnullable(condition: exp.Expression, typer: Typer) -> Facts:
    """Return the relations that a condition is strict in (`find_nonnullable_rels` in clauses.c, for what is surely strict)."""
    found: Facts = frozenset()
    for conjunct in conjuncts(condition):
        if isinstance(conjunct, exp.Or):
            found |= nonnullable(conjunct.this, typer) & nonnullable(conjunct.expression, typer)
        elif _is_strict(conjunct):
            found |= {ref.alias for ref in typer.references(conjunct)}
    return found


_TESTS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Like, exp.ILike, exp.Between, exp.In)
_VALUES = (exp.Column, exp.Identifier, exp.Literal, exp.Neg, exp.Paren, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Cast, exp.DataType)


def _is_strict(conjunct: exp.Expression) -> bool:
    if isinstance(conjunct, exp.Is):
        return bool(conjunct.args.get("negate")) and isinstance(conjunct.expression, exp.Null)
    if isinstance(conjunct, exp.Not):
        inner = conjunct.this.unnest()
        return _is_strict(inner) if not isinstance(inner, exp.Is) else isinstance(inner.expression, exp.Null)
    return isinstance(conjunct, exp.Column) or (
        isinstance(conjunct, _TESTS) and all(isinstance(node, _VALUES) for node in conjunct.walk() if node is not conjunct)
    )


def joins_beside(items: Sequence[Node]) -> Iterator[Join]:
    """Yield the outer joins whose left sides are in a region, inner ones first."""
    for item in items:
        if not isinstance(item, str):
            yield from joins_beside(item.left.items)
            yield item


def all_joins(region: Region) -> Iterator[Join]:
    """Yield every outer join of a region, however deep."""
    for item in region.items:
        if not isinstance(item, str):
            yield item
            yield from all_joins(item.left)
            yield from all_joins(item.right)


@dataclass(slots=True)
class Placer:
    """
    Puts every condition where it is evaluated.

    `add` takes a condition between relations that no outer join below makes NULL, `delay` one that waits for the given relations,
    `equate` what ON demands of the nullable side, whose relations are given.
    """

    typer: Typer
    add: Callable[[exp.Expression], None]
    delay: Callable[[frozenset[str], exp.Expression], None]
    equate: Callable[[exp.Expression, frozenset[str]], None]

    def place(self, region: Region) -> tuple[Source, ...]:
        """Place all conditions of a region and return its items."""
        sources = tuple(self._source(item) for item in region.items)
        below = list(outer_joins(sources))
        for condition in region.conditions:
            for conjunct in conjuncts(condition):
                aliases = self._aliases(conjunct)
                needed = _completed(aliases, below)
                if needed == aliases and not any(aliases & aliases_of_sources(join.right) for join in below):
                    self.add(conjunct)
                else:
                    self.delay(needed, conjunct)
        return sources

    def _source(self, item: Node) -> Source:
        if isinstance(item, str):
            return item
        left = tuple(self._source(part) for part in item.left.items)
        written = [conjunct for condition in item.on for conjunct in conjuncts(condition)]
        inside = aliases_of(item.right.items)
        kept = [conjunct for conjunct in written if self._aliases(conjunct) and not self._aliases(conjunct) <= inside]
        item.right.conditions += [conjunct for conjunct in written if self._aliases(conjunct) and self._aliases(conjunct) <= inside]
        right = self.place(item.right)
        made = self._outer_join(left, right, written, tuple(self.typer.qualified_sql(conjunct) for conjunct in kept))
        blocking = [lower for lower in outer_joins(left) if lower.needs_left & made.needs_left]  # those that this one cannot be done before
        nulled = frozenset[str]().union(*(aliases_of_sources(lower.right) for lower in blocking))
        for conjunct in kept:
            if not self._aliases(conjunct) & nulled:
                self.equate(conjunct, inside)
        return made

    def _outer_join(
        self, left: tuple[Source, ...], right: tuple[Source, ...], written: Sequence[exp.Expression], conditions: tuple[str, ...]
    ) -> OuterJoin:
        """Find what the join needs on either side (`make_outerjoininfo`)."""
        on_left, on_right = aliases_of_sources(left), aliases_of_sources(right)
        mentioned = frozenset[str]().union(*(self._aliases(conjunct) for conjunct in written))
        strict = frozenset[str]().union(*(nonnullable(conjunct, self.typer) for conjunct in written))
        needs_left, needs_right = mentioned & on_left, (mentioned | _inner_joined(right)) & on_right
        for lower in outer_joins((*left, *right)):
            nullable = aliases_of_sources(lower.right)
            both = nullable | aliases_of_sources(lower.left)
            if on_left & nullable and mentioned & nullable and not strict & lower.needs_right:
                needs_left |= both
            if on_right & nullable and (mentioned & nullable or not mentioned & lower.needs_left or not lower.strict):
                needs_right |= both
        return OuterJoin(
            left=left,
            right=right,
            conditions=conditions,
            needs_left=needs_left or on_left,
            needs_right=needs_right or on_right,
            strict=bool(strict & on_left),
        )

    def _aliases(self, conjunct: exp.Expression) -> frozenset[str]:
        return frozenset(ref.alias for ref in self.typer.references(conjunct))


def _completed(aliases: frozenset[str], below: Sequence[OuterJoin]) -> frozenset[str]:
    """Add what the outer joins need that make some relations NULL, and those that make NULL what was added."""
    needed = aliases
    for _ in below:
        hit = [join for join in below if needed & aliases_of_sources(join.right)]
        needed = needed.union(*(join.needs_left | join.needs_right for join in hit))
    return needed


def _inner_joined(sources: Sequence[Source]) -> frozenset[str]:
    """Return the relations that are below an inner join."""
    if len(sources) > 1:
        return aliases_of_sources(sources)
    return frozenset(
        alias
        for source in sources
        if isinstance(source, OuterJoin)
        for side in (source.left, source.right)
        for alias in _inner_joined(side)
    )
