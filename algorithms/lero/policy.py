"""
The policy: the rules of looking for another plan and of taking it, learned from collected times.

The user waits for every planner call. So the policy looks for plans only if it paid off for queries with the same joins; it tries slots in
the order of their savings, and only as many as a share of the query's predicted time allows; and it takes another plan only if the score is
better by a margin. The model fixes all of it: the same query gets the same plan however busy the machine is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, floor, isinf, log

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.lero.candidates import Look, Slot, all_slots

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerTime:
    """The time of one planner call, in ms: the median by signature, else by number of relations, else of all."""

    by_signature: Mapping[str, float] = field(default_factory=dict)
    by_size: Mapping[int, float] = field(default_factory=dict)
    overall: float = 0.0

    def ms(self, signature: str, size: int) -> float:
        """Predict the time of a call for a query."""
        return self.by_signature.get(signature, self.by_size.get(size, self.overall))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    The decisions around the network.

    `factors` and `max_candidates` are the user's. `slots` are those worth trying, best first, None for all in the order of the paper; they
    come from queries of up to `largest` relations, so nothing is known of larger joins. `margin` is in units of the score. Planner calls
    may take `share` of the predicted execution time, which is `exp(intercept + slope * log(cost))` ms. Queries with a signature in
    `skipped` keep PostgreSQL's own plan without a look; so do those with a signature that is not in `known`, if `skip_unknown`.
    """

    factors: tuple[float, ...]
    max_candidates: int
    slots: tuple[Slot, ...] | None = None
    largest: int = 0
    margin: float = 0.0
    share: float = float("inf")
    intercept: float = 0.0
    slope: float = 0.0
    planner: PlannerTime = field(default_factory=PlannerTime)
    known: frozenset[str] = frozenset()
    skipped: frozenset[str] = frozenset()
    skip_unknown: bool = False

    def worth_a_look(self, signature: str) -> bool:
        """Tell whether a query with this signature is worth a planner call."""
        return signature not in self.skipped and (signature in self.known or not self.skip_unknown)

    def calls_for(self, look: Look, signature: str) -> int | None:
        """Return the number of planner calls that a query is worth besides the first; None for as many as there are slots."""
        return None if isinf(self.share) else self.calls(float(look.plan.get("Total Cost", 0.0)), signature, look.largest)

    def ordered(self, subplans: Mapping[frozenset[str], float]) -> list[Slot]:
        """Return the slots of a query in the order of trying them; those of larger joins than any collected one come last."""
        possible = all_slots(subplans, self.factors)
        if self.slots is None:
            return possible
        there = set(possible)
        return [slot for slot in self.slots if slot in there] + [slot for slot in possible if slot.size > self.largest]

    def calls(self, cost: float, signature: str, size: int) -> int:
        """Return the number of planner calls that the predicted time of a plan of this cost pays for."""
        predicted_ms = exp(min(self.intercept + self.slope * log(max(cost, 1.0)), 60.0))
        call_ms = self.planner.ms(signature, size)
        return floor(self.share * predicted_ms / call_ms) if call_ms > 0 else self.max_candidates

    def pick(self, scores: Scores) -> int:
        """Return the plan with the best score if that beats PostgreSQL's own plan by the margin, else 0, the own plan."""
        best = int(np.argmin(scores))
        return best if scores[0] - scores[best] > self.margin else 0
