"""
The matrix of queries and arms: completed from the times that are known, and filled by running the cells that promise most.

After *Low Rank Learning for Offline Query Optimization* (Yi et al., SIGMOD 2025). The caller runs the plans; this file knows no database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.plans.timing import Outcome, TimingRules, time_plans

Matrix = npt.NDArray[np.float64]
Known = npt.NDArray[np.bool_]
Cell = tuple[int, int]
"""The number of a query, and of one of its plans."""

NEVER_RUN = Outcome(censored_ms=0.0)
BATCH = 0.1
"""Share of the queries that run a plan between two completions."""


def completed(
    values: Matrix, known: Known, at_least: Matrix, *, rank: int = 5, ridge: float = 0.2, iterations: int = 50, seed: int = 0
) -> Matrix:
    """
    Complete a matrix by alternating least squares of this rank.

    `values` count where `known`. Elsewhere the result is never below `at_least`, the limit that cut a run off (-inf where there is none):
    in each iteration such a cell is the prediction, or its limit if that is larger.
    """
    left = np.random.default_rng(seed).normal(size=(len(values), rank))
    filled = np.where(known, values, np.maximum(at_least, 0.0))
    regular = ridge * np.eye(rank)
    for _ in range(iterations):
        right = np.linalg.solve(left.T @ left + regular, left.T @ filled)
        left = np.linalg.solve(right @ right.T + regular, right @ filled.T).T
        filled = np.where(known, values, np.maximum(left @ right, at_least))
    return filled


def explored(
    arms: Sequence[Sequence[int]],
    own: Sequence[Outcome],
    run: Callable[[int, int, float], float | None],
    *,
    budget: float,
    timing: TimingRules,
    seed: int,
) -> list[list[Outcome]]:
    """
    Run plans until they took `budget` times as long as PostgreSQL's own; return the outcomes of the plans of each query.

    `arms` has the plan of each arm, for each query, and `own` the outcomes of the plans 0. `run(query, plan, limit_ms)` returns a time, or
    None if the limit cut the run off. The limit is that of `timing`, a multiple of the query's best known time. A plan that never ran has
    the outcome `NEVER_RUN`.
    """
    outcomes = [[first, *[NEVER_RUN] * max(row)] for first, row in zip(own, arms, strict=True)]
    left_ms = budget * sum(first.at_least_ms for first in own)
    drawn = np.random.default_rng(seed)
    while left_ms > 0 and (cells := _next_cells(arms, outcomes, drawn)):
        for query, plan in cells:
            if left_ms <= 0:
                break
            limit_ms = min(max(timing.multiple * _best_ms(outcomes[query]), timing.floor_ms), timing.last_limit_ms)
            once = replace(timing, rounds=1, first_limit_ms=limit_ms, last_limit_ms=limit_ms)
            found = time_plans(1, lambda _, ms, at=query, of=plan: run(at, of, ms), once)[0]  # type: ignore[misc]
            outcomes[query][plan] = found
            left_ms -= (found.warm_up_ms or 0.0) + found.at_least_ms
    return outcomes


def _next_cells(arms: Sequence[Sequence[int]], outcomes: Sequence[Sequence[Outcome]], drawn: np.random.Generator) -> list[Cell]:
    """Return the cells with the largest predicted improvement over the best known time; where fewer promise one, others at random."""
    predicted = _predicted_ms(arms, outcomes)
    promising: list[tuple[float, Cell]] = []
    others: list[Cell] = []
    for query, row in enumerate(arms):
        left = [arm for arm, plan in enumerate(row) if outcomes[query][plan] == NEVER_RUN]
        if not left:
            continue
        arm = min(left, key=lambda each: predicted[query, each])
        gain = _best_ms(outcomes[query]) / predicted[query, arm] - 1
        if gain > 0:
            promising.append((gain, (query, row[arm])))
        else:
            others.append((query, row[left[drawn.integers(len(left))]]))
    count = max(1, round(BATCH * len(arms)))
    best = [cell for _, cell in sorted(promising, reverse=True)[:count]]
    return best + [others[position] for position in drawn.permutation(len(others))[: count - len(best)]]


def _predicted_ms(arms: Sequence[Sequence[int]], outcomes: Sequence[Sequence[Outcome]]) -> Matrix:
    """Complete the logarithms of times over that of PostgreSQL's own plan, and return the times."""
    own = np.array([_log(row[0].at_least_ms) for row in outcomes])[:, None]
    cells = [[outcomes[query][plan] for plan in row] for query, row in enumerate(arms)]
    known = np.array([[cell.ms is not None for cell in row] for row in cells])
    logs = np.array([[_log(cell.at_least_ms) for cell in row] for row in cells]) - own
    never = np.array([[cell == NEVER_RUN for cell in row] for row in cells])
    usual = np.where(never, 0.0, logs).sum(axis=0) / (1 + (~never).sum(axis=0))
    ratios = usual + completed(logs - usual, known, np.where(never, -np.inf, logs - usual))
    predicted: Matrix = np.exp(np.clip(ratios + own, -50.0, 50.0))
    return predicted


def _best_ms(outcomes: Sequence[Outcome]) -> float:
    """Return the best known time of a query, or the limit of PostgreSQL's own plan if none finished."""
    return min((outcome.ms for outcome in outcomes if outcome.ms is not None), default=outcomes[0].at_least_ms)


def _log(ms: float) -> float:
    return log(max(ms, 1e-3))
