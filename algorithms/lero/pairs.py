"""
Pairs of timed plans of which one is known to be faster.

The order of two plans is known or not:
- both finished, and the slower one took more than `TIE` longer: their medians decide. Closer times are a tie and teach nothing.
- one finished within the limit that cut the other off: the one that finished is faster (by more than `TIE` of its own time).
- both were cut off, or one was cut off earlier than the other finished: unknown, left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from pytest_pilotscope.algorithms.plans.timing import Outcome, is_faster


def ordered_pairs(outcomes: Sequence[Outcome]) -> list[tuple[int, int]]:
    """Return (faster, slower) for every pair of plans of one query whose order is known."""
    return [
        (fast, slow)
        for fast in range(len(outcomes))
        for slow in range(len(outcomes))
        if fast != slow and is_faster(outcomes[fast], outcomes[slow])
    ]
