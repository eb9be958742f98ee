"""
How subplans are written for the library, and how they are found without it.

A key of a setting is the aliases of a subplan, separated by blanks, maybe after the number of a query level: "a b", "2:x y".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from pytest_pilotscope.core.joins import ColumnRef, JoinQuery, LeveledSubplan, Relation, Schema
from pytest_pilotscope.core.plainparser import PlainQuery, parse_plain, read_plain
from pytest_pilotscope.core.predicates import quote_identifier
from pytest_pilotscope.postgres.catalog import read_schema

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_PLAIN_ALIAS = re.compile(r"[^\s\",:|()]+")
_SCHEMAS: WeakKeyDictionary[Session, Schema] = WeakKeyDictionary()


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

    On plain queries (`core.plainparser`) this gives what the planner itself considers; a relation that it finds superfluous and removes is
    asked for all the same. Raises `UnsupportedQuery` for everything else: its subplans are known to the planner alone.
    """
    query = _parsed(session, sql)
    classes = _planner_classes(query.equalities)
    with session.rolled_back():
        session.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        return {subplan: session.explain(_rows_sql(query, subplan, classes)).rows for subplan in query.subplans()}


def _rows_sql(query: JoinQuery, subplan: frozenset[str], classes: Iterable[Sequence[ColumnRef]]) -> str:
    """The join of a subplan, such that the topmost node of its plan has the rows that the whole query's planner would think of."""
    sources = [_filtered_sql(query.relations[alias]) for alias in query.aliases if alias in subplan]
    conditions = [
        f"{_column_sql(left)} = {_column_sql(right)}"
        for members in classes
        for left, right in pairwise(ref for ref in members if ref.alias in subplan)
    ]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT 1 FROM {', '.join(sources)}{where}"  # noqa: S608 - identifiers are quoted, conditions come from the parsed query


def _filtered_sql(relation: Relation) -> str:
    conditions = " AND ".join(predicate.sql for predicate in relation.predicates) or "TRUE"
    return f"(SELECT * FROM {quote_identifier(relation.table)} WHERE {conditions}) AS {quote_identifier(relation.alias)}"  # noqa: S608 - rendered by us


def _column_sql(ref: ColumnRef) -> str:
    return f"{quote_identifier(ref.alias)}.{quote_identifier(ref.column)}"


def _planner_classes(equalities: Iterable[tuple[ColumnRef, ColumnRef]]) -> list[list[ColumnRef]]:
    """
    Put equal columns together in the planner's order (process_equivalence in equivclass.c).

    Of several equalities between two sides it takes the first, so that the order decides on the estimate.
    """
    classes: list[list[ColumnRef]] = []
    for left, right in equalities:
        first = next((members for members in classes if left in members), None)
        second = next((members for members in classes if right in members), None)
        if first is None and second is None:
            classes.append([left, right])
        elif first is None or second is None:
            (first or second or []).append(left if first is None else right)
        elif first is not second:
            first += second
            classes.remove(second)
    return classes


def _parsed(session: Session, sql: str) -> PlainQuery:
    """The parsed statement. The schema is read once, and again if it may have changed since."""
    known = _SCHEMAS.get(session)
    if known is None or (found := parse_plain(sql, known)) is None:
        known = _SCHEMAS[session] = read_schema(session)
        found = read_plain(sql, known)
    return found
