"""Relations after their filters, as codes of their join keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.labels.columnstore import Column, ColumnStore
from pytest_pilotscope.labels.domains import Domains
from pytest_pilotscope.labels.exact import Codes, Counts, histogram
from pytest_pilotscope.labels.integers import holds
from pytest_pilotscope.queries.joins import KeyType, Relation
from pytest_pilotscope.queries.predicates import quote_identifier

Value = TypeVar("Value")
KeyColumn: TypeAlias = tuple[str, KeyType]
"""A column of a relation, and the type that it is compared in."""


def table_of(relation: Relation) -> str:
    """Return the SQL that reads the table of a relation."""
    return relation.source or quote_identifier(relation.table)


class Bounded(Generic[Value]):
    """A dictionary that drops the values that were not used for longest while it holds more than `budget_bytes`."""

    def __init__(self, budget_bytes: int, size_bytes: Callable[[Value], int]) -> None:
        self._budget_bytes = budget_bytes
        self._size_bytes = size_bytes
        self._held_bytes = 0
        self._values: OrderedDict[Any, Value] = OrderedDict()

    def get(self, key: Any, make: Callable[[], Value]) -> Value:
        """Return the value of a key; make it if it is missing or was dropped."""
        found = self._values.get(key)
        if found is not None:
            self._values.move_to_end(key)
            return found
        value = make()
        self._values[key] = value
        self._held_bytes += self._size_bytes(value)
        while self._held_bytes > self._budget_bytes and len(self._values) > 1:
            _, dropped = self._values.popitem(last=False)
            self._held_bytes -= self._size_bytes(dropped)
        return value


@dataclass(slots=True, eq=False)
class Filtered:
    """
    The rows of a table that pass a filter.

    `positions` is (M,), None when all rows pass; `count` is M.
    """

    table: str
    positions: npt.NDArray[np.intp] | None
    count: int
    store: ColumnStore
    domains: Domains
    kept: dict[tuple[KeyColumn, ...], tuple[Codes, ...]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Upper bound of the memory held by the positions and the codes that were asked for."""
        return 8 * self.count * (4 + (self.positions is not None))

    def codes(self, columns: tuple[KeyColumn, ...]) -> tuple[Codes, ...]:
        """Return the codes of some columns in the rows that have no NULL among them, (K,) each."""
        if columns not in self.kept:
            raw = [self._codes(column) for column in columns]
            nulls = [codes < 0 for codes in raw]
            any_null = np.logical_or.reduce(nulls) if len(nulls) > 1 else nulls[0]
            known = ~any_null if any_null.any() else slice(None)
            self.kept[columns] = tuple(codes[known].astype(np.intp) for codes in raw)
        return self.kept[columns]

    def size(self, column: KeyColumn) -> int:
        """Return the number of codes in the domain of a column."""
        return self.domains.of(Column(self.table, *column)).size

    def histogram(self, column: KeyColumn) -> Counts:
        """Count the rows per code of a column, (D,)."""
        [codes] = self.codes((column,))
        return histogram(codes, self.size(column))

    def _codes(self, column: KeyColumn) -> npt.NDArray[np.int32]:
        whole = Column(self.table, *column)
        codes = self.domains.of(whole).codes[whole]
        return codes if self.positions is None else codes.take(self.positions)


class Filters:
    """Filtered relations; queries that filter a table in the same way share one."""

    def __init__(self, store: ColumnStore, domains: Domains, budget_bytes: int) -> None:
        self._store = store
        self._domains = domains
        self._filtered: Bounded[Filtered] = Bounded(budget_bytes, lambda filtered: filtered.nbytes)

    def of(self, relation: Relation) -> Filtered:
        """Return the rows of a relation whose predicates are settled; its columns and conditions must have been fetched."""
        return self._filtered.get(relation.filter_key, lambda: self._make(relation))

    def _make(self, relation: Relation) -> Filtered:
        table = table_of(relation)
        mask: npt.NDArray[np.bool_] | None = None
        for predicate in {predicate.sql: predicate for predicate in relation.predicates}.values():
            passing = holds(predicate.condition, partial(self._store.integers, table))
            if passing is None:
                passing = self._store.mask(table, predicate.sql)
            mask = passing if mask is None else mask & passing
        positions = None if mask is None else np.flatnonzero(mask)
        count = self._store.rows(table) if positions is None else positions.size
        return Filtered(table, positions, count, self._store, self._domains)
