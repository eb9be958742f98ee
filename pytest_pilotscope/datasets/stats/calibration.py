"""
The calibration figures of the generator, and the functions that turn a rank or a random number into a value.

`calibration.json` holds counts, quantiles and frequencies of the STATS data (dump of 2014-09) and no row of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from .draws import Draws, Ints, ranks

ONE = 10**8  # quantile positions are integers in 0 .. ONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Values in ascending order with the number of owners of each, both (k,)."""

    counts: Ints
    values: Ints

    @property
    def owners(self) -> int:
        """The number of owners, summed over the values."""
        return int(self.counts.sum())

    def by_rank(self, score: Ints) -> Ints:
        """
        Give the lowest value to the lowest score and so on: the histogram exactly, aligned with `score`.

        With fewer owners than the histogram has, each gets the mean of the owners it stands for (rounded so that the
        total stays right), so that sums and their shape do not depend on the scale; with more, values repeat.
        """
        size = len(score)
        edges = np.arange(size + 1, dtype=np.int64) * self.owners  # in 1/size of an owner
        ends = np.cumsum(self.counts) * size
        area = np.concatenate([[0], np.cumsum(self.counts * self.values * size)])
        at = np.minimum(np.searchsorted(ends, edges, side="right"), len(ends) - 1)
        inside = edges - (ends[at] - self.counts[at] * size)
        cumulative = (area[at] + inside * self.values[at]) // self.owners
        owned: Ints = np.diff(cumulative)
        return owned[ranks(score)]

    def sampled(self, score: Ints) -> Ints:
        """Give each score the value at its own quantile, without averaging: for attributes whose exact values matter."""
        position = (2 * ranks(score) + 1) * self.owners // (2 * max(1, len(score)))
        found: Ints = self.values[np.searchsorted(np.cumsum(self.counts), position, side="right")]
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """A piecewise linear inverse distribution function: positions (k,) in 0 .. ONE and values (k,), both ascending."""

    positions: Ints
    values: Ints

    def at(self, position: Ints) -> Ints:
        """Return the values at these positions, rounded down."""
        right = np.clip(np.searchsorted(self.positions, position, side="right"), 1, len(self.positions) - 1)
        left = right - 1
        width = np.maximum(self.positions[right] - self.positions[left], 1)
        rise = (self.values[right] - self.values[left]) * (position - self.positions[left]) // width
        found: Ints = self.values[left] + rise
        return found

    def drawn(self, draws: Draws, size: int) -> Ints:
        """Return `size` independent values."""
        return self.at(draws.below(ONE, size))

    def by_rank(self, score: Ints) -> Ints:
        """Return values aligned with `score`, one from each of n equal slices of the distribution."""
        return self.at((2 * ranks(score) + 1) * ONE // (2 * max(1, len(score))))


@cache
def _figures() -> dict[str, dict[str, list[list[int]]]]:
    text = resources.files(__package__).joinpath("calibration.json").read_text(encoding="utf-8")
    figures: dict[str, dict[str, list[list[int]]]] = json.loads(text)
    return figures


def _pairs(rows: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    first, second = np.asarray(rows, dtype=np.int64).T
    return first, second


@cache
def histogram(name: str) -> Histogram:
    """Return the histogram `name`: a fan-out (`badges.userid`), an attribute (`users.views`) or a frequency table."""
    figures = _figures()
    for section in ("fanouts", "atoms", "frequencies"):
        if name in figures[section]:
            counts, values = _pairs(figures[section][name])
            return Histogram(counts=counts, values=values)
    raise KeyError(name)


@cache
def quantiles(name: str) -> Quantiles:
    """Return the distribution `name`: a time column, a lag in seconds, views or tag counts."""
    positions, values = _pairs(_figures()["quantiles"][name])
    return Quantiles(positions=positions, values=values)


@cache
def full_rows(table: str) -> int:
    """Return the number of rows of the table at scale 1."""
    rows: dict[str, int] = _figures()["rows"]  # type: ignore[assignment]  # this one section maps names to numbers
    return rows[table]


def scaled(count: int, scale: float) -> int:
    """Return `count` at this scale, rounded half up, at least 1 (scale is taken in millionths so that rounding is exact)."""
    return max(1, (count * round(scale * 1_000_000) * 2 + 1_000_000) // 2_000_000)
