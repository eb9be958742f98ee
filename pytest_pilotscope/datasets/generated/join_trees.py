"""Random join trees over the edges of a workload, with some rows of their results."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import QueryTimeout
from pytest_pilotscope.queries.joins import Schema
from pytest_pilotscope.queries.predicates import quote_identifier

from .shape import Column, Edge, Shape

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_ROWS_READ = 200
"""Rows to read of a join."""

LIMIT_MS = 5_000
"""A join is left out if its first rows take longer."""

_SAMPLED_ROWS = 2_000
_GROWTHS = 8
Row = Mapping[tuple[str, str], str | None]
"""(alias, column) -> value as text, of the columns that may be filtered."""


@dataclass(frozen=True, slots=True)
class JoinTree:
    """A join tree: relations (alias -> table) and the equalities between them, (alias, column) = (alias, column)."""

    relations: Mapping[str, str]
    joins: tuple[tuple[tuple[str, str], tuple[str, str]], ...] = ()

    def with_edge(self, alias: str, mine: str, table: str, theirs: str) -> JoinTree:
        """Return the tree with one more relation."""
        new = f"r{len(self.relations) + 1}"
        return JoinTree({**self.relations, new: table}, (*self.joins, ((alias, mine), (new, theirs))))


@dataclass(slots=True, kw_only=True)
class JoinTreeSampler:
    """A sampler of join trees with rows; it remembers each tree's rows. `columns` are the columns to read, by table."""

    session: Session
    schema: Schema
    shape: Shape
    columns: Mapping[str, Sequence[str]]
    rng: random.Random
    _rows: dict[tuple[object, ...], list[Row]] = field(default_factory=dict)
    _sizes: dict[str, float] = field(default_factory=dict)

    def draw(self) -> tuple[JoinTree, list[Row]]:
        """Return a tree of one of the workload's sizes, or a smaller one if no larger one has rows, with some of its rows (maybe none)."""
        wanted = self.rng.choice(self.shape.sizes)
        tree = JoinTree({"r1": self._first_table()})
        rows = self.rows(tree)
        for _ in range(_GROWTHS * wanted):
            if len(tree.relations) >= wanted or not rows:
                break
            grown = self._grown(tree)
            if grown is None:
                break
            found = self.rows(grown)
            if found:
                tree, rows = grown, found
        return tree, rows

    def rows(self, tree: JoinTree) -> list[Row]:
        """Return some rows of a tree's join, read once; none if it is empty or takes too long."""
        key = (*tree.relations.values(), tree.joins)
        if key not in self._rows:
            self._rows[key] = self._found(tree)
        return self._rows[key]

    def _first_table(self) -> str:
        weights: Counter[str] = Counter()
        for edge, count in self.shape.edges.items():
            for column in edge:
                weights[column.table] += count
        tables = sorted(weights) or sorted(self.shape.copies) or sorted(self.schema)
        return self.rng.choices(tables, [weights[table] or 1 for table in tables])[0]

    def _grown(self, tree: JoinTree) -> JoinTree | None:
        used = Counter(tree.relations.values())
        joined = {(here, Column(tree.relations[there[0]], there[1])) for pair in tree.joins for here, there in (pair, pair[::-1])}
        steps = [
            (alias, here.column, there, count)
            for alias, table in tree.relations.items()
            for edge, count in self.shape.edges.items()
            for here, there in _directions(edge)
            if here.table == table
            and ((alias, here.column), there) not in joined
            and used[there.table] < max(1, self.shape.copies.get(there.table, 1))
        ]
        if not steps:
            return None
        alias, mine, there, _ = self.rng.choices(steps, [count for *_, count in steps])[0]
        return tree.with_edge(alias, mine, there.table, there.column)

    def _found(self, tree: JoinTree) -> list[Row]:
        names = [(alias, column) for alias, table in tree.relations.items() for column in self.columns.get(table, ())]
        selected = ", ".join(f"{_column(name)}::text" for name in names) or "1"
        try:
            with self.session.statement_timeout(LIMIT_MS):
                found = self.session.execute(f"SELECT {selected} FROM {self._from(tree)} LIMIT {_ROWS_READ}")  # noqa: S608 - quoted
        except QueryTimeout:
            return []
        return [dict(zip(names, row, strict=False)) for row in found]

    def _from(self, tree: JoinTree) -> str:
        """Return the FROM clause with a sample of the first relation: otherwise all rows would be from the beginning of a large table."""
        (first, table), *_ = tree.relations.items()
        share = 100 * _SAMPLED_ROWS / max(self._size(table), 1)
        sample = f" TABLESAMPLE SYSTEM ({min(share, 100):.6f}) REPEATABLE ({self.rng.randrange(1 << 16)})" if share < 100 else ""
        text = f"{quote_identifier(table)} AS {first}{sample}"
        for left, right in tree.joins:
            text += f" JOIN {quote_identifier(tree.relations[right[0]])} AS {right[0]} ON {_column(left)} = {_column(right)}"
        return text

    def _size(self, table: str) -> float:
        if table not in self._sizes:
            statement = "SELECT CASE WHEN relkind = 'r' THEN reltuples ELSE 0 END FROM pg_class WHERE oid = to_regclass(%s)"
            self._sizes[table] = float(self.session.scalar(statement, (quote_identifier(table),)) or 0)
        return self._sizes[table]


def _directions(edge: Edge) -> Iterator[tuple[Column, Column]]:
    yield edge.left, edge.right
    if edge.left != edge.right:
        yield edge.right, edge.left


def _column(name: tuple[str, str]) -> str:
    return f"{name[0]}.{quote_identifier(name[1])}"
