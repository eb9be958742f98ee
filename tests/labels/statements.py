"""The planner's report of simple queries, made without a planner: `FROM t AS a, u WHERE a.x = u.y AND a.z > 1`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from pytest_pilotscope.queries.connectivity import planner_subsets
from pytest_pilotscope.queries.joins import ColumnRef, JoinQuery, KeyType, Relation, Schema, Subplan
from pytest_pilotscope.queries.meaning import CountSql, Level, NoCount, Statement, Volatility
from pytest_pilotscope.queries.predicates import ColumnComparison, Comparison, Condition, Opaque, Predicate, predicate

_QUERY = re.compile(r"SELECT .*? FROM (.*?)(?: WHERE (.*))?", re.DOTALL)
_EQUALITY = re.compile(r"(\w+)\.(\w+) = (\w+)\.(\w+)")
_COMPARISON = re.compile(r"(\w+)\.(\w+) (=|<=|>=|<|>) (-?\d+)")
_COLUMN = re.compile(r"\b(\w+)\.(\w+)")
NO_SQL = "no_sql("
"""A condition with this word has no SQL."""
VOLATILE = "random()"
"""A condition with this text is volatile."""


class Residual(NamedTuple):
    """A condition on several relations that is no equality of columns."""

    aliases: frozenset[str]
    sql: str


@dataclass(frozen=True, kw_only=True)
class BuiltLevel(Level):
    """A query level that was read from its text."""

    residuals: tuple[Residual, ...]

    def in_memory(self, mask: int) -> bool:
        """Tell whether the set has equalities only."""
        subplan = self.query.subplan(mask)
        return not any(residual.aliases <= subplan for residual in self.residuals)

    def count_sql(self, mask: int) -> CountSql:
        """Return the join, filters in subqueries."""
        subplan = self.query.subplan(mask)
        conditions = [residual.sql for residual in self.residuals if residual.aliases <= subplan]
        if any(NO_SQL in condition for condition in conditions):
            raise NoCount("it has no SQL")
        for members in self.query.classes:
            present = [f"{ref.alias}.{ref.column}" for ref in members if ref.alias in subplan]
            conditions += [f"{left} = {right}" for left, right in pairwise(present)]
        sources = [_filtered(relation) for relation in self.query.relations.values() if relation.alias in subplan]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        volatility: Volatility = "v" if any(VOLATILE in condition for condition in conditions) else "i"
        return CountSql(f"SELECT count(*) FROM {', '.join(sources)}{where}", volatility)


@dataclass(frozen=True, kw_only=True)
class BuiltStatement(Statement):
    """A statement of one level."""

    def subplans(self) -> Mapping[Subplan, tuple[Level, int]]:
        """Return the sets by their aliases."""
        [level] = self.levels
        return {level.query.subplan(mask): (level, mask) for mask in level.query.masks}


def built(sql: str, schema: Schema) -> BuiltStatement:
    """Read a query; columns are always written with their relation."""
    matched = _QUERY.fullmatch(sql)
    assert matched is not None, sql
    tables = dict(_relation(item) for item in matched[1].split(", "))
    conditions = matched[2].split(" AND ") if matched[2] else []
    equalities = [ends for text in conditions if (found := _EQUALITY.fullmatch(text)) for ends in [_ends(*found.groups())]]
    classes = _classes(equalities, list(tables))
    predicates: dict[str, list[Predicate]] = {alias: [] for alias in tables}
    residuals = []
    for text in conditions:
        aliases = frozenset(alias for alias, _ in _COLUMN.findall(text))
        if len(aliases) > 1 and not _EQUALITY.fullmatch(text):
            residuals.append(Residual(aliases, text))
        elif len(aliases) == 1:
            [alias] = aliases
            predicates[alias].append(predicate(_condition(text)))
    for members in classes:  # the planner derives these
        for left, right in pairwise(members):
            if left.alias == right.alias:
                predicates[left.alias].append(predicate(ColumnComparison(left.column, "=", right.column)))
    relations = {alias: Relation(alias=alias, table=table, predicates=tuple(predicates[alias])) for alias, table in tables.items()}
    keys = tuple(_key(schema[tables[members[0].alias]][members[0].column]) for members in classes)
    masks = _masks(list(tables), classes, residuals)
    query = JoinQuery(sql=sql, relations=relations, classes=classes, masks=masks, keys=keys)
    without_level = BuiltStatement(sql=sql, levels=(), parameters={}, subqueries={})
    level = BuiltLevel(
        id=1,
        outermost=True,
        query=query,
        rows={},
        sources=(),
        clauses=(),
        pairs={},
        empty=frozenset(),
        placeholders={},
        result=None,
        statement=without_level,
        residuals=tuple(residuals),
    )
    return replace(without_level, levels=(level,))


def _relation(item: str) -> tuple[str, str]:
    table, *alias = item.replace(" AS ", " ").split()
    return (alias[0] if alias else table), table


def _ends(alias: str, column: str, other: str, other_column: str) -> tuple[ColumnRef, ColumnRef]:
    return ColumnRef(alias, column), ColumnRef(other, other_column)


def _classes(equalities: list[tuple[ColumnRef, ColumnRef]], aliases: list[str]) -> tuple[tuple[ColumnRef, ...], ...]:
    groups: list[set[ColumnRef]] = []
    for ends in equalities:
        touched = [group for group in groups if group & set(ends)]
        groups = [*(group for group in groups if group not in touched), set(ends).union(*touched)]
    return tuple(tuple(sorted(group, key=lambda ref: (aliases.index(ref.alias), ref.column))) for group in groups)


def _condition(text: str) -> Condition:
    compared = _COMPARISON.fullmatch(text)
    if compared is not None:
        return Comparison(compared[2], compared[3], int(compared[4]))  # type: ignore[arg-type]  # the pattern has operators only
    columns = tuple(column for _, column in _COLUMN.findall(text))
    return Opaque(columns, _COLUMN.sub(r"\2", text))


def _key(column_type: str) -> KeyType:
    return KeyType("integer" if column_type in ("integer", "bigint", "smallint") else "text", True)


def _masks(aliases: list[str], classes: tuple[tuple[ColumnRef, ...], ...], residuals: list[Residual]) -> tuple[int, ...]:
    groups = [frozenset(ref.alias for ref in members) for members in classes] + [residual.aliases for residual in residuals]
    neighbours = [
        sum(1 << aliases.index(other) for other in frozenset().union(*(group for group in groups if alias in group)) - {alias})
        for alias in aliases
    ]
    return tuple(planner_subsets(neighbours))


def _filtered(relation: Relation) -> str:
    conditions = " AND ".join(f"({one.sql})" for one in relation.predicates)
    return f"(SELECT * FROM {relation.table}{f' WHERE {conditions}' if conditions else ''}) AS {relation.alias}"
