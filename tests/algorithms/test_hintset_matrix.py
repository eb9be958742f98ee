"""The matrix form of hintset: completing a matrix with censored times, and running what promises most within a budget."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pytest_pilotscope.algorithms.hintset.matrix import NEVER_RUN, Matrix, completed, explored
from pytest_pilotscope.algorithms.plans.timing import Outcome, TimingRules

TIMING = TimingRules(multiple=1.5, floor_ms=1.0)


def planted(queries: int = 120, arms: int = 20, rank: int = 2, *, seed: int = 0) -> Matrix:
    """A matrix of low rank, its entries above 0."""
    drawn = np.random.default_rng(seed)
    found: Matrix = drawn.uniform(0.5, 2.0, size=(queries, rank)) @ drawn.uniform(0.5, 2.0, size=(rank, arms))
    return found


def relative_error(found: Matrix, truth: Matrix, where: np.ndarray) -> float:
    """Return the root of the mean squared error over that of the truth around its mean."""
    return float(np.sqrt(np.mean((found - truth)[where] ** 2)) / truth.std())


def test_it_recovers_a_matrix_of_low_rank() -> None:
    """From 40 % of the entries; those that are known stay as they are."""
    truth = planted()
    known = np.random.default_rng(1).random(truth.shape) < 0.4
    found = completed(truth, known, np.full(truth.shape, -np.inf), rank=2, ridge=0.01, iterations=500)
    assert np.array_equal(found[known], truth[known])
    assert relative_error(found, truth, ~known) < 0.05


@pytest.mark.parametrize("seed", range(3))
def test_censored_entries_are_recovered_only_as_censored(seed: int) -> None:
    """
    If all large entries were cut off at a limit, the limits as lower bounds lead to the truth.

    Taken for times, or left out, they do not, and the largest of them look several times too cheap.
    """
    truth = planted(seed=seed)
    limits = np.full(truth.shape, float(np.quantile(truth, 0.6)))
    seen = np.random.default_rng(seed + 10).random(truth.shape) < 0.6
    cut = seen & (truth > limits)
    known = seen & ~cut
    bounds = np.where(cut, limits, -np.inf)
    fit = {"rank": 2, "ridge": 0.01, "iterations": 1000}
    censored = relative_error(completed(truth, known, bounds, **fit), truth, cut)  # type: ignore[arg-type]
    as_times = relative_error(completed(np.minimum(truth, limits), known | cut, bounds, **fit), truth, cut)  # type: ignore[arg-type]
    assert censored < 0.5 * as_times
    assert (completed(truth, known, bounds, **fit)[cut] >= limits[cut]).all()  # type: ignore[arg-type]


def runs_of(truth: Matrix, log: list[tuple[int, int, float]]) -> Callable[[int, int, float], float | None]:
    """Return a run that takes the true time, and notes what was asked for."""

    def run(query: int, plan: int, limit_ms: float) -> float | None:
        log.append((query, plan, limit_ms))
        return float(truth[query, plan]) if truth[query, plan] <= limit_ms else None

    return run


def own_of(truth: Matrix) -> list[Outcome]:
    """Return the outcomes of PostgreSQL's own plans."""
    return [Outcome(times_ms=(float(ms),)) for ms in truth[:, 0]]


def explore(truth: Matrix, *, budget: float, seed: int = 0) -> tuple[list[list[Outcome]], list[tuple[int, int, float]]]:
    """Explore a matrix in which every arm has a plan of its own; return the outcomes and what ran."""
    log: list[tuple[int, int, float]] = []
    arms = [range(truth.shape[1])] * len(truth)
    return explored(arms, own_of(truth), runs_of(truth, log), budget=budget, timing=TIMING, seed=seed), log


def in_ms(seed: int = 0) -> Matrix:
    """Times of 60 queries under 20 arms: the logarithms of the arms' effects are of rank 2, and queries differ a hundredfold."""
    drawn = np.random.default_rng(seed)
    effects = 0.7 * drawn.normal(size=(60, 2)) @ drawn.normal(size=(2, 20)) + 0.1 * drawn.normal(size=(60, 20))
    found: Matrix = drawn.lognormal(3, 1.5, size=(60, 1)) * np.exp(effects)
    return found


def test_no_run_takes_longer_than_the_best_known_time_allows() -> None:
    """A limit is 1.5 times the best time that this query had so far; what is cut off is a lower bound, and never runs again."""
    truth = in_ms()
    outcomes, log = explore(truth, budget=3.0)
    best = truth[:, 0].copy()
    cut: set[tuple[int, int]] = set()
    for query, plan, limit_ms in log:
        assert (query, plan) not in cut
        assert limit_ms <= max(1.5 * best[query], 1.0) * (1 + 1e-9)
        if truth[query, plan] > limit_ms:
            cut.add((query, plan))
            assert (outcomes[query][plan].ms, outcomes[query][plan].censored_ms) == (None, limit_ms)
        best[query] = min(best[query], truth[query, plan] if truth[query, plan] <= limit_ms else np.inf)
    assert cut


def test_the_budget_is_kept() -> None:
    """The time of all runs is the budget, and at most that of one plan more; a plan that never ran is known as such."""
    truth = in_ms()
    outcomes, log = explore(truth, budget=0.5)
    spent = sum(min(float(truth[query, plan]), limit_ms) for query, plan, limit_ms in log)
    assert 0.5 * truth[:, 0].sum() <= spent <= 0.5 * truth[:, 0].sum() + 3 * truth[:, 0].max()
    assert sum(outcome == NEVER_RUN for row in outcomes for outcome in row) > 500


def saved_by_chance(truth: Matrix, *, budget: float, seed: int) -> float:
    """Return the ms saved by running cells in a random order, with the same limits, until the budget is spent."""
    best, left_ms = truth[:, 0].copy(), budget * truth[:, 0].sum()
    for cell in np.random.default_rng(seed).permutation(truth.size):
        query, plan = divmod(int(cell), truth.shape[1])
        if plan and left_ms > 0:
            limit_ms = TIMING.multiple * best[query]
            left_ms -= 2 * truth[query, plan] if truth[query, plan] <= limit_ms else limit_ms
            best[query] = min(best[query], truth[query, plan])
    return float(truth[:, 0].sum() - best.sum())


def test_exploring_saves_more_than_chance() -> None:
    """Within the time of the own plans, the completed matrix finds more of what can be saved than random cells do."""
    shares = []
    for seed in range(10):
        truth = in_ms(seed)
        outcomes, _ = explore(truth, budget=1.0, seed=seed)
        own_ms, possible_ms = truth[:, 0].sum(), truth[:, 0].sum() - truth.min(axis=1).sum()
        found = sum(min(outcome.ms for outcome in row if outcome.ms is not None) for row in outcomes)
        shares.append(((own_ms - found) / possible_ms, saved_by_chance(truth, budget=1.0, seed=seed) / possible_ms))
    by_matrix, by_chance = np.mean(shares, axis=0)
    assert by_matrix > by_chance + 0.05


def test_equal_seeds_explore_the_same_cells() -> None:
    """Equal times and an equal seed give equal runs."""
    assert explore(in_ms(), budget=1.0, seed=3)[1] == explore(in_ms(), budget=1.0, seed=3)[1]


def test_arms_with_one_plan_run_it_once() -> None:
    """A plan that several arms lead to is one cell, and exploring ends when nothing is left."""
    truth, log = np.array([[10.0, 5.0], [8.0, 20.0]]), list[tuple[int, int, float]]()
    outcomes = explored([(0, 1, 1, 0), (0, 0, 1, 1)], own_of(truth), runs_of(truth, log), budget=1000.0, timing=TIMING, seed=0)
    assert [[outcome.ms for outcome in row] for row in outcomes] == [[10.0, 5.0], [8.0, None]]
    assert sorted({(query, plan) for query, plan, _ in log}) == [(0, 1), (1, 1)]
