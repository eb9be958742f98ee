"""
What the planner means by each set of relations of a statement, as its library reported it (`pilotscope.meaning`).

The planner decides by rules of its own, which change from version to version, what a set of relations is: constants that reach a relation
through an equality, what it takes out of an OR, outer joins that a condition reduces, joins that it removes. None of that is known here.
The report names for every set the join that makes it; this module puts the SQL that counts the set together from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from pytest_pilotscope.core.joins import JoinQuery, Subplan

Volatility: TypeAlias = Literal["i", "s", "v"]
"""As in pg_proc.provolatile: immutable, stable within a statement, volatile. A count that is not immutable is not kept."""


class NoCount(Exception):
    """A set of relations that no SQL counts; the text says why."""


class CountSql(NamedTuple):
    """A statement that counts the rows of a set."""

    sql: str
    volatility: Volatility


@dataclass(frozen=True, kw_only=True)
class Level:
    """
    One query level: the statement itself, or a subquery that is planned on its own.

    `query` has all its relations and classes, and as `masks` the sets that the planner considered. `rows` are the planner's estimates by
    mask.
    """

    id: int
    query: JoinQuery
    rows: Mapping[int, float]

    def in_memory(self, mask: int) -> bool:
        """Tell whether a set is an inner join of tables by equality of plain columns, each with immutable predicates only."""
        raise NotImplementedError

    def count_sql(self, mask: int) -> CountSql:
        """Return the SQL that counts a set; raises `NoCount`."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A planned statement: its levels, inner ones first, itself last; none for a statement without relations."""

    sql: str
    levels: tuple[Level, ...]

    def subplans(self) -> Mapping[Subplan, tuple[Level, int]]:
        """Return level and mask of every set by the planner's name for it: a `LeveledSubplan` where there are several levels."""
        raise NotImplementedError
