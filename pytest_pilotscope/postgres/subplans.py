"""
How subplans are written for the library, and how they are found without it.

A key of a setting is the aliases of a subplan, separated by blanks, maybe after the number of a query level: "a b", "2:x y".
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pytest_pilotscope.core.joins import JoinQuery, Schema, parse
from pytest_pilotscope.errors import UnsupportedQuery
from pytest_pilotscope.postgres.catalog import read_schema

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_PLAIN_ALIAS = re.compile(r"[^\s\",:|()]+")
_COUNT = "SELECT count(*) FROM "
_SCHEMAS: WeakKeyDictionary[Session, Schema] = WeakKeyDictionary()


class LeveledSubplan(frozenset[str]):
    """
    A set of aliases that is meant for one query level only; it equals no plain set.

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


def alias_text(alias: str) -> str:
    """An alias as the library reads it: in double quotes if it has characters of the notation."""
    return alias if _PLAIN_ALIAS.fullmatch(alias) else '"' + alias.replace('"', '""') + '"'


def key_text(subplan: frozenset[str]) -> str:
    """A subplan as a key of the library's settings."""
    text = " ".join(alias_text(alias) for alias in sorted(subplan))
    return f"{subplan.level}:{text}" if isinstance(subplan, LeveledSubplan) else text


def explained_subplans(session: Session, sql: str) -> dict[frozenset[str], float]:
    """
    Return the planner's estimates by asking for one connected set of relations after the other, with stock PostgreSQL.

    On inner joins this gives what the planner itself considers. Raises `UnsupportedQuery` for anything else.
    """
    query = _parsed(session, sql)
    with session.rolled_back():
        session.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        return {subplan: session.explain(_rows_sql(query, subplan)).rows for subplan in query.subplans()}


def _rows_sql(query: JoinQuery, subplan: frozenset[str]) -> str:
    """The join itself instead of its count, so that the topmost node has the rows."""
    return "SELECT 1 FROM " + query.count_sql(subplan).removeprefix(_COUNT)  # noqa: S608 - made from the parsed query


def _parsed(session: Session, sql: str) -> JoinQuery:
    """The parsed statement. The schema is read once, and again if it may have changed since."""
    known = _SCHEMAS.get(session)
    if known is not None:
        try:
            return parse(sql, known)
        except UnsupportedQuery:
            del _SCHEMAS[session]
    _SCHEMAS[session] = read_schema(session)
    return parse(sql, _SCHEMAS[session])
