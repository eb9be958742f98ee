"""
Tuning of the policy: it replays collected queries under different policies, and keeps the policy with the least time.

No query runs. The collection has the time of every planner call, the resulting plan and the time of that plan, so the replay can add up the
time spent on choosing and the time saved. The model's scores of its training queries are too good, so margin and share are tuned on
validation queries, or on the training queries if there are no others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf, log
from statistics import median
from typing import Literal

import numpy as np

from pytest_pilotscope.algorithms.lero.candidates import Look, Slot
from pytest_pilotscope.algorithms.lero.collected import CollectedQuery
from pytest_pilotscope.algorithms.lero.policy import PlannerTime, Policy, Scores
from pytest_pilotscope.algorithms.plans.savings import skipping, worthwhile

Effort = Literal["auto", "all"]

SHARES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, inf)
"""Candidate values of `Policy.share`."""

MARGINS = 20
"""Number of candidate margins: quantiles of those that make a difference."""

AS_GOOD = 1.01
"""Policies whose total is within this factor of the smallest are equally good; the one with the smallest losses wins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredQuery:
    """A collected query and the scores of its plans."""

    query: CollectedQuery
    scores: Scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The result of a policy for one query: its plan, planner calls, the ms of choosing, of that plan and of PostgreSQL's own plan."""

    plan: int
    calls: int
    choosing_ms: float
    run_ms: float
    own_ms: float

    @property
    def total_ms(self) -> float:
        """The time of the query, without the planning that every query needs anyway."""
        return self.choosing_ms + self.run_ms


def replay(scored: ScoredQuery, policy: Policy, *, look_always: bool = False) -> Replayed:
    """Apply a policy to a collected query; the time of a plan is its `CollectedQuery.counted_ms`."""
    query = scored.query
    own_ms = query.own.at_least_ms
    if not (look_always or policy.worth_a_look(query.signature)):
        return Replayed(plan=0, calls=0, choosing_ms=0.0, run_ms=own_ms, own_ms=own_ms)
    look = Look(plan=query.plans[0], subplans=query.subplans, elapsed_ms=query.look_ms)
    made = {attempt.slot: attempt for attempt in query.attempts}
    attempts = [made[slot] for slot in policy.ordered(query.subplans) if slot in made][: policy.calls_for(look, query.signature)]
    plans = [0, *dict.fromkeys(attempt.plan for attempt in attempts if attempt.plan != 0)]
    plan = plans[policy.pick(scored.scores[plans])]
    return Replayed(
        plan=plan,
        calls=1 + len(attempts),
        choosing_ms=query.look_ms + sum(attempt.elapsed_ms for attempt in attempts),
        run_ms=query.counted_ms(plan),
        own_ms=own_ms,
    )


def tuned(
    training: Sequence[ScoredQuery], validation: Sequence[ScoredQuery], *, start: Policy, margin: float | None, effort: Effort
) -> Policy:
    """
    Return the policy for a model. `start` has the user's factors and the most candidates.

    A `margin` that is not None is the user's. With the effort `all` the policy tries every slot of every query, as in the paper.
    """
    basis = validation or training
    policy = start
    if effort == "auto":
        queries = [scored.query for scored in training]
        largest = max(query.largest for query in queries)
        policy = replace(_with_prediction(policy, queries), slots=useful_slots(queries, start.factors), largest=largest)
    shares = SHARES if effort == "auto" else (inf,)
    margins = _margins(basis) if margin is None else [margin]
    policy = _best([replace(policy, share=share, margin=each) for share in shares for each in margins], basis)
    return policy if effort == "all" else _with_skipping(policy, [*training, *validation])


def useful_slots(queries: Sequence[CollectedQuery], factors: Iterable[float]) -> tuple[Slot, ...]:
    """
    Order the slots by their savings beyond those before them, and drop those that save nothing.

    A query's saving is the share of its best time so far, so that one slow query does not decide alone.
    """
    reached: dict[Slot, list[tuple[int, float]]] = defaultdict(list)
    for position, query in enumerate(queries):
        for attempt in query.attempts:
            if attempt.slot.factor in factors:
                reached[attempt.slot].append((position, query.counted_ms(attempt.plan)))
    return worthwhile([query.own.at_least_ms for query in queries], reached)


def _with_prediction(policy: Policy, queries: Sequence[CollectedQuery]) -> Policy:
    """Fit the line from the logarithm of a cost to that of a time, and the medians of planner calls."""
    points = [(log(max(float(query.plans[0].get("Total Cost", 0.0)), 1.0)), log(max(query.own.at_least_ms, 1e-3))) for query in queries]
    costs, times = (np.array(values) for values in zip(*points, strict=True))
    slope = float(np.polyfit(costs, times, 1)[0]) if np.ptp(costs) > 0 else 0.0
    by_signature: dict[str, list[float]] = defaultdict(list)
    by_size: dict[int, list[float]] = defaultdict(list)
    for query in queries:
        calls = [query.look_ms, *(attempt.elapsed_ms for attempt in query.attempts)]
        by_signature[query.signature] += calls
        by_size[query.largest] += calls
    planner = PlannerTime(
        by_signature={signature: median(calls) for signature, calls in by_signature.items()},
        by_size={size: median(calls) for size, calls in by_size.items()},
        overall=median(call for calls in by_size.values() for call in calls),
    )
    return replace(policy, slope=slope, intercept=float(times.mean() - slope * costs.mean()), planner=planner)


def _margins(basis: Sequence[ScoredQuery]) -> list[float]:
    """Return 0, quantiles of the predicted advantages, and the largest of them, with which PostgreSQL's own plan always stays."""
    advantages = [float(scored.scores[0] - scored.scores.min()) for scored in basis]
    positive = [advantage for advantage in advantages if advantage > 0]
    if not positive:
        return [0.0]
    return [0.0, *np.unique(np.quantile(positive, np.linspace(0, 1, MARGINS))).tolist()]


def _best(policies: Sequence[Policy], basis: Sequence[ScoredQuery]) -> Policy:
    results = []
    for policy in policies:
        runs = [replay(scored, policy, look_always=True) for scored in basis]
        results.append((sum(run.total_ms for run in runs), sum(max(run.run_ms - run.own_ms, 0.0) for run in runs)))
    enough_ms = AS_GOOD * min(total_ms for total_ms, _ in results)
    good = [position for position, (total_ms, _) in enumerate(results) if total_ms <= enough_ms]
    return policies[min(good, key=lambda position: (results[position][1], -policies[position].margin, results[position][0]))]


def _with_skipping(policy: Policy, queries: Sequence[ScoredQuery]) -> Policy:
    """Skip the signatures whose queries are slower with a look than without."""
    runs = [(scored.query, replay(scored, policy, look_always=True)) for scored in queries]
    found = skipping([(query.signature, query.largest, run.own_ms - run.total_ms) for query, run in runs])
    return replace(policy, known=frozenset(found.known), skipped=frozenset(found.skipped), skip_unknown=found.skip_unknown)
