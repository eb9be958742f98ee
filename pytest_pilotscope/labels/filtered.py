"""Relations after their filters, as codes of their join keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.labels.columnstore import Column, ColumnStore
from pytest_pilotscope.labels.domains import Domains
from pytest_pilotscope.labels.integers import holds
from pytest_pilotscope.labels.memory import BLOCK_ROWS, Bounded, Memory, blocks
from pytest_pilotscope.queries.evaluation import Mask
from pytest_pilotscope.queries.joins import KeyType, Relation
from pytest_pilotscope.queries.predicates import quote_identifier

KeyColumn: TypeAlias = tuple[str, KeyType]
"""A column of a relation, and the type that it is compared in."""
_Block: TypeAlias = "tuple[npt.NDArray[np.int32], ...]"
"""Codes of some columns in the same rows, -1 where NULL."""


def table_of(relation: Relation) -> str:
    """Return the SQL that reads the table of a relation."""
    return relation.source or quote_identifier(relation.table)


class Filters:
    """The rows of relations that pass their filters; queries that filter a table in the same way share their codes."""

    def __init__(self, store: ColumnStore, domains: Domains, memory: Memory) -> None:
        self._store = store
        self._domains = domains
        self._counts: dict[tuple[str, ...], int] = {}
        self._bits: Bounded[list[npt.NDArray[np.uint8]]] = Bounded(
            memory.filters_bytes // 8, lambda bits: sum(part.nbytes for part in bits)
        )
        self._held: Bounded[list[npt.NDArray[np.int32]]] = Bounded(
            memory.filters_bytes // 8 * 7, lambda held: sum(part.nbytes for part in held)
        )

    def count(self, relation: Relation) -> int:
        """Return the number of rows of a relation whose predicates are settled; its columns and conditions must have been fetched."""
        if not relation.predicates:
            return self._store.rows(table_of(relation))
        if relation.filter_key not in self._counts:
            deque(self._passing(relation, ()), maxlen=0)
        return self._counts[relation.filter_key]

    def size(self, relation: Relation, column: KeyColumn) -> int:
        """Return the number of codes in the domain of a column; raise `TooLarge` if it does not fit into memory."""
        return self._domains.of(Column(table_of(relation), *column)).size

    def codes(self, relation: Relation, columns: Sequence[KeyColumn]) -> Iterator[tuple[npt.NDArray[np.int32], ...]]:
        """Yield, block after block, the codes of some columns, (K,) each, -1 where NULL."""
        return self._blocks(relation, [Column(table_of(relation), *column) for column in columns])

    def _blocks(self, relation: Relation, columns: Sequence[Column]) -> Iterator[_Block]:
        if not relation.predicates:
            return (self._coded(columns, rows) for rows in blocks(self._store.rows(table_of(relation))))
        held = [found for column in columns if (found := self._held.get((relation.filter_key, column))) is not None]
        return zip(*held, strict=True) if len(held) == len(columns) else self._passing(relation, columns)

    def _passing(self, relation: Relation, columns: Sequence[Column]) -> Iterator[_Block]:
        """Read the codes of the rows that pass, and hold them if they fit, and a bit for each row, for other columns."""
        found: list[_Block] = []
        count = 0
        for rows, mask in self._masks(relation):
            passing = int(np.count_nonzero(mask))
            if not passing:
                continue
            block = self._coded(columns, rows, mask)
            count += passing
            if columns and 4 * len(columns) * count <= self._held.budget_bytes:
                found.append(block)
            yield block
        self._counts[relation.filter_key] = count
        if found and 4 * len(columns) * count <= self._held.budget_bytes:
            for column, codes in zip(columns, zip(*found, strict=True), strict=True):
                self._held.put((relation.filter_key, column), _united(codes))

    def _masks(self, relation: Relation) -> Iterator[tuple[slice, Mask]]:
        parts = blocks(self._store.rows(table_of(relation)))
        held = self._bits.get(relation.filter_key)
        if held is not None:
            yield from (
                (rows, np.unpackbits(bits, count=rows.stop - rows.start).view(np.bool_)) for rows, bits in zip(parts, held, strict=True)
            )
            return
        made = []
        for rows in parts:
            mask = self._mask(relation, rows)
            made.append(np.packbits(mask))
            yield rows, mask
        self._bits.put(relation.filter_key, made)

    def _coded(self, columns: Sequence[Column], rows: slice, mask: Mask | None = None) -> _Block:
        return tuple(self._domains.of(column).codes(column, rows, mask) for column in columns)

    def _mask(self, relation: Relation, rows: slice) -> Mask:
        table = table_of(relation)
        column = lru_cache(maxsize=None)(lambda name: self._store.integers(table, name, rows))
        masks = []
        for predicate in {predicate.sql: predicate for predicate in relation.predicates}.values():
            passing = holds(predicate.condition, column)
            masks.append(self._store.mask(table, predicate.sql, rows) if passing is None else passing)
        return masks[0] if len(masks) == 1 else np.logical_and.reduce(masks)


def _united(parts: Sequence[npt.NDArray[np.int32]]) -> list[npt.NDArray[np.int32]]:
    """Unite small parts, in the same way for all columns: what is done with one costs as much as with many rows."""
    ends = np.cumsum([part.size for part in parts]) // BLOCK_ROWS
    return [np.concatenate([part for part, of in zip(parts, ends, strict=True) if of == end]) for end in np.unique(ends)]
