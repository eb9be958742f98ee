"""
Arithmetic on counts that is exact at any size: 64-bit integers where the result fits, Python's integers where it does not.

Joins of a million rows reach 10^18 rows and more, and a count that wraps around looks like a plausible one. Every
operation first bounds its result by the largest operands; if the bound is too loose it looks at the result in floating
point (relative error below 10^-9, so that anything under 2^62 surely fits in 63 bits), and only then it is slow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Codes: TypeAlias = npt.NDArray[np.intp]
"""Positions in the domain of a join key, 0 .. size - 1, without NULLs."""

_FITS = 2**63 - 1
_SURELY_FITS = float(2**62)


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Non-negative integers: (N,) int64, or Python integers (dtype object) when `largest` needs more than 63 bits."""

    values: npt.NDArray[Any]
    largest: int

    @property
    def nbytes(self) -> int:
        """Memory held; a Python integer is counted with 48 bytes."""
        return self.values.nbytes if self.values.dtype != object else self.values.size * 48


def counts(values: npt.NDArray[Any]) -> Counts:
    """Wrap an array of non-negative integers; Python integers are narrowed when they fit."""
    largest = int(values.max()) if values.size else 0
    if values.dtype == object and largest <= _FITS:
        return Counts(values.astype(np.int64), largest)
    return Counts(values, largest)


def product(left: Counts, right: Counts) -> Counts:
    """Multiply element by element."""
    if left.largest * right.largest <= _FITS or _approximately(left.values, right.values).max() < _SURELY_FITS:
        return counts(left.values * right.values if _narrow(left, right) else (left.values * right.values).astype(np.int64))
    return counts(_wide(left.values) * _wide(right.values))


def total(one: Counts) -> int:
    """Sum all elements."""
    if one.values.dtype != object and one.largest * one.values.size <= _FITS:
        return int(one.values.sum())
    return int(_wide(one.values).sum()) if one.values.size else 0


def dot(left: Counts, right: Counts) -> int:
    """Sum the products of the elements."""
    if left.largest == 0 or right.largest == 0:
        return 0
    if _narrow(left, right):
        bound = left.largest * right.largest * left.values.size
        if bound <= _FITS or float(np.dot(left.values.astype(np.float64), right.values.astype(np.float64))) < _SURELY_FITS:
            return int(np.dot(left.values, right.values))
    both = np.flatnonzero((left.values != 0) & (right.values != 0))
    return int((_wide(left.values[both]) * _wide(right.values[both])).sum()) if both.size else 0


def gather(one: Counts, codes: Codes) -> Counts:
    """Look elements up: (M,) codes give (M,) counts."""
    taken = one.values.take(codes)
    return Counts(taken, one.largest) if taken.dtype != object else counts(taken)


def scatter(weights: Counts, codes: Codes, size: int) -> Counts:
    """Sum weights by code: (M,) and (M,) give (size,)."""
    if weights.values.dtype == object:
        return counts(_scattered(weights.values, codes, np.zeros(size, dtype=object)))
    if weights.largest * weights.values.size > _FITS:
        approximate = np.bincount(codes, weights=weights.values, minlength=size)
        if approximate.max() >= _SURELY_FITS:
            return counts(_scattered(_wide(weights.values), codes, np.zeros(size, dtype=object)))
    return counts(_scattered(weights.values, codes, np.zeros(size, dtype=np.int64)))


def histogram(codes: Codes, size: int) -> Counts:
    """Count how often each code occurs."""
    return counts(np.bincount(codes, minlength=size).astype(np.int64, copy=False))


def ones(size: int) -> Counts:
    """Return a count of one for each of `size` elements."""
    return Counts(np.ones(size, dtype=np.int64), 1 if size else 0)


def _scattered(weights: npt.NDArray[Any], codes: Codes, into: npt.NDArray[Any]) -> npt.NDArray[Any]:
    np.add.at(into, codes, weights)
    return into


def _narrow(left: Counts, right: Counts) -> bool:
    return left.values.dtype != object and right.values.dtype != object


def _approximately(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return left.astype(np.float64) * right.astype(np.float64) if left.size else np.zeros(1)


def _wide(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(object)
