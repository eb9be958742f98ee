"""
The relations of a query, their predicates, and the classes of columns that its joins make equal.

The planner's report (`meaning_report`) and the parser of plain queries (`plainparser`) both make a `JoinQuery`. Labels are counted from the
first; MSCN's features are made of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

from pytest_pilotscope.queries.predicates import Predicate

Subplan: TypeAlias = frozenset[str]
"""The aliases of a set of relations."""

Schema: TypeAlias = Mapping[str, Mapping[str, str]]
"""Table -> column -> type, all as in the catalog (`format_type`)."""


class LeveledSubplan(frozenset[str]):
    """
    A set of aliases of one query level; it equals no frozenset without a level.

    Levels are numbered in the order in which PostgreSQL plans them: first subqueries in expressions and CTEs, then subqueries in FROM, the
    query itself last. The same statement under the same settings has the same numbers.
    """

    level: int

    def __new__(cls, level: int, aliases: Iterable[str]) -> LeveledSubplan:
        """Make the set of `aliases` at query level `level`, from 1."""
        made = super().__new__(cls, aliases)
        made.level = level
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LeveledSubplan) and self.level == other.level and frozenset(self) == frozenset(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((self.level, frozenset(self)))

    def __repr__(self) -> str:
        return f"LeveledSubplan({self.level}, {sorted(self)})"


class ColumnRef(NamedTuple):
    """A column of a relation of a query."""

    alias: str
    column: str


class KeyType(NamedTuple):
    """
    The type in which the columns of an equivalence class are compared.

    `name` is the type as SQL (with COLLATE where it is not the type's own), "integer" for smallint, integer and bigint, also mixed.
    `bytewise` tells that two values are equal exactly when their binary forms are; the planner's library asks the operator class.
    """

    name: str
    bytewise: bool


@dataclass(frozen=True, kw_only=True)
class Relation:
    """
    A table as used in a query, with the predicates that PostgreSQL applies to it alone.

    `table` is the name as in a `Schema`, "" for a relation that is no table (a subquery, a function). `source` is the SQL that reads the
    table: its quoted, schema-qualified name, after ONLY where members are left out.
    """

    alias: str
    table: str
    predicates: tuple[Predicate, ...]
    source: str = ""

    @cached_property
    def filter_key(self) -> tuple[str, ...]:
        """Table and sorted predicates: equal for relations that hold the same rows, whatever their query or alias."""
        return (self.source or self.table, *sorted({predicate.sql for predicate in self.predicates}))


@dataclass(frozen=True, kw_only=True)
class JoinQuery:
    """
    The relations of one query level and the columns that its joins make equal.

    Bit i of a mask is the i-th relation of `relations`. `classes` each hold at least two columns, ordered by relation; all of them are
    equal in every row of every set that is joined by equalities only. `masks` are the sets of relations, fewer relations first. `keys` are
    the types of the classes, as far as the planner reported them: empty for a query that was read from its text.
    """

    sql: str
    relations: Mapping[str, Relation]
    classes: tuple[tuple[ColumnRef, ...], ...]
    masks: tuple[int, ...]
    keys: tuple[KeyType, ...] = ()

    @cached_property
    def aliases(self) -> tuple[str, ...]:
        """The aliases in the order of the bits."""
        return tuple(self.relations)

    def subplans(self) -> tuple[Subplan, ...]:
        """Return the sets of relations, in the order of `masks`."""
        return self._subplans

    @cached_property
    def _subplans(self) -> tuple[Subplan, ...]:
        return tuple(self.subplan(mask) for mask in self.masks)

    def subplan(self, mask: int) -> Subplan:
        """Return the aliases of a bit mask."""
        return frozenset([alias for bit, alias in self._bits if mask & bit])

    @cached_property
    def _bits(self) -> tuple[tuple[int, str], ...]:
        return tuple((1 << position, alias) for position, alias in enumerate(self.aliases))

    def mask(self, subplan: Subplan) -> int:
        """Return the bit mask of a set of aliases."""
        return sum(1 << position for position, alias in enumerate(self.aliases) if alias in subplan)
