"""The ways to another plan that are worth a planner call."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

SMALLEST_GAIN = 0.002
"""A way has to save this share of the time of the queries that have it, on average, beyond the savings of the ways before it."""

W = TypeVar("W", bound=Hashable)


def worthwhile(own_ms: Sequence[float], reached: Mapping[W, Sequence[tuple[int, float]]]) -> tuple[W, ...]:
    """
    Order ways by their savings beyond those before them, and drop those that save nothing.

    `own_ms` are the times of PostgreSQL's own plans; each way has queries, by position, with the time of its plan. A query's saving is the
    share of its best time so far, so that one slow query does not decide alone.
    """
    best, left, ordered = list(own_ms), dict(reached), []
    while left:
        gains = {
            way: sum(max(1 - ms / best[position], 0.0) for position, ms in ends if best[position] > 0) / len(ends)
            for way, ends in left.items()
        }
        way = max(gains, key=lambda each: gains[each])
        if gains[way] < SMALLEST_GAIN:
            break
        ordered.append(way)
        for position, ms in left.pop(way):
            best[position] = min(best[position], ms)
    return tuple(ordered)
