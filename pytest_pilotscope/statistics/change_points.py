"""
Change points: the positions in a series at which its values begin to be others.

The method is that of E-divisive (Matteson and James, JASA 109, 2014), which Daly et al. (ICPE 2020) use to watch the speed of a database
from commit to commit: the split with the largest energy distance between both sides counts if few random orders of the same values have one
as large; then each side is split again. It assumes no distribution, only that values without a change could have come in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.statistics.pairs import Floats

LEVEL = 0.05
"""The largest share of random orders that may look like a change; of 20 series without any, one has a change point."""

ORDERS = 999
"""The number of random orders."""

LEAST = 3
"""The smallest number of values on either side; with fewer than four on both, no split can be significant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePoint:
    """The position of the first value after a change, and the share of random orders that look as much like a change."""

    position: int
    p_value: float


def change_points(values: Sequence[float], *, seed: int = 0) -> tuple[ChangePoint, ...]:
    """Return the change points of a series of finite values, in order."""
    series = np.asarray(values, dtype=np.float64)
    return tuple(sorted(_split(series, 0, len(series), np.random.default_rng(seed)), key=lambda found: found.position))


def _split(series: Floats, start: int, end: int, random: np.random.Generator) -> Iterator[ChangePoint]:
    """Yield the change points between two positions."""
    length = end - start
    if length < 2 * LEAST:
        return
    distances = np.abs(series[start:end, None] - series[None, start:end])
    split, largest = _largest(distances)
    if largest <= 0:
        return
    as_large = 1  # the order that was found
    for _ in range(ORDERS):
        order = random.permutation(length)
        as_large += _largest(distances[np.ix_(order, order)])[1] >= largest * (1 - 1e-12)
        if as_large > LEVEL * (1 + ORDERS):
            return
    yield ChangePoint(position=start + split, p_value=as_large / (1 + ORDERS))
    yield from _split(series, start, start + split, random)
    yield from _split(series, start + split, end, random)


@lru_cache(maxsize=2)
def _splits(length: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return every split of so many values, and the end of its right side."""
    splits, ends = np.triu_indices(length + 1, k=LEAST)
    enough = splits >= LEAST
    return splits[enough], ends[enough]


def _largest(distances: Floats) -> tuple[int, float]:
    """
    Return the split with the largest energy distance, weighted by the lengths, of (N, N) distances in their order.

    The right side may end early, so that a level that does not last is seen, too.
    """
    length = len(distances)
    sums = np.zeros((length + 1, length + 1))
    sums[1:, 1:] = distances.cumsum(axis=0).cumsum(axis=1)
    splits, ends = _splits(length)
    left, whole = sums[splits, splits], sums[ends, ends]
    between = sums[splits, ends] - left
    m, n = splits, ends - splits
    energy = 2 * between / (m * n) - left / (m * (m - 1)) - (whole - left - 2 * between) / (n * (n - 1))
    weighted = m * n / (m + n) * energy
    best = int(np.argmax(weighted))
    return int(splits[best]), float(weighted[best])
