"""The planner's report as mscn's features: the sets of relations that have features, and the check of a query's text against it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.mscn.featurize import Featurizer
from pytest_pilotscope.errors import UnsupportedQuery
from pytest_pilotscope.queries.joins import JoinQuery, Subplan

if TYPE_CHECKING:
    from pytest_pilotscope.labels import Label
    from pytest_pilotscope.queries.meaning import Statement

NOTHING_COUNTED = "none of its sets of relations is an inner join of tables by equality of columns that was counted"


def to_steer(statement: Statement, featurizer: Featurizer) -> JoinQuery:
    """Return the query of a statement whose sets all have features; raises `UnsupportedQuery`, which names a set without features."""
    level = statement.outermost
    if level is None:
        raise UnsupportedQuery("it has no relations", statement.sql)
    if any(other is not level and other.sources for other in statement.levels):
        raise UnsupportedQuery("it has subqueries that PostgreSQL plans on their own", statement.sql)
    for mask in level.query.masks:
        if not level.in_memory(mask):
            named = ", ".join(sorted(level.query.subplan(mask)))
            raise UnsupportedQuery(f"{{{named}}} is no inner join of tables by equality of columns", statement.sql)
    check_features(level.query, level.query.aliases, featurizer)
    return level.query


def to_learn(statement: Statement, labels: Mapping[Subplan, Label], featurizer: Featurizer) -> tuple[JoinQuery, dict[int, int]]:
    """Return the query of a statement and the true rows of its sets that have features; raises `UnsupportedQuery` if none has."""
    level = statement.outermost
    counted = {key: label.rows for key, label in labels.items() if label.rows is not None}
    rows = {mask: counted[key] for key, (at, mask) in statement.subplans().items() if at is level and key in counted and at.in_memory(mask)}
    if level is None or not rows:
        raise UnsupportedQuery(NOTHING_COUNTED, statement.sql)
    check_features(level.query, frozenset().union(*map(level.query.subplan, rows)), featurizer)
    return level.query, rows


def check_features(query: JoinQuery, aliases: Iterable[str], featurizer: Featurizer) -> None:
    """Raise `UnsupportedQuery` for a table that is not in the vocabulary, and for a predicate that fails on a sample row."""
    for relation in map(query.relations.__getitem__, aliases):
        if relation.table not in featurizer.vocabulary.tables:
            raise UnsupportedQuery(f"table {relation.table!r} is not in the schema", query.sql)
        if featurizer.samples is not None:
            featurizer.samples.bitmap(relation)


def text_says(planned: JoinQuery, parsed: JoinQuery, subplans: Collection[Subplan], featurizer: Featurizer) -> bool:
    """Tell whether a query that was parsed by its text has exactly the planner's sets and their features."""
    return set(parsed.subplans()) == set(subplans) and featurizer.described(parsed) == featurizer.described(planned)
