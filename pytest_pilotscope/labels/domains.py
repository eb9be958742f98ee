"""Dense codes for join keys: columns that some query compares share a domain, in which equal values have equal codes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pytest_pilotscope.labels.columnstore import Column, ColumnStore
from pytest_pilotscope.queries.connectivity import merged

_SPARSE = 4  # a domain may have this many times as many codes as its columns have rows, before codes are looked up


@dataclass(slots=True, eq=False)
class Domain:
    """Codes 0 .. size - 1 of the values of some columns; `codes` is (N,) int32 per column, -1 where NULL."""

    columns: tuple[Column, ...]
    size: int
    codes: dict[Column, npt.NDArray[np.int32]] = field(default_factory=dict)


class Domains:
    """The domains of all columns by which some queries join."""

    def __init__(self, classes: Iterable[Sequence[Column]], store: ColumnStore) -> None:
        self._group_of = {column: tuple(sorted(group)) for group in merged(classes) for column in group}
        self._domains: dict[tuple[Column, ...], Domain] = {}
        self._store = store

    def of(self, column: Column) -> Domain:
        """Return the domain of a column; its codes are made when they are first asked for."""
        group = self._group_of[column]
        if group not in self._domains:
            self._domains[group] = _integer_domain(group, self._store) if group[0].is_integer else _text_domain(group, self._store)
        return self._domains[group]


def _integer_domain(group: tuple[Column, ...], store: ColumnStore) -> Domain:
    columns = {column: store.integers(column.table, column.column) for column in group}
    known = {name: column.values if column.nulls is None else column.values[~column.nulls] for name, column in columns.items()}
    present = [values for values in known.values() if values.size]
    if not present:
        return Domain(group, 0, {name: np.full(column.values.size, -1, dtype=np.int32) for name, column in columns.items()})
    low, high = min(int(v.min()) for v in present), max(int(v.max()) for v in present)
    dense = high - low < _SPARSE * sum(v.size for v in present) + 1024
    distinct = np.empty(0) if dense else np.unique(np.concatenate([np.unique(v) for v in present]))
    domain = Domain(group, high - low + 1 if dense else distinct.size)
    for name, column in columns.items():
        codes = column.values.astype(np.int64) - low if dense else np.searchsorted(distinct, column.values)
        domain.codes[name] = _with_nulls(codes, column.nulls)
    return domain


def _text_domain(group: tuple[Column, ...], store: ColumnStore) -> Domain:
    columns = {column: store.texts(column) for column in group}
    distinct = pc.unique(pa.concat_arrays([pc.unique(column) for column in columns.values()])).drop_null()
    domain = Domain(group, len(distinct))
    for name, column in columns.items():
        domain.codes[name] = pc.fill_null(pc.index_in(column, value_set=distinct, skip_nulls=True), -1).to_numpy()
    return domain


def _with_nulls(codes: npt.NDArray[Any], nulls: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int32]:
    narrow = codes.astype(np.int32)
    if nulls is not None:
        narrow[nulls] = -1
    return narrow
