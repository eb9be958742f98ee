"""
A query as relations, predicates and equalities: what an optimizer sees, and what its cardinalities are about.

`parse` takes the SQL apart once; everything else (subplans, labels, features) is derived from the `JoinQuery`.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from pytest_pilotscope.core.connectivity import planner_subsets
from pytest_pilotscope.core.predicates import Predicate, constant_key, quote_identifier
from pytest_pilotscope.core.specialjoins import FromClause, Source, SpecialJoin, aliases_of, ordered_subsets, special_joins

Subplan: TypeAlias = frozenset[str]
"""The aliases of a set of relations."""

Schema: TypeAlias = Mapping[str, Mapping[str, str]]
"""Table -> column -> type, all as in the catalog (`format_type`)."""


class ColumnRef(NamedTuple):
    """A column of a relation of a query."""

    alias: str
    column: str


@dataclass(frozen=True, kw_only=True)
class Relation:
    """A table as used in a query, with the predicates that PostgreSQL applies to it alone."""

    alias: str
    table: str
    predicates: tuple[Predicate, ...]

    @cached_property
    def filter_key(self) -> tuple[str, ...]:
        """Table and sorted predicates: equal for relations that hold the same rows, whatever their query or alias."""
        return (self.table, *sorted({predicate.sql for predicate in self.predicates}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """A condition on several relations that is not an equality of two columns; `sql` is qualified with the aliases."""

    aliases: frozenset[str]
    sql: str


@dataclass(frozen=True, kw_only=True)
class JoinQuery:
    """
    The join part of one SELECT: what is left when the select list, grouping and ordering are taken away.

    `equalities` are the ones written in the query, `classes` their transitive closure (PostgreSQL's equivalence classes):
    each holds at least two columns, ordered by relation, and all of its columns are equal in every row of every subplan
    that holds them. `relations` keeps the order of the FROM clause. `sources` are the items of the FROM clause: all of the
    aliases, unless there are special joins (outer joins, EXISTS and IN). `subqueries` are the SQL of those in its conditions
    that PostgreSQL plans on their own.
    """

    sql: str
    relations: Mapping[str, Relation]
    equalities: tuple[tuple[ColumnRef, ColumnRef], ...]
    residuals: tuple[Residual, ...]
    classes: tuple[tuple[ColumnRef, ...], ...]
    sources: tuple[Source, ...]
    subqueries: tuple[str, ...] = ()

    @property
    def countable(self) -> bool:
        """True when every join is an inner one by equality of columns, so that subplans can be counted without joining."""
        return not self.residuals and not self.special_joins

    @property
    def reason(self) -> str | None:
        """Why the query is not countable, or None."""
        if self.countable:
            return None
        joins = [f"{join.kind} JOIN" + (f" ON {' AND '.join(join.conditions)}" if join.conditions else "") for join in self.special_joins]
        return "joined by more than equalities of columns: " + "; ".join([*(residual.sql for residual in self.residuals), *joins])

    @cached_property
    def special_joins(self) -> tuple[SpecialJoin, ...]:
        """The outer, semi and anti joins, inner ones first."""
        return tuple(special_joins(self.sources))

    @cached_property
    def aliases(self) -> tuple[str, ...]:
        """The aliases in the order of the FROM clause: bit i of a mask is `aliases[i]`."""
        return tuple(self.relations)

    @cached_property
    def neighbours(self) -> tuple[int, ...]:
        """
        For each relation the mask of those that PostgreSQL has a join clause for.

        They share an equivalence class, a residual, or a constant: `a.x = 2 AND b.y = 2` is one equivalence class too.
        """
        bit = {alias: 1 << position for position, alias in enumerate(self.aliases)}
        adjacent = dict.fromkeys(self.aliases, 0)
        groups = [frozenset(ref.alias for ref in members) for members in self.classes]
        groups += [residual.aliases for residual in self.residuals]
        groups += [join.needs_left | join.needs_right for join in self.special_joins if join.conditions]
        for group in [*groups, *self.constants.values()]:
            mask = sum(bit[alias] for alias in group)
            for alias in group:
                adjacent[alias] |= mask & ~bit[alias]
        return tuple(adjacent[alias] for alias in self.aliases)

    @cached_property
    def constants(self) -> Mapping[object, frozenset[str]]:
        """For each constant that columns are equal to, by value and type, the relations that have such a column."""
        found: dict[object, frozenset[str]] = {}
        for relation in self.relations.values():
            for predicate in relation.predicates:
                key = constant_key(predicate.condition)
                if key is not None:
                    found[key] = found.get(key, frozenset()) | {relation.alias}
        return found

    @cached_property
    def residual_masks(self) -> tuple[int, ...]:
        """The relations of each residual, as bit masks."""
        return tuple(self.mask(residual.aliases) for residual in self.residuals)

    def equalities_only(self, mask: int) -> bool:
        """Tell whether a subplan has no residual and no special join within it: only then can it be counted without joining."""
        if any(mask & residual == residual for residual in self.residual_masks):
            return False
        sides = [(self.mask(aliases_of(join.left)), self.mask(aliases_of(join.right))) for join in self.special_joins]
        return not any(mask & left and mask & right for left, right in sides)

    @cached_property
    def masks(self) -> tuple[int, ...]:
        """The subplans as bit masks, in the order of `subplans`."""
        if not self.special_joins:
            return tuple(planner_subsets(self.neighbours))
        return tuple(ordered_subsets(self.sources, self.aliases, self.neighbours))

    def subplans(self) -> tuple[Subplan, ...]:
        """
        List the sets of relations that PostgreSQL's exhaustive join search builds, single relations included.

        These are the subsets connected under the transitive closure of the equalities (and by residuals), fewer
        relations first. Where the query is a Cartesian product, the products that the search needs are included.
        """
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

    def count_sql(self, subplan: Subplan) -> str:
        """Return `SELECT count(*)` over a subplan, with all predicates and the closure of the equalities written out."""
        tested = [aliases_of(join.right) for join in self.special_joins if join.kind == "SEMI" and join.tests(subplan)]
        clause = FromClause(lambda alias: filtered_sql(self.relations[alias]), lambda side: self._conditions(subplan, side, tested))
        items, pending = clause.items(self.sources, subplan)
        conditions = [*pending, *self._conditions(subplan, frozenset(self.aliases), tested)]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return f"SELECT count(*) FROM {', '.join(items)}{where}"  # noqa: S608  # identifiers are quoted, conditions rendered by us

    def _conditions(self, subplan: Subplan, region: frozenset[str], tested: Sequence[frozenset[str]]) -> list[str]:
        """
        Return the conditions between relations of a subplan that belong to a region: a side of a special join, or the query itself.

        The relations of a semi join's right side in `tested` are out of reach of the others; given as region, what ties them is returned.
        """
        if region in tested:
            sides = [side for join in self.special_joins for side in join.nullable if region < side]
            around = min(sides, key=len, default=frozenset(self.aliases))
            return [sql for aliases, sql in self._between(subplan, around, [region]) if aliases & region]
        within = [side for side in tested if side < region]
        return [sql for aliases, sql in self._between(subplan, region, within) if not any(aliases & side for side in within)]

    def _between(self, subplan: Subplan, region: frozenset[str], tested: Sequence[frozenset[str]]) -> Iterator[tuple[Subplan, str]]:
        """Yield the conditions of a region, with their relations; equal columns of a tested side are tied to one outside of it."""
        inside = [side for join in self.special_joins for side in join.nullable if side < region]  # with conditions of their own
        for members in self.classes:
            refs = [ref for ref in members if ref.alias in subplan]
            if {ref.alias for ref in members} <= region and not any({ref.alias for ref in members} <= side for side in inside):
                outside = [ref for ref in refs if not any(ref.alias in side for side in tested)]
                for group in (outside, *([*outside[:1], *(ref for ref in refs if ref.alias in side)] for side in tested)):
                    pairs = ((a, b) for a, b in pairwise(group) if a.alias != b.alias)
                    yield from ((frozenset((a.alias, b.alias)), f"{_column_sql(a)} = {_column_sql(b)}") for a, b in pairs)
        for residual in self.residuals:
            if residual.aliases <= subplan & region and not any(residual.aliases <= side for side in inside):
                yield residual.aliases, f"({residual.sql})"


def parse(sql: str, schema: Schema) -> JoinQuery:
    """
    Take a SELECT apart. The answer is kept for the (text, schema object) pair: a schema must not be changed afterwards.

    Raises `UnsupportedQuery` for what has no subplans in terms of aliases: not one SELECT, WITH, subqueries that PostgreSQL
    plans on their own and that refer to the query around them, tables or columns that are not in the schema.
    """
    key = (sql, id(schema))
    known = _PARSED.get(key)
    if known is not None and known[0] is schema:
        _PARSED.move_to_end(key)
        return known[1]
    query = parse_anew(sql, schema)
    _PARSED[key] = (schema, query)
    if len(_PARSED) > _CACHE_SIZE:
        _PARSED.popitem(last=False)
    return query


def parse_anew(sql: str, schema: Schema) -> JoinQuery:
    """Take a SELECT apart as `parse` does, without keeping the answer: for what is timed."""
    from pytest_pilotscope.core.plainparser import parse_plain

    plain = parse_plain(sql, schema)
    if plain is not None:
        return plain
    from pytest_pilotscope.core.joinparser import parse_query  # here, because sqlglot takes long to import

    return parse_query(sql, schema)


_CACHE_SIZE = 20_000
_PARSED: OrderedDict[tuple[str, int], tuple[Schema, JoinQuery]] = OrderedDict()  # holds the schema, so that its id stays taken


@lru_cache(maxsize=1024)
def key_family(column_type: str) -> str | None:
    """
    Return the name of the set of types within which `=` compares columns without changing one of them.

    The integer types form one, text and varchar another (binary coercible), any other type is its own. PostgreSQL puts
    the columns of an equality into one equivalence class only within such a set. None: no equality of such columns is
    one of codes (json, geometry: no btree equality; char(n) beside text is cast).
    """
    return _FAMILIES.get(_LENGTH.sub("", column_type.lower()))


_LENGTH = re.compile(r"\([^)]*\)")  # character varying(10), timestamp(3) without time zone
_FAMILIES: dict[str, str] = {
    **dict.fromkeys(("smallint", "integer", "bigint", "int", "int2", "int4", "int8", "serial", "bigserial"), "integer"),
    **dict.fromkeys(("text", "character varying", "varchar"), "text"),
    **dict.fromkeys(("character", "char", "bpchar"), "character"),
    **dict.fromkeys(("timestamp without time zone", "timestamp"), "timestamp"),
    **dict.fromkeys(("timestamp with time zone", "timestamptz"), "timestamptz"),
    **dict.fromkeys(("numeric", "decimal"), "numeric"),
    **dict.fromkeys(("double precision", "float8", "float"), "double"),
    **dict.fromkeys(("real", "float4"), "real"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    "date": "date",
    "uuid": "uuid",
}


def filtered_sql(relation: Relation) -> str:
    """Return a relation with its predicates as an item of a FROM clause."""
    table, alias = quote_identifier(relation.table), quote_identifier(relation.alias)
    if not relation.predicates:
        return f"{table} AS {alias}"
    conditions = " AND ".join(f"({sql})" for sql in sorted({predicate.sql for predicate in relation.predicates}))
    return f"(SELECT * FROM {table} WHERE {conditions}) AS {alias}"  # noqa: S608  # identifiers are quoted, conditions rendered by us


def _column_sql(ref: ColumnRef) -> str:
    return f"{quote_identifier(ref.alias)}.{quote_identifier(ref.column)}"
