"""Generated tables and their columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """Values of one column (n,) int32, and a mask (n,) of its NULLs, or None if it has none."""

    values: NDArray[np.int32]
    nulls: NDArray[np.bool_] | None = None

    def present(self) -> NDArray[np.bool_]:
        """Return a mask (n,) of the rows that have a value."""
        return np.ones(len(self.values), dtype=np.bool_) if self.nulls is None else ~self.nulls


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A generated table: columns in the order of the schema, all of the same length, rows in the order of their ids."""

    name: str
    columns: Mapping[str, Column]

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns.values())).values)

    def __getitem__(self, column: str) -> Column:
        return self.columns[column]


def column(values: NDArray[np.int64], nulls: NDArray[np.bool_] | None = None) -> Column:
    """
    Narrow to int32, with zero under every NULL so that equal columns are equal bytes.

    Raise OverflowError for a value that does not fit: a wrapped id would be a silent error.
    """
    if len(values) and (values.max() > np.iinfo(np.int32).max or values.min() < np.iinfo(np.int32).min):
        raise OverflowError("a generated value does not fit PostgreSQL's integer; choose a smaller scale")
    narrow = values.astype(np.int32)
    if nulls is None or not nulls.any():
        return Column(values=narrow)
    narrow[nulls] = 0
    return Column(values=narrow, nulls=nulls)
