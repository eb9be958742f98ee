"""Non-increasing step functions from 0 on: the shape of degree sequences, and the arithmetic of the bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """`values[i]` between `ends[i - 1]` (0 for the first) and `ends[i]`, and 0 beyond the last end."""

    ends: Floats
    values: Floats

    @property
    def sums(self) -> Floats:
        """The integral from 0 to each end."""
        summed: Floats = np.cumsum(self.values * np.diff(self.ends, prepend=0.0))
        return summed

    @property
    def total(self) -> float:
        """The integral."""
        return float(self.values @ np.diff(self.ends, prepend=0.0))

    def at(self, ends: Floats) -> Floats:
        """Return the values of the intervals that end at `ends`, which have every end of this function among them."""
        padded = np.append(self.values, 0.0)
        found: Floats = padded[np.searchsorted(self.ends, ends)]
        return found

    def cut(self, total: float) -> Steps:
        """Return the longest part from 0 whose integral is at most `total`."""
        sums = self.sums
        if not len(sums) or sums[-1] <= total:
            return self
        last = int(np.searchsorted(sums, total))
        end = self.ends[last] - (sums[last] - total) / self.values[last]
        return Steps(np.append(self.ends[:last], end), self.values[: last + 1])


def product(functions: Sequence[Steps]) -> Steps:
    """Multiply functions; the result ends where the first of them ends."""
    if len(functions) == 1:
        return functions[0]
    last = min(float(each.ends[-1]) if len(each.ends) else 0.0 for each in functions)
    ends = np.unique(np.concatenate([each.ends[each.ends <= last] for each in functions]))
    return Steps(ends, np.prod([each.at(ends) for each in functions], axis=0))


def by_row(degrees: Steps, weights: Steps) -> Steps:
    """
    Return the weight of each row: rows are ordered by the rank of their value, and a value of rank r has the weight `weights(r)`.

    `degrees` has the number of rows of each value by rank.
    """
    last = min(float(degrees.ends[-1]), float(weights.ends[-1])) if len(degrees.ends) and len(weights.ends) else 0.0
    ranks = np.append(weights.ends[weights.ends < last], last)
    return Steps(np.interp(ranks, np.append(0.0, degrees.ends), np.append(0.0, degrees.sums)), weights.at(ranks))


def by_rank(degrees: Steps, weights: Steps) -> Steps:
    """Return the summed weight of the rows of each value, by its rank; `weights` are those of the rows, as `by_row` gives them."""
    rows = np.append(0.0, degrees.sums)
    ends = np.union1d(degrees.ends, np.interp(weights.ends, rows, np.append(0.0, degrees.ends)))
    places = np.interp(ends, np.append(0.0, degrees.ends), rows)
    return Steps(ends, degrees.at(ends) * _looked_up(weights, places))


def _looked_up(weights: Steps, places: Floats) -> Floats:
    """Return the weights of the intervals that end at `places`, with rounding errors of the places forgiven in favour of larger weights."""
    padded = np.append(weights.values, 0.0)
    found: Floats = padded[np.searchsorted(weights.ends, places * (1 - 1e-12))]
    return found
