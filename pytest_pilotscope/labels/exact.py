"""
Arithmetic on counts that is exact at any size: 64-bit integers where the result fits, Python's integers where it does not.

Joins of a million rows reach 10^18 rows and more, and a count that wraps around looks like a plausible one. Every
operation first bounds its result by the largest operands; if the bound is too loose it looks at the result in floating
point (relative error below 10^-9, so that anything under 2^62 surely fits in 63 bits), and only then it is slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.labels import compiled
from pytest_pilotscope.labels.memory import blocks

Codes: TypeAlias = npt.NDArray[np.intp] | npt.NDArray[np.int32]
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
    if left.largest * right.largest <= _FITS or max(map(_largest_product, *_blocks(left, right)), default=0.0) < _SURELY_FITS:
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
        if bound <= _FITS or sum(map(_dot_product, *_blocks(left, right))) < _SURELY_FITS:
            return int(np.dot(left.values, right.values))
    both = np.flatnonzero((left.values != 0) & (right.values != 0))
    return int((_wide(left.values[both]) * _wide(right.values[both])).sum()) if both.size else 0


def gather(one: Counts, codes: Codes) -> Counts:
    """Look elements up: (M,) codes give (M,) counts."""
    taken = one.values.take(codes.astype(np.intp, copy=False))
    return Counts(taken, one.largest) if taken.dtype != object else counts(taken)


class Sum:
    """Counts by code, 0 .. size - 1, to which weights are added."""

    def __init__(self, size: int) -> None:
        self._values: npt.NDArray[Any] = np.zeros(size, dtype=np.int64)
        self._bound = 0.0

    def add_products(self, codes: Sequence[Codes], weights: Sequence[Counts]) -> None:
        """Add at the first of several (M,) codes the products of the weights at the others; rows with a negative code are left out."""
        done = 0
        if all(one.dtype == np.int64 for one in (self._values, *(one.values for one in weights))):
            done = compiled.added(self._values, codes, [one.values for one in weights])
            self._bound = np.inf if done else self._bound  # it is not known what C added
        if done < codes[0].size:
            at, *keys = without_nulls([one[done:] for one in codes])
            self.add(reduce(product, map(gather, weights, keys), ones(at.size)), at)

    def add(self, weights: Counts, codes: Codes) -> None:
        """Add (M,) weights at (M,) codes."""
        if self._values.dtype != object and not self._fits(weights):
            self._values = _wide(self._values)
        np.add.at(self._values, codes.astype(np.intp, copy=False), weights.values)

    @property
    def counts(self) -> Counts:
        """The sums, (size,)."""
        return counts(self._values)

    def _fits(self, weights: Counts) -> bool:
        """Tell whether no sum can exceed 63 bits: bound them by the sum of all weights, and if need be by the largest sum so far."""
        if weights.values.dtype == object:
            return False
        added = float(weights.largest) * weights.values.size
        if self._bound + added >= _SURELY_FITS:
            self._bound = float(self._values.max())
            added = float(weights.values.sum(dtype=np.float64))
        self._bound += added
        return self._bound < _SURELY_FITS


def scatter(weights: Counts, codes: Codes, size: int) -> Counts:
    """Sum weights by code: (M,) and (M,) give (size,)."""
    found = Sum(size)
    found.add(weights, codes)
    return found.counts


def without_nulls(codes: Sequence[Codes]) -> list[Codes]:
    """Leave out the rows in which one of several (M,) codes is negative."""
    known = np.logical_and.reduce([one >= 0 for one in codes])
    return list(codes) if known.all() else [one[known] for one in codes]


def ones(size: int) -> Counts:
    """Return a count of one for each of `size` elements."""
    return Counts(np.ones(size, dtype=np.int64), 1 if size else 0)


def _narrow(left: Counts, right: Counts) -> bool:
    return left.values.dtype != object and right.values.dtype != object


def _blocks(left: Counts, right: Counts) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
    """Divide both into blocks, so that their copies in floating point stay small."""
    parts = list(blocks(left.values.size))
    return [left.values[part] for part in parts], [right.values[part] for part in parts]


def _largest_product(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    return float((left.astype(np.float64) * right.astype(np.float64)).max())


def _dot_product(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> float:
    return float(np.dot(left.astype(np.float64), right.astype(np.float64)))


def _wide(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return values.astype(object)
