"""Dense codes for join keys: columns that some query compares share a domain, in which equal values have equal codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pytest_pilotscope.labels.atomicfiles import Spool
from pytest_pilotscope.labels.columnstore import Column, ColumnStore
from pytest_pilotscope.labels.memory import BLOCK_ROWS, Memory, TooLarge, blocks
from pytest_pilotscope.queries.connectivity import merged
from pytest_pilotscope.queries.evaluation import Mask

_SPARSE = 4  # a domain may have this many times as many codes as its columns have rows, before codes are looked up
_MOST_CODES = 2**31 - 1
CodesOf: TypeAlias = Callable[[Column, slice, "Mask | None"], npt.NDArray[np.int32]]
"""The codes of a column in some rows, those of a mask only if there is one: (N,), -1 where NULL."""


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """Codes 0 .. size - 1 of the values of some columns."""

    size: int
    codes: CodesOf


class Domains:
    """The domains of all columns by which some queries join; `close` frees the disk that their codes take."""

    def __init__(self, classes: Iterable[Sequence[Column]], store: ColumnStore, memory: Memory) -> None:
        self._group_of = {column: tuple(sorted(group)) for group in merged(classes) for column in group}
        self._domains: dict[tuple[Column, ...], Domain | None] = {}
        self._store = store
        self._memory = memory
        self._spools: dict[Column, Spool] = {}

    def of(self, column: Column) -> Domain:
        """Return the domain of a column, made when it is first asked for; raise `TooLarge` if it does not fit into memory."""
        group = self._group_of[column]
        if group not in self._domains:
            self._domains[group] = None
            self._domains[group] = self._numbers(group) if column.is_integer else self._texts(group)
        found = self._domains[group]
        if found is None:
            raise TooLarge(f"the values of {column.column} of table {column.table}")
        return found

    def close(self) -> None:
        """Free the disk."""
        for spool in self._spools.values():
            spool.close()

    def _numbers(self, group: tuple[Column, ...]) -> Domain:
        low, high, known = 2**63, -(2**63), 0
        for values in self._known(group):
            low, high, known = min(low, int(values.min())), max(high, int(values.max())), known + values.size
        if not known:
            return Domain(0, lambda column, rows, mask: self._coded(column, rows, mask, np.zeros_like))
        if high - low < min(_SPARSE * known + 1024, _MOST_CODES):
            return Domain(high - low + 1, lambda column, rows, mask: self._coded(column, rows, mask, lambda values: _from(low, values)))
        distinct = self._distinct(group)
        for column in group:
            parts = (self._coded(column, rows, None, lambda values: np.searchsorted(distinct, values)) for rows in self._blocks(column))
            self._keep(column, parts)
        return Domain(distinct.size, self._kept)

    def _known(self, group: tuple[Column, ...]) -> Iterator[npt.NDArray[Any]]:
        """Yield the values of some columns without NULLs, in blocks that are not empty."""
        for column in group:
            for rows in self._blocks(column):
                part = self._store.integers(column.table, column.column, rows)
                values = part.values if part.nulls is None else part.values[~part.nulls]
                if values.size:
                    yield values

    def _distinct(self, group: tuple[Column, ...]) -> npt.NDArray[np.int64]:
        distinct = np.empty(0, dtype=np.int64)
        waiting: list[npt.NDArray[Any]] = []
        for values in self._known(group):
            waiting.append(np.unique(values))
            if sum(part.size for part in waiting) > distinct.size + BLOCK_ROWS:
                self._memory.check(48 * (2 * distinct.size + BLOCK_ROWS))
                distinct, waiting = np.unique(np.concatenate([distinct, *waiting])), []
        return np.unique(np.concatenate([distinct, *waiting]))

    def _coded(
        self, column: Column, rows: slice, mask: Mask | None, code: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    ) -> npt.NDArray[np.int32]:
        part = self._store.integers(column.table, column.column, rows)
        codes = code(_picked(part.values, mask)).astype(np.int32, copy=False)
        return codes if part.nulls is None else np.where(_picked(part.nulls, mask), np.int32(-1), codes)

    def _texts(self, group: tuple[Column, ...]) -> Domain:
        distinct = pa.array([], type=pa.large_string())
        waiting: list[pa.Array] = []
        for texts in chain((texts for column in group for texts in self._store.texts(column)), (None,)):
            if texts is not None:
                waiting.append(pc.unique(texts.cast(pa.large_string())))
            if texts is None or sum(map(len, waiting)) > len(distinct) + BLOCK_ROWS:
                self._memory.check(sum(4 * part.nbytes + 64 * len(part) for part in (distinct, *waiting)))
                distinct, waiting = pc.unique(pa.concat_arrays([distinct, *waiting])).drop_null(), []
        for column in group:
            found = (pc.index_in(texts, value_set=distinct) for texts in _gathered(self._store.texts(column), len(distinct) // 4))
            self._keep(column, (pc.fill_null(codes, -1).to_numpy() for codes in found))
        return Domain(len(distinct), self._kept)

    def _keep(self, column: Column, parts: Iterable[npt.NDArray[np.int32]]) -> None:
        self._spools[column] = Spool(self._store.folder)
        for part in parts:
            self._spools[column].append(part)

    def _kept(self, column: Column, rows: slice, mask: Mask | None) -> npt.NDArray[np.int32]:
        return _picked(self._spools[column].part(rows), mask)

    def _blocks(self, column: Column) -> Iterator[slice]:
        return blocks(self._store.rows(column.table))


def _picked(values: npt.NDArray[Any], mask: Mask | None) -> npt.NDArray[Any]:
    return values if mask is None else np.compress(mask, values)


def _from(low: int, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Subtract the lowest value; the result has 31 bits, and the subtraction 32 or 64, as the values."""
    limits = np.iinfo(values.dtype)
    if low == 0:
        return values
    return values - values.dtype.type(low) if limits.min <= low <= limits.max else values.astype(np.int64) - low


def _gathered(parts: Iterator[pa.Array], fewest: int) -> Iterator[pa.Array]:
    """Unite parts until they have so many rows: for each part that is looked up, a table of all codes is made."""
    waiting: list[pa.Array] = []
    for part in parts:
        waiting.append(part.cast(pa.large_string()))
        if sum(map(len, waiting)) >= fewest:
            yield pa.concat_arrays(waiting)
            waiting = []
    if waiting:
        yield pa.concat_arrays(waiting)
