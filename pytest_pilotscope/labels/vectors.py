"""Counts by the codes of a join key, held for all codes or for the few that have rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.labels.exact import Codes, Counts, Sum, counts, dot, gather, product, total

_FEW = 8  # codes with rows are listed if they are less than one in so many: reading the list costs more than reading all in order


@dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """Counts of `size` codes: (D,) of all, or (K,) of those in `codes`, (K,) in order, when the others have no rows."""

    size: int
    counts: Counts
    codes: npt.NDArray[np.int32] | None = None

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return self.counts.nbytes + (0 if self.codes is None else self.codes.nbytes)

    def all(self) -> Counts:
        """Return the counts of all codes, (D,)."""
        if self.codes is None:
            return self.counts
        values = np.zeros(self.size, dtype=self.counts.values.dtype)
        values[self.codes] = self.counts.values
        return Counts(values, self.counts.largest)

    def times(self, other: Vector) -> Vector:
        """Multiply code by code."""
        codes, left, right = _common(self, other)
        return _listed(self.size, product(left, right), codes)

    def dot(self, other: Vector) -> int:
        """Sum the products of the counts."""
        _, left, right = _common(self, other)
        return dot(left, right)

    def total(self) -> int:
        """Sum the counts."""
        return total(self.counts)


def summed(blocks: Iterable[Sequence[Codes]], weights: Sequence[Counts], size: int) -> Vector:
    """Sum by the first of the (M,) codes of each block the products of the weights at the others; without others, count the rows."""
    found = Sum(size)
    for codes in blocks:
        found.add_products(codes, weights)
    return _listed(size, found.counts)


def _listed(size: int, found: Counts, codes: npt.NDArray[np.int32] | None = None) -> Vector:
    """Make a vector of counts of all codes, or of some; leave out those without rows if that is shorter."""
    some = np.count_nonzero(found.values)
    if codes is None:
        if _FEW * some >= size:
            return Vector(size, found)
        codes = np.flatnonzero(found.values != 0).astype(np.int32)
    elif some < codes.size:
        codes = np.compress(found.values, codes)
    return Vector(size, found if some == found.values.size else counts(found.values[found.values != 0]), codes)


def _common(left: Vector, right: Vector) -> tuple[npt.NDArray[np.int32] | None, Counts, Counts]:
    """Return the codes that may have rows in both, None for all, and the counts of both for them."""
    if left.codes is None and right.codes is None:
        return None, left.counts, right.counts
    if left.codes is None or (right.codes is not None and right.codes.size < left.codes.size):
        codes, found, theirs = _common(right, left)
        return codes, theirs, found
    if right.codes is None:
        return left.codes, left.counts, gather(right.counts, left.codes)
    mine = _marked(left.size, right.codes)[left.codes]
    codes = np.compress(mine, left.codes)
    yours = _marked(left.size, codes)[right.codes]
    return codes, counts(np.compress(mine, left.counts.values)), counts(np.compress(yours, right.counts.values))


def _marked(size: int, codes: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    marked = np.zeros(size, dtype=np.bool_)
    marked[codes] = True
    return marked
