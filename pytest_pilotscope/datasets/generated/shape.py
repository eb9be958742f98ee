"""The shape of a workload's queries, without their constants: joins, sizes, filtered columns, kinds of conditions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pytest_pilotscope.queries.joins import Relation, Schema
from pytest_pilotscope.queries.plainparser import PlainQuery, parse_plain
from pytest_pilotscope.queries.predicates import And, Comparison, Condition, Not, Or
from pytest_pilotscope.queries.queries import Query


class Column(NamedTuple):
    """A column of a table."""

    table: str
    column: str


class Edge(NamedTuple):
    """Two columns that join relations, in ascending order."""

    left: Column
    right: Column


def edge(one: Column, other: Column) -> Edge:
    """Return the edge of two columns in any order."""
    return Edge(*sorted((one, other)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """
    The shape of a workload: `edges` with their number of occurrences, `sizes` in relations, one for each query, the largest number of
    `copies` of a table in one query, the `filtered` columns by table, and the `kinds` of conditions (operators and condition classes).
    """

    edges: Mapping[Edge, int]
    sizes: tuple[int, ...]
    copies: Mapping[str, int]
    filtered: Mapping[str, frozenset[str]]
    kinds: frozenset[str]


def shape_of(queries: Iterable[Query], schema: Schema, references: Iterable[Edge]) -> Shape:
    """Return the shape of the conjunctive queries that can be read without a planner, with the edges of foreign keys added."""
    edges: Counter[Edge] = Counter(references)
    sizes: list[int] = []
    copies: Counter[str] = Counter()
    filtered: dict[str, frozenset[str]] = {}
    kinds: set[str] = set()
    for query in filter(None, (parse_plain(query.sql, schema) for query in queries)):
        edges.update(_edges(query))
        sizes.append(len(query.relations))
        for table, count in Counter(relation.table for relation in query.relations.values()).items():
            copies[table] = max(copies[table], count)
        for relation in query.relations.values():
            columns = {column for predicate in relation.predicates for column in predicate.columns}
            filtered[relation.table] = filtered.get(relation.table, frozenset()) | columns
            kinds.update(_kinds(relation))
    return Shape(edges=edges, sizes=tuple(sizes) or (1, 2, 3), copies=copies, filtered=filtered, kinds=frozenset(kinds))


def _kinds(relation: Relation) -> Iterator[str]:
    """Yield the kinds of a relation's conditions; both ends of a range of one column are a BETWEEN, too."""
    comparisons = [one.condition for one in relation.predicates if isinstance(one.condition, Comparison)]
    lows, highs = ({one.column for one in comparisons if one.operator == operator} for operator in (">=", "<="))
    if lows & highs:
        yield "Between"
    for predicate in relation.predicates:
        yield from kinds_of(predicate.condition)


def kinds_of(condition: Condition) -> Iterator[str]:
    """Yield the operators and classes of a condition and of the conditions in it."""
    if isinstance(condition, Comparison):
        yield condition.operator
    elif isinstance(condition, Not):
        yield from (f"Not{kind}" for kind in kinds_of(condition.child))
    elif isinstance(condition, And | Or):
        yield type(condition).__name__
        yield from (kind for child in condition.children for kind in kinds_of(child))
    else:
        yield type(condition).__name__


def _edges(query: PlainQuery) -> Iterator[Edge]:
    for left, right in query.equalities:
        if left.alias != right.alias:
            tables = query.relations[left.alias].table, query.relations[right.alias].table
            yield edge(Column(tables[0], left.column), Column(tables[1], right.column))
