"""
The columns that a query reads, and those that an index can help with.

The reader takes any SELECT that sqlglot can parse, with subqueries, WITH and outer joins, because an index needs no join graph.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.scope import Scope, traverse_scope

from pytest_pilotscope.errors import UnsupportedQuery
from pytest_pilotscope.postgres.indexes import Index
from pytest_pilotscope.queries.joins import Schema
from pytest_pilotscope.queries.queries import Query

Node: TypeAlias = Any
"""A node of sqlglot's tree; the classes it is typed with differ between releases."""

_COMPARISONS = (exp.EQ, exp.LT, exp.LTE, exp.GT, exp.GTE)
_CLAUSES = (exp.Where, exp.Join, exp.Group, exp.Order, exp.Having)


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexedQuery:
    """
    A query for index selection: per table, the columns it reads and those that an index can search or sort.

    A table has no columns in `referenced` if the query only counts its rows.
    """

    id: str
    sql: str
    referenced: Mapping[str, frozenset[str]]
    indexable: Mapping[str, frozenset[str]]

    def touched_by(self, index: Index) -> bool:
        """
        Tell whether the planner's choice for this query can depend on the index.

        The planner can use an index without any of the query's columns only to count the rows of a table.
        """
        referenced = self.referenced.get(index.table)
        return referenced is not None and (not referenced or not referenced.isdisjoint(index.columns))


def indexed_query(query: Query, schema: Schema, *, possible: Schema | None = None, covering: bool = False) -> IndexedQuery:
    """
    Resolve the columns of a query against the catalog; with `covering` every column that the query reads counts as indexable.

    `possible` is the part of the schema that indexes can be on; None is all of it.

    Raises `UnsupportedQuery` for a text that sqlglot cannot parse, or that is nested too deeply for it.
    """
    try:
        scopes = traverse_scope(sqlglot.parse_one(query.sql, dialect="postgres"))
    except (SqlglotError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:300]
        raise UnsupportedQuery(f"sqlglot cannot read it: {reason}", query.sql) from error
    reader = _Reader(schema)
    for scope in scopes:
        reader.read(scope)
    found = {table: frozenset(columns) for table, columns in reader.referenced.items()}
    indexable = found if covering else {table: frozenset(columns) for table, columns in reader.indexable.items()}
    possible = schema if possible is None else possible
    kept = {table: columns.intersection(possible.get(table, ())) for table, columns in indexable.items()}
    return IndexedQuery(id=query.id, sql=query.sql, referenced=found, indexable={t: c for t, c in kept.items() if c})


class _Reader:
    """Collects columns by table, scope after scope, inner ones first."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.referenced: dict[str, set[str]] = {}
        self.indexable: dict[str, set[str]] = {}
        self.seen: set[int] = set()

    def read(self, scope: Scope) -> None:
        for table in self._tables(scope).values():
            self.referenced.setdefault(table, set())
        for star in _stars(scope):
            self._read_star(scope, star)
        for column in scope.columns:
            if id(column) not in self.seen:  # an outer scope lists the columns of its subqueries again
                self.seen.add(id(column))
                self._read_column(scope, column)
        for column in _named_keys(scope.expression):
            self._add(scope, column, indexable=True)
        for join in scope.expression.args.get("joins") or ():
            for name in join.args.get("using") or ():
                self._add_everywhere(scope, _name(name))

    def _read_column(self, scope: Scope, column: exp.Column) -> None:
        clause = _clause(column, scope.expression)
        named = isinstance(clause, exp.Order) and not column.table and _output(scope.expression, column.name) is not None
        if not named:
            self._add(scope, column, indexable=_indexable(column, clause))

    def _add(self, scope: Scope, column: exp.Column, *, indexable: bool) -> None:
        table = self._table_of(scope, column)
        if table is None:
            return
        name = _name(column.this)
        self.referenced.setdefault(table, set()).add(name)
        if indexable:
            self.indexable.setdefault(table, set()).add(name)

    def _add_everywhere(self, scope: Scope, name: str) -> None:
        for table in self._tables(scope).values():
            if name in self.schema[table]:
                self.referenced.setdefault(table, set()).add(name)
                self.indexable.setdefault(table, set()).add(name)

    def _read_star(self, scope: Scope, star: Node) -> None:
        qualifier = star.table if isinstance(star, exp.Column) else ""
        for alias, table in self._tables(scope).items():
            if not qualifier or alias == qualifier.lower():
                self.referenced.setdefault(table, set()).update(self.schema[table])

    def _table_of(self, scope: Scope | None, column: exp.Column) -> str | None:
        """Return the table of a column, searched from its own scope outwards; None for a column of a subquery."""
        name, qualifier = _name(column.this), _name(column.args["table"]) if column.table else ""
        while scope is not None:
            tables = self._tables(scope)
            if qualifier in tables:
                return tables[qualifier] if name in self.schema[tables[qualifier]] else None
            if not qualifier:
                holders = [table for table in tables.values() if name in self.schema[table]]
                if holders:
                    return holders[0]
            scope = scope.parent
        return None

    def _tables(self, scope: Scope) -> dict[str, str]:
        """Return alias -> table for the relations of a scope that are tables of the schema."""
        found = {}
        for alias, source in scope.sources.items():
            if isinstance(source, exp.Table) and _name(source.this) in self.schema:
                found[alias.lower() if not _quoted_alias(source) else alias] = _name(source.this)
        return found


def _clause(column: Node, root: Node) -> Node | None:
    """Return the clause of the SELECT that has a column, or None for the output list."""
    found: Node | None = None
    node = column.parent
    while node is not None and node is not root:
        if isinstance(node, _CLAUSES):
            found = node
        node = node.parent
    return found


def _indexable(column: exp.Column, clause: Node | None) -> bool:
    if isinstance(clause, exp.Where | exp.Join):
        return _searches(column)
    return isinstance(clause, exp.Group | exp.Order) and isinstance(column.parent, exp.Group | exp.Ordered)


def _searches(column: exp.Column) -> bool:
    """Tell whether the column is the bare operand of a comparison that a btree answers, and not under a NOT."""
    operand: Node = column
    while isinstance(operand.parent, exp.Paren):
        operand = operand.parent
    test = operand.parent
    if test is None or test.args.get("negate") or _negated(test):
        return False
    if isinstance(test, _COMPARISONS):
        return True
    if isinstance(test, exp.Between | exp.In | exp.Is):
        return operand is test.this
    return isinstance(test, exp.Like) and operand is test.this and _has_prefix(test.expression)


def _negated(test: Node) -> bool:
    node = test.parent
    while isinstance(node, exp.Paren):
        node = node.parent
    return isinstance(node, exp.Not)


def _has_prefix(pattern: Node) -> bool:
    return isinstance(pattern, exp.Literal) and pattern.is_string and pattern.this[:1] not in ("", "%", "_")


def _output(select: Node, name: str) -> Node | None:
    """Return the expression of an output name of a SELECT; ORDER BY looks there first."""
    for item in select.args.get("expressions") or ():
        if isinstance(item, exp.Alias) and item.alias.lower() == name.lower():
            return item.this.unnest() if isinstance(item.this, exp.Expression) else None
    return None


def _named_keys(select: Node) -> Iterator[exp.Column]:
    """Yield the columns that `GROUP BY 1`, `ORDER BY 2 DESC` or `ORDER BY output_name` mean."""
    items = select.args.get("expressions") or ()
    for clause in (select.args.get("group"), select.args.get("order")):
        for part in clause.expressions if clause is not None else ():
            key = part.this if isinstance(part, exp.Ordered) else part
            meant: Node | None = None
            if isinstance(key, exp.Literal) and key.is_int and 1 <= int(key.this) <= len(items):
                meant = items[int(key.this) - 1].unalias()
            elif isinstance(part, exp.Ordered) and isinstance(key, exp.Column) and not key.table:
                meant = _output(select, key.name)
            if isinstance(meant, exp.Column):
                yield meant


def _stars(scope: Scope) -> Iterator[Node]:
    for item in scope.expression.args.get("expressions") or ():
        if isinstance(item, exp.Star) or (isinstance(item, exp.Column) and isinstance(item.this, exp.Star)):
            yield item


def _name(identifier: Node | str) -> str:
    """Return a name as the catalog has it: folded to lower case unless quoted."""
    if isinstance(identifier, str):
        return identifier.lower()
    name: str = identifier.name
    return name if identifier.args.get("quoted") else name.lower()


def _quoted_alias(source: exp.Table) -> bool:
    alias = source.args.get("alias")
    identifier = alias.this if alias is not None else source.this
    return bool(identifier is not None and identifier.args.get("quoted"))
