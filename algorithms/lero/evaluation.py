"""Quality of the choices on collected queries, whose times are known: rank, regret, regressions, and an explanation of each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pytest_pilotscope.algorithms.lero.choice import plan_difference
from pytest_pilotscope.algorithms.lero.policy import Policy
from pytest_pilotscope.algorithms.lero.tuning import ScoredQuery, replay
from pytest_pilotscope.algorithms.plans.timing import is_faster
from pytest_pilotscope.places.privatefiles import private_folder, write_private


def true_rank(scored: ScoredQuery, plan: int) -> int:
    """Return 1 + the number of candidates that are known to be faster than a plan, beyond ties."""
    outcomes = scored.query.outcomes
    return 1 + sum(is_faster(other, outcomes[plan]) for other in outcomes)


def figures(queries: Sequence[ScoredQuery], policy: Policy, prefix: str) -> dict[str, int | float]:
    """
    Sum up the choices on some queries; each name begins with `prefix`. Empty for no queries.

    `top1_accuracy` and `regret` judge the network alone, choosing among all candidates: the share of queries for which no other candidate
    is faster, and the time of the chosen plans over that of the best ones, minus 1. `own_regret` is the regret of PostgreSQL's own plans.
    The time of a plan is its `CollectedQuery.counted_ms`. `queries` is the number of queries. The others judge network and policy together:
    `speedup` with the time for choosing, the share of that time in the total, choices slower and faster than PostgreSQL's own plan.
    """
    whole = [scored for scored in queries if scored.query.best_ms is not None]
    if not whole:
        return {}
    best_ms = sum(scored.query.best_ms or 0.0 for scored in whole)
    first = [int(np.argmin(scored.scores)) for scored in whole]
    chosen_ms = sum(scored.query.counted_ms(plan) for scored, plan in zip(whole, first, strict=True))
    runs = [replay(scored, policy) for scored in whole]
    taken = [(scored.query.outcomes[run.plan], scored.query.own) for scored, run in zip(whole, runs, strict=True)]
    own_ms, total_ms, choosing_ms = (
        sum(values) for values in zip(*((run.own_ms, run.total_ms, run.choosing_ms) for run in runs), strict=True)
    )
    found: dict[str, int | float] = {
        "queries": len(whole),
        "top1_accuracy": sum(true_rank(scored, plan) == 1 for scored, plan in zip(whole, first, strict=True)) / len(whole),
        "regret": chosen_ms / best_ms - 1,
        "own_regret": own_ms / best_ms - 1,
        "speedup": own_ms / total_ms,
        "choosing_share": choosing_ms / total_ms,
        "planner_calls_per_query": sum(run.calls for run in runs) / len(runs),
        "regressions": sum(is_faster(own, outcome) for outcome, own in taken),
        "improvements": sum(is_faster(outcome, own) for outcome, own in taken),
    }
    return {f"{prefix}_{name}": value for name, value in found.items()}


def write_explanations(path: Path, queries: Sequence[ScoredQuery], policy: Policy) -> Path:
    """Write a line of JSON per query: candidates with scores and times, the choice, its true rank, its regret and its difference."""
    private_folder(path.parent)
    lines = [json.dumps(explained(scored, policy)) for scored in queries]
    write_private(path, "".join(f"{line}\n" for line in lines))
    return path


def explained(scored: ScoredQuery, policy: Policy) -> dict[str, Any]:
    """Explain the choice for one collected query; a censored candidate has a limit in place of a time."""
    query, run = scored.query, replay(scored, policy)
    best_ms = query.best_ms
    return {
        "query": query.query_id,
        "chosen": run.plan,
        "rank": true_rank(scored, run.plan),
        "regret_ms": None if best_ms is None else round(run.run_ms - best_ms, 3),
        "own_ms": round(run.own_ms, 3),
        "chosen_ms": round(run.run_ms, 3),
        "choosing_ms": round(run.choosing_ms, 3),
        "planner_calls": run.calls,
        "candidates": [
            {
                "factor": None if slot is None else slot.factor,
                "size": None if slot is None else slot.size,
                "score": round(float(score), 5),
                "ms": outcome.ms,
                "more_than_ms": outcome.censored_ms,
            }
            for slot, score, outcome in zip(query.slots, scored.scores, query.outcomes, strict=True)
        ],
        "difference": plan_difference(query.plans[0], query.plans[run.plan]) if run.plan else [],
    }
