"""
Pairs of timed plans of which one is known to be faster.

The order of two plans is known or not:
- both finished, and the slower one took more than `TIE` longer: their medians decide. Closer times are a tie and teach nothing.
- one finished within the limit that cut the other off: the one that finished is faster (by more than `TIE` of its own time).
- both were cut off, or one was cut off earlier than the other finished: unknown, left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pilotscope.algorithms.plans.timing import Outcome

TIE = 0.1
"""Times that differ by less than this share of the faster one are a tie: about the noise of single runs of a few ms."""


def ordered_pairs(outcomes: Sequence[Outcome]) -> list[tuple[int, int]]:
    """Return (faster, slower) for every pair of plans of one query whose order is known."""
    return [
        (fast, slow)
        for fast in range(len(outcomes))
        for slow in range(len(outcomes))
        if fast != slow and is_faster(outcomes[fast], outcomes[slow])
    ]


def is_faster(one: Outcome, other: Outcome) -> bool:
    """Tell whether one plan is known to be faster than another, beyond a tie."""
    return one.ms is not None and one.ms * (1 + TIE) < other.at_least_ms
