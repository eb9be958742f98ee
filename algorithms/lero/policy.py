"""
When to look for another plan, where, for how long, and when to take it: learned from collected times, not from rules of thumb.

Every planner call is time that the user waits. So a query is looked at only if queries with the same joins were worth it; the ways to look
are tried in the order of what they brought, and only as many as a share of the query's predicted time pays for; and another plan
is taken only if its score is better by a margin. All of it is fixed with the model: the same query gets the same plan however busy the
machine is.
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
    """What one planner call takes, in ms: the median by signature, else by number of relations, else of all."""

    by_signature: Mapping[str, float] = field(default_factory=dict)
    by_size: Mapping[int, float] = field(default_factory=dict)
    overall: float = 0.0

    def ms(self, signature: str, size: int) -> float:
        """Predict it for a query."""
        return self.by_signature.get(signature, self.by_size.get(size, self.overall))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    The decisions around the network.

    `factors` and `max_candidates` are the user's. `slots` are the ways worth trying, best first, None for all in the order of the paper;
    they were found on queries of up to `largest` relations, so that nothing is known of larger joins.
    `margin` is in units of the score. `share` of the predicted execution time may go to planner calls; the prediction is
    `exp(intercept + slope * log(cost))` ms. `skipped` are the signatures that are not looked at; those that were never seen are looked at
    unless `skip_unknown`.
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
        """Whether to ask the planner at all."""
        return signature not in self.skipped and (signature in self.known or not self.skip_unknown)

    def calls_for(self, look: Look, signature: str) -> int | None:
        """How many planner calls a query is worth besides the first; None for as many as there are slots."""
        return None if isinf(self.share) else self.calls(float(look.plan.get("Total Cost", 0.0)), signature, look.largest)

    def ordered(self, subplans: Mapping[frozenset[str], float]) -> list[Slot]:
        """Return the slots that a query has, in the order in which they are tried; those of sizes of which nothing is known come last."""
        possible = all_slots(subplans, self.factors)
        if self.slots is None:
            return possible
        there = set(possible)
        return [slot for slot in self.slots if slot in there] + [slot for slot in possible if slot.size > self.largest]

    def calls(self, cost: float, signature: str, size: int) -> int:
        """How many planner calls the predicted time of a plan of this cost pays for."""
        predicted_ms = exp(min(self.intercept + self.slope * log(max(cost, 1.0)), 60.0))
        call_ms = self.planner.ms(signature, size)
        return floor(self.share * predicted_ms / call_ms) if call_ms > 0 else self.max_candidates

    def pick(self, scores: Scores) -> int:
        """Return the plan to run: the one with the best score if it beats that of PostgreSQL's own by the margin, else the own one (0)."""
        best = int(np.argmin(scores))
        return best if scores[0] - scores[best] > self.margin else 0
