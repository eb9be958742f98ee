"""
Special joins in the text of a query, made as simple as PostgreSQL makes them before it plans.

A *region* is a set of relations joined by inner joins, with the conditions between them. The right side of a special join is a
region of its own, and so is the left side of a FULL JOIN; any other left side belongs to the region around it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, Union

from sqlglot import exp

from pytest_pilotscope.core.conditions import Typer, conjuncts
from pytest_pilotscope.core.specialjoins import Kind, Source, SpecialJoin, special_joins
from pytest_pilotscope.core.specialjoins import aliases_of as aliases_of_sources

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
    """A special join as written; RIGHT is LEFT with the sides changed."""

    kind: Kind
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

    Conditions of left sides move to the region around them, except of a FULL JOIN.
    """
    before = -1
    while before != len(region.conditions):
        before = len(region.conditions)
        semi = [condition for item in region.items if not isinstance(item, str) and item.kind == "SEMI" for condition in item.on]
        facts = known.union(*(nonnullable(condition, typer) for condition in (*region.conditions, *semi)))
        region.items = [kept for item in region.items for kept in _reduced(item, region, facts)]
    for join in joins_beside(region.items):
        inside = frozenset[str]().union(*(nonnullable(condition, typer) for condition in join.on))
        reduce_outer_joins(join.right, typer, inside & aliases_of(join.right.items) if join.kind != "FULL" else frozenset())
        if join.kind == "FULL":
            reduce_outer_joins(join.left, typer)


def _reduced(item: Node, around: Region, facts: Facts) -> list[Node]:
    if isinstance(item, str):
        return [item]
    needs_left, needs_right = (item.kind in ("LEFT", "FULL") and bool(facts & aliases_of(side.items)) for side in (item.left, item.right))
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
    """Yield the special joins whose left sides are in a region, inner ones first."""
    for item in items:
        if not isinstance(item, str):
            yield from joins_beside(item.left.items if item.kind != "FULL" else ())
            yield item


@dataclass(slots=True)
class Placer:
    """
    Puts every condition where it is evaluated.

    `add` takes a condition between relations that no special join below makes NULL, `delay` one that waits for the given relations,
    `equate` what ON demands of the nullable side, whose relations are given.
    """

    typer: Typer
    add: Callable[[exp.Expression], None]
    delay: Callable[[frozenset[str], exp.Expression], None]
    equate: Callable[[exp.Expression, frozenset[str]], None]

    def place(self, region: Region) -> tuple[Source, ...]:
        """Place all conditions of a region and return its items."""
        sources = tuple(self._source(item) for item in region.items)
        below = list(special_joins(sources))
        for condition in region.conditions:
            for conjunct in conjuncts(condition):
                self._put(conjunct, below)
        return sources

    def _put(self, conjunct: exp.Expression, below: Sequence[SpecialJoin]) -> None:
        aliases = self._aliases(conjunct)
        needed = _completed(aliases, below)
        if needed == aliases and not any(aliases & side for join in below for side in join.nullable):
            self.add(conjunct)
        else:
            self.delay(needed, conjunct)

    def _source(self, item: Node) -> Source:
        if isinstance(item, str):
            return item
        left = self.place(item.left) if item.kind == "FULL" else tuple(self._source(part) for part in item.left.items)
        written = [conjunct for condition in item.on for conjunct in conjuncts(condition)]
        inside = aliases_of(item.right.items)
        own = [conjunct for conjunct in written if item.kind != "FULL" and self._aliases(conjunct) and self._aliases(conjunct) <= inside]
        kept = [conjunct for conjunct in written if self._aliases(conjunct) and conjunct not in own]
        item.right.conditions += own
        right = self.place(item.right)
        made = self._special_join(item.kind, left, right, written, kept)
        if item.kind == "SEMI":
            for conjunct in kept:
                self._put(conjunct, list(special_joins(left)))
        elif item.kind != "FULL":
            self._equate_across(made, kept)
        return made

    def _equate_across(self, made: SpecialJoin, kept: Sequence[exp.Expression]) -> None:
        blocking = [lower for lower in special_joins(made.left) if lower.needs_left & made.needs_left]  # it cannot be done before those
        nulled = frozenset[str]().union(*(side for lower in blocking for side in lower.nullable))
        for conjunct in kept:
            if not self._aliases(conjunct) & nulled:
                self.equate(conjunct, aliases_of_sources(made.right))

    def _special_join(
        self,
        kind: Kind,
        left: tuple[Source, ...],
        right: tuple[Source, ...],
        written: Sequence[exp.Expression],
        kept: Sequence[exp.Expression],
    ) -> SpecialJoin:
        mentioned = frozenset[str]().union(*(self._aliases(conjunct) for conjunct in written))
        strict = frozenset[str]().union(*(nonnullable(conjunct, self.typer) for conjunct in written))
        needs_left, needs_right = _needs(kind, left, right, mentioned, strict)
        return SpecialJoin(
            kind=kind,
            left=left,
            right=right,
            conditions=tuple(self.typer.qualified_sql(conjunct) for conjunct in kept) if kind != "SEMI" else (),
            needs_left=needs_left,
            needs_right=needs_right,
            strict=bool(strict & aliases_of_sources(left)),
            equalities_only=all(isinstance(conjunct, exp.EQ) for conjunct in kept),
        )

    def _aliases(self, conjunct: exp.Expression) -> frozenset[str]:
        return frozenset(ref.alias for ref in self.typer.references(conjunct))


def _needs(kind: Kind, left: tuple[Source, ...], right: tuple[Source, ...], mentioned: Facts, strict: Facts) -> tuple[Facts, Facts]:
    """Find what a join needs on either side (`make_outerjoininfo`), given what its ON mentions and is strict in."""
    on_left, on_right = aliases_of_sources(left), aliases_of_sources(right)
    if kind == "FULL":
        return on_left, on_right
    needs_left, needs_right = mentioned & on_left, (mentioned | _inner_joined(right)) & on_right
    for lower in special_joins((*left, *right)):
        nullable, both = aliases_of_sources(lower.right), aliases_of_sources((*lower.left, *lower.right))
        if lower.kind == "FULL":
            needs_left |= both & on_left
            needs_right |= both & on_right
        fixed = kind in ("SEMI", "ANTI")
        if on_left & nullable and mentioned & nullable and (fixed or not strict & lower.needs_right):
            needs_left |= both
        fixed = fixed or lower.kind in ("SEMI", "ANTI")
        if on_right & nullable and (fixed or mentioned & nullable or not mentioned & lower.needs_left or not lower.strict):
            needs_right |= both
    return needs_left or on_left, needs_right or on_right


def _completed(aliases: frozenset[str], below: Sequence[SpecialJoin]) -> frozenset[str]:
    """Add what the joins need that make some relations NULL, and those that make NULL what was added."""
    needed = aliases
    for _ in below:
        hit = [join for join in below if any(needed & side for side in join.nullable)]
        needed = needed.union(*(join.needs_left | join.needs_right for join in hit))
    return needed


def _inner_joined(sources: Sequence[Source]) -> frozenset[str]:
    """Return the relations that are below an inner join."""
    if len(sources) > 1:
        return aliases_of_sources(sources)
    return frozenset(
        alias
        for source in sources
        if isinstance(source, SpecialJoin)
        for side in (source.left, source.right)
        for alias in _inner_joined(side)
    )
