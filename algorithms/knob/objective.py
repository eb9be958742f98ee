"""The cost of a trial and its limit. Costs are in seconds, the lower the better, whatever the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Target = Literal["total_time", "p95_time", "throughput"]

_SHARE = 0.95
WORST = 10.0
"""The cost of a trial is at most this many times the default's, also if the trial was cut off or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """
    The cost of a trial from the times of its `count` queries.

    `total_time` is their sum, `p95_time` the time that 95 % of them stay within, `throughput` the mean time, the inverse of queries per
    second.
    """

    target: Target
    count: int

    def cost(self, times_s: Sequence[float]) -> float:
        """Return the cost of a trial that ran all queries, in s."""
        if self.target == "total_time":
            return sum(times_s)
        if self.target == "throughput":
            return sum(times_s) / self.count
        return sorted(times_s)[math.ceil(_SHARE * self.count) - 1]

    def performance(self, cost: float) -> float:
        """Return the target in its own unit: s, or queries per second for `throughput`."""
        return 1 / cost if self.target == "throughput" else cost

    def exceeds(self, times_s: Sequence[float], limit: float) -> bool:
        """Tell whether the cost will be above `limit` whatever the remaining queries take."""
        if self.target == "total_time":
            return sum(times_s) > limit
        if self.target == "throughput":
            return sum(times_s) / self.count > limit
        return sum(time_s > limit for time_s in times_s) > self.count - math.ceil(_SHARE * self.count)

    def query_limit_s(self, times_s: Sequence[float], limit: float) -> float:
        """Return the time after which the next query puts its trial above `limit`; for p95 no single query can, so infinity."""
        if self.target == "total_time":
            return limit - sum(times_s)
        if self.target == "throughput":
            return limit * self.count - sum(times_s)
        return math.inf

    def extrapolated(self, times_s: Sequence[float], default_s: Sequence[float]) -> float:
        """
        Return the cost of a trial that was cut off after the first queries: as much worse than the default as it was on those.

        `default_s` are the default's times of all queries, in the same order.
        """
        reached = sum(default_s[: len(times_s)])
        ratio = sum(times_s) / reached if reached > 0 else WORST
        return min(ratio, WORST) * self.cost(default_s)
