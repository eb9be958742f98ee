"""
Random draws that are the same bits on every platform.

NumPy guarantees the raw output of its bit generators, not the streams of `Generator` methods, and libm and SIMD builds
differ in the last bits of `exp`, `log` and `pow`. So this file computes with integers on raw 64-bit words, and the only
floating point used (`frexp` of an exactly represented integer) is exact by IEEE 754.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

BIT = 1 << 16  # scores are fixed point: 65536 is one doubling


class Draws:
    """A stream of random integers, independent for each (seed, name)."""

    def __init__(self, seed: int, name: str) -> None:
        self._source = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))

    def raw(self, size: int) -> NDArray[np.uint64]:
        """Return `size` uniform 64-bit words."""
        return np.asarray(self._source.random_raw(size), dtype=np.uint64)

    def below(self, limit: int | Ints, size: int) -> Ints:
        """Return `size` integers uniform in 0 .. limit-1; `limit` (a number or one per draw) is at most 2**32."""
        words = self.raw(size) >> np.uint64(32)
        scaled: Ints = ((words * np.asarray(limit, dtype=np.uint64)) >> np.uint64(32)).astype(np.int64)
        return scaled

    def one_below(self, limit: int) -> int:
        """Return one integer uniform in 0 .. limit-1; `limit` is at most 2**32."""
        return (int(self._source.random_raw()) >> 32) * limit >> 32

    def bell(self, size: int) -> Ints:
        """Return `size` bell-shaped integers, mean 0 and standard deviation close to BIT (sum of four uniforms)."""
        words = self.raw(size)
        low = np.uint64(0xFFFF)
        total = np.zeros(size, dtype=np.int64)
        for shift in (0, 16, 32, 48):
            total += ((words >> np.uint64(shift)) & low).astype(np.int64)
        return (total - 2 * 65535) * 7 // 4

    def exponential(self, size: int) -> Ints:
        """Return `size` values of -log2(uniform) in units of 1/BIT, the logarithm taken piecewise linear between powers of two."""
        mantissa, exponent = np.frexp((self.raw(size) >> np.uint64(12)).astype(np.float64) + 0.5)
        fraction = ((2.0 - 2.0 * mantissa) * BIT).astype(np.int64)
        doublings: Ints = (52 - exponent.astype(np.int64)) * BIT + fraction
        return doublings

    def shuffled(self, size: int) -> Ints:
        """Return a random permutation of 0 .. size-1."""
        return np.argsort(self.raw(size), kind="stable").astype(np.int64)

    def chosen(self, size: int, count: int) -> Ints:
        """Return `count` different positions out of 0 .. size-1, ascending."""
        return np.sort(self.shuffled(size)[:count])

    def resized(self, tokens: Ints, count: int) -> Ints:
        """Return `count` of the `tokens`, in order: random ones are dropped or repeated."""
        if len(tokens) >= count:
            return tokens[self.chosen(len(tokens), count)]
        extra = tokens[self.below(len(tokens), count - len(tokens))]
        return np.sort(np.concatenate([tokens, extra]))


def ranks(score: Ints) -> Ints:
    """Return the rank of each score in ascending order, 0 .. n-1; equal scores keep their order."""
    rank = np.empty(len(score), dtype=np.int64)
    rank[np.argsort(score, kind="stable")] = np.arange(len(score), dtype=np.int64)
    return rank


def top(score: Ints, count: int) -> NDArray[np.bool_]:
    """Return a mask of the `count` highest scores."""
    return ranks(score) >= len(score) - count


def starts(sizes: Ints) -> Ints:
    """Return the first position of each group, for groups of these sizes one after another."""
    return np.cumsum(sizes) - sizes


def place_in_group(groups: Ints) -> Ints:
    """Return the position 0, 1, ... of each entry within its group, for a sorted array of group numbers."""
    first = np.flatnonzero(np.diff(groups, prepend=-1))
    sizes = np.diff(first, append=len(groups))
    return np.arange(len(groups), dtype=np.int64) - np.repeat(first, sizes)
