"""Labels of queries with subqueries that PostgreSQL plans on their own: each is a query level, with subplans of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pytest_pilotscope.core.joins import Schema, Subplan, parse
from pytest_pilotscope.errors import UnsupportedQuery
from pytest_pilotscope.labels.cache import Label
from pytest_pilotscope.postgres.subplans import LeveledSubplan


def subqueries_of(sql: str, schema: Schema) -> list[str]:
    """Return the SQL of the subqueries in the conditions of a query that are planned on their own, those of subqueries included."""
    try:
        found = parse(sql, schema).subqueries
    except UnsupportedQuery:
        return []
    return [text for subquery in found for text in (subquery, *subqueries_of(subquery, schema))]


def by_level(
    asked: Iterable[Subplan], query: Mapping[Subplan, Label], subqueries: Sequence[Mapping[Subplan, Label]]
) -> Mapping[Subplan, Label]:
    """
    Return the labels of a query and its subqueries by the subplans that the planner asks about.

    The query itself is the last level. A subquery is the one level that has exactly its relations; where there are several, none is
    taken, since the labels of one could be given to another.
    """
    levels: dict[int, frozenset[str]] = {}
    for subplan in asked:
        if isinstance(subplan, LeveledSubplan):
            levels[subplan.level] = levels.get(subplan.level, frozenset()) | subplan
    if not levels:
        return query
    itself = max(levels)
    found: dict[Subplan, Label] = {LeveledSubplan(itself, subplan): label for subplan, label in query.items()}
    inner = {level: aliases for level, aliases in levels.items() if level != itself}
    for level, aliases in inner.items():
        fitting = [labels for labels in subqueries if frozenset().union(*labels) == aliases]
        if len(fitting) == 1 and list(inner.values()).count(aliases) == 1:
            found |= {LeveledSubplan(level, subplan): label for subplan, label in fitting[0].items()}
    return found
