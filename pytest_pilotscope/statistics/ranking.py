"""Ranks of sides by speed-up; sides with overlapping intervals share ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pytest_pilotscope.statistics.intervals import Interval
from pytest_pilotscope.statistics.summary import Summary

ITSELF = Interval(estimate=1.0, low=1.0, high=1.0)
"""The speed-up of the baseline, and of each side that differs from it by less than the noise floor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """The ranks (1 is the fastest) that a side may have, given the sides that are certainly faster or certainly slower."""

    first: int
    last: int

    def __str__(self) -> str:
        return str(self.first) if self.first == self.last else f"{self.first}-{self.last}"


def ranks(summary: Summary) -> Mapping[str, Ranks]:
    """Rank the sides that were measured on the whole workload by speed-up; the others get no rank."""
    speedups = {
        name: side.against.speedup if side.against and not side.against.below_noise_floor else ITSELF
        for name, side in summary.sides.items()
        if side.complete and (name == summary.header.baseline_side or (side.against and not side.against.left_out))
    }
    return {
        name: Ranks(
            first=1 + sum(other.low > own.high for other in speedups.values()),
            last=len(speedups) - sum(other.high < own.low for other in speedups.values()),
        )
        for name, own in speedups.items()
    }
