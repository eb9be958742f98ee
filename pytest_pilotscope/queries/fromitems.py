"""A set of relations as the parts of a SELECT: items of FROM in an order that LATERAL allows, and conditions of WHERE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_

from pytest_pilotscope.queries.meaning import NoCount


class Item:
    """An item of a FROM list: `relations` are those that it brings, `needs` those that must stand before it."""

    __slots__ = ("needs", "relations", "sql")

    def __init__(self, sql: str, relations: int, needs: int = 0) -> None:
        self.sql, self.relations, self.needs = sql, relations, needs & ~relations


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """
    A set as the parts of a SELECT.

    `visible` are the relations whose columns can be named, `distinct` has the new names of expressions of a unique side, `computed` are the
    placeholders that are items.
    """

    items: tuple[Item, ...]
    conditions: tuple[str, ...] = ()
    visible: int = 0
    distinct: Mapping[str, str] = field(default_factory=dict)
    computed: frozenset[int] = frozenset()

    def beside(self, other: Parts) -> Parts:
        """Put two lists of FROM and WHERE together."""
        return Parts(
            items=self.items + other.items,
            conditions=self.conditions + other.conditions,
            visible=self.visible | other.visible,
            distinct={**self.distinct, **other.distinct},
            computed=self.computed | other.computed,
        )


def from_list(parts: Parts, mask: int) -> str:
    """Return the FROM list of a set; raises `NoCount` when an item needs rows from outside of it."""
    if needed_by(parts.items) & ~mask:
        raise NoCount("it depends on a row of another relation")
    return ", ".join(item.sql for item in ordered(parts.items))


def where_clause(conditions: Iterable[str]) -> str:
    """Return WHERE with every condition once, "" without conditions."""
    distinct = dict.fromkeys(conditions)
    return f" WHERE {' AND '.join(distinct)}" if distinct else ""


def needed_by(items: Iterable[Item]) -> int:
    """Return the relations whose rows some items need."""
    return reduce(or_, (item.needs for item in items), 0)


def _brought_by(items: Iterable[Item]) -> int:
    return reduce(or_, (item.relations for item in items), 0)


def ordered(items: Sequence[Item]) -> list[Item]:
    """Put items behind those whose rows they need."""
    placed: list[Item] = []
    waiting = list(items)
    while waiting:
        coming = _brought_by(waiting)
        ready = next((item for item in waiting if not item.needs & coming), waiting[0])
        waiting.remove(ready)
        placed.append(ready)
    return placed


def join_side(items: Sequence[Item]) -> str:
    """Return items as one side of a join."""
    listed = [item.sql for item in ordered(items)]
    return listed[0] if len(listed) == 1 else f"({' CROSS JOIN '.join(listed)})"


def joined_item(sql: str, items: Sequence[Item]) -> Item:
    """Return a join of items, in parentheses, as one item."""
    return Item(sql, _brought_by(items), needed_by(items))


def filtered_side(parts: Parts, mask: int) -> str:
    """Return a side of a FULL JOIN with its filters below the join: PostgreSQL plans the join with a row of no columns away."""
    if not parts.conditions:
        return join_side(parts.items)
    return f'({join_side(parts.items)} JOIN (SELECT) AS "#f{mask}" ON {" AND ".join(dict.fromkeys(parts.conditions))})'
