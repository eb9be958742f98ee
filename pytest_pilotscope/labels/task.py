"""The sets of a query level that are to be counted in memory, and the counting in this process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import or_
from pathlib import Path

from pytest_pilotscope.labels.columnstore import INTEGER, Bitmap, Column, ColumnStore, Need, Needs
from pytest_pilotscope.labels.counting import QueryCounter, Vectors
from pytest_pilotscope.labels.domains import Domains
from pytest_pilotscope.labels.filtered import Filters, table_of
from pytest_pilotscope.labels.integers import settled
from pytest_pilotscope.labels.memory import Memory, TooLarge
from pytest_pilotscope.queries.joins import JoinQuery, Relation, Schema
from pytest_pilotscope.queries.predicates import Opaque, condition_columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """
    Sets of one query level that have no label yet, as bit masks, fewer relations first, and their names.

    `empty` are those known to have no rows.
    """

    query: JoinQuery
    masks: tuple[int, ...]
    names: tuple[bytes, ...]
    empty: tuple[int, ...] = ()

    def settled(self, schema: Schema) -> Task:
        """Decide for every predicate whether NumPy or PostgreSQL evaluates it."""
        relations = {alias: settled(relation, schema) for alias, relation in self.query.relations.items()}
        return replace(self, query=replace(self.query, relations=relations))

    def without(self, failed: Needs) -> Task:
        """Leave out the sets of relations that cannot be read."""
        bad = sum(
            1 << position
            for position, alias in enumerate(self.query.aliases)
            if table_of(self.query.relations[alias]) in failed.tables or not failed.read.isdisjoint(_read_of(self.query, alias))
        )
        kept = [(mask, name) for mask, name in zip(self.masks, self.names, strict=True) if not mask & bad]
        return replace(self, masks=tuple(mask for mask, _ in kept), names=tuple(name for _, name in kept))

    @property
    def relations(self) -> list[Relation]:
        """The relations that occur in the sets."""
        union = reduce(or_, self.masks, 0)
        return [relation for position, relation in enumerate(self.query.relations.values()) if union >> position & 1]

    @property
    def classes(self) -> list[list[Column]]:
        """The columns that the sets are joined by, of each class."""
        aliases = {relation.alias for relation in self.relations}
        found = [
            [Column(table_of(self.query.relations[ref.alias]), ref.column, key) for ref in members if ref.alias in aliases]
            for members, key in zip(self.query.classes, self.query.keys, strict=True)
        ]
        return [members for members in found if len(members) > 1]


@dataclass(slots=True)
class Counter:
    """
    Counts joins by equalities in memory, from the columns in the folder, within `memory`; `close` frees the disk that it takes.
    """

    folder: Path
    context: str
    classes: Sequence[Sequence[Column]]
    memory: Memory
    _domains: Domains = field(init=False)
    _filters: Filters = field(init=False)
    _vectors: Vectors = field(init=False)

    def __post_init__(self) -> None:
        store = ColumnStore(self.folder, self.context)
        self._domains = Domains(self.classes, store, self.memory)
        self._filters = Filters(store, self._domains, self.memory)
        self._vectors = Vectors(self._filters, self.memory)

    def close(self) -> None:
        """Free the disk."""
        self._domains.close()

    def count(self, query: JoinQuery, masks: Iterable[int], empty: Iterable[int]) -> list[int | None]:
        """Count sets, in their order; None for one that does not fit into memory."""
        counter = QueryCounter(query, self._filters, self._vectors, self.memory)
        for mask in empty:
            counter.note_empty(mask)
        return [_count(counter, mask) for mask in masks]


def needs(tasks: Iterable[Task]) -> Needs:
    """Return the tables, columns and bitmaps that are needed to count some tasks."""
    needed = Needs()
    for task in tasks:
        needed.read.update(column for members in task.classes for column in members)
        for relation in task.relations:
            needed.tables.add(table_of(relation))
            needed.read.update(_filters_of(relation))
    return needed


def _read_of(query: JoinQuery, alias: str) -> Iterator[Need]:
    relation = query.relations[alias]
    yield from _filters_of(relation)
    for members, key in zip(query.classes, query.keys, strict=True):
        yield from (Column(table_of(relation), ref.column, key) for ref in members if ref.alias == alias)


def _filters_of(relation: Relation) -> Iterator[Need]:
    for predicate in relation.predicates:
        if isinstance(predicate.condition, Opaque):
            yield Bitmap(table_of(relation), predicate.sql)
        else:
            yield from (Column(table_of(relation), column, INTEGER) for column in condition_columns(predicate.condition))


def _count(counter: QueryCounter, mask: int) -> int | None:
    try:
        return counter.count(mask)
    except TooLarge:
        return None
