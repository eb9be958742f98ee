"""The ways to another plan that are worth a planner call, and the queries that are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

SMALLEST_GAIN = 0.002
"""A way has to save this share of the time of the queries that have it, on average, beyond the savings of the ways before it."""

PRIOR_QUERIES = 1.0
"""A signature's mean saving moves towards that of all queries of its size as if it had so many more queries."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipping:
    """
    The queries that are not worth a planner call, by their signature (`signature_of`).

    Those with a signature in `skipped` are not; neither are those with a signature that is not in `known`, if `skip_unknown`.
    """

    known: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    skip_unknown: bool = False

    def worth_a_look(self, signature: str) -> bool:
        """Tell whether a query with this signature is worth a planner call."""
        return signature not in self.skipped and (signature in self.known or not self.skip_unknown)


def skipping(saved: Sequence[tuple[str, int, float]]) -> Skipping:
    """Find the signatures whose queries are slower with a look than without; each query has its signature, its size and the ms saved."""
    savings: dict[str, list[float]] = defaultdict(list)
    by_size: dict[int, list[float]] = defaultdict(list)
    size_of: dict[str, int] = {}
    for signature, size, saved_ms in saved:
        savings[signature].append(saved_ms)
        by_size[size].append(saved_ms)
        size_of[signature] = size
    skipped = {
        signature
        for signature, found in savings.items()
        if sum(found) + PRIOR_QUERIES * fmean(by_size[size_of[signature]]) < 0 and signature
    }
    overall = fmean(saved_ms for _, _, saved_ms in saved)
    return Skipping(known=tuple(sorted(savings)), skipped=tuple(sorted(skipped)), skip_unknown=overall < 0)
