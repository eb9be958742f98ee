"""The cost of a trial and its limit. Costs are in seconds, the lower the better, whatever the target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Target = Literal["total_time", "p95_time", "p99_time", "throughput"]

SHARES = {"p95_time": 0.95, "p99_time": 0.99}
"""The share of the queries that stay within the target, for those that are quantiles."""

WORST = 10.0
"""The cost of a trial is at most this many times the default's, also if the trial was cut off or failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """
    The cost of a trial from the times of its `count` queries, or of all executions of all `clients` at once, scripts that write included.

    `total_time` is their sum, as far as the clients do not share it: by Little's law, the time in which they do all of it. `p95_time` and
    `p99_time` are the times that 95 % and 99 % of them stay within, `throughput` is the mean time that a client needs, the inverse of
    executions per second.
    """

    target: Target
    count: int
    clients: int = 1

    def cost(self, times_s: Sequence[float]) -> float:
        """Return the cost of a trial that ran all queries, in s."""
        if self.target == "total_time":
            return sum(times_s) / self.clients
        if self.target == "throughput":
            return sum(times_s) / self.count / self.clients
        return sorted(times_s)[math.ceil(SHARES[self.target] * self.count) - 1]

    def partial(self, times_s: Sequence[float]) -> float:
        """Return the cost if these times, some or all, are a sample of all."""
        return replace(self, count=len(times_s)).cost(times_s) * (self.count / len(times_s) if self.target == "total_time" else 1.0)

    def performance(self, cost: float) -> float:
        """Return the target in its own unit: s, or queries per second for `throughput`."""
        return 1 / cost if self.target == "throughput" else cost

    def exceeds(self, times_s: Sequence[float], limit: float) -> bool:
        """Tell whether the cost will be above `limit` whatever the remaining queries take."""
        if self.target in SHARES:
            return sum(time_s > limit for time_s in times_s) > self.count - math.ceil(SHARES[self.target] * self.count)
        return self.cost(times_s) > limit

    def query_limit_s(self, times_s: Sequence[float], limit: float) -> float:
        """Return the time after which the next query puts its trial above `limit`; no single query can for a quantile, so infinity."""
        if self.target in SHARES:
            return math.inf
        return limit * self.clients * (self.count if self.target == "throughput" else 1) - sum(times_s)

    def extrapolated(self, times_s: Sequence[float], default_s: Sequence[float]) -> float:
        """
        Return the cost of a trial that was cut off after the first queries: as much worse than the default as it was on those.

        `default_s` are the default's times of all queries, in the same order.
        """
        reached = sum(default_s[: len(times_s)])
        ratio = sum(times_s) / reached if reached > 0 else WORST
        return min(ratio, WORST) * self.cost(default_s)
