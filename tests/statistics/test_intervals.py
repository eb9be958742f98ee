"""Ratios, and the coverage of their intervals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import stdtr, stdtrit

from pytest_pilotscope.statistics import intervals
from pytest_pilotscope.statistics.intervals import (
    Interval,
    holm,
    holm_after_discarding,
    increases_until_certain,
    mean_ratios,
    query_ratios,
    unpaired,
    workload_ratios,
)
from pytest_pilotscope.statistics.pairs import Floats, Pairs
from tests.gate.noise import Machine


def pairs(baseline_ms: Floats, candidate_ms: Floats) -> Pairs:
    """Return the pairs of two matrices (Q, R) in which nothing timed out."""
    nothing = np.zeros(baseline_ms.shape, dtype=np.bool_)
    return Pairs(
        query_ids=tuple(f"q{i}" for i in range(len(baseline_ms))),
        baseline_ms=baseline_ms,
        candidate_ms=candidate_ms,
        baseline_timed_out=nothing,
        candidate_timed_out=nothing,
    )


def noisy(
    random: np.random.Generator, queries: int, rounds: int, *, unlike: float = 0.0, uneven: float = 0.5, noise: float = 0.023
) -> Pairs:
    """Return pairs with a median ratio of 1; `unlike` is the spread of the queries' true log ratios, `uneven` that of their log times."""
    true_ms = np.exp(random.normal(2, uneven, (queries, 1)))
    baseline = true_ms * np.exp(random.normal(0, noise / math.sqrt(2), (queries, rounds)))
    ratios = np.exp(random.normal(0, unlike, (queries, 1)))
    return pairs(baseline, true_ms * ratios * np.exp(random.normal(0, noise / math.sqrt(2), (queries, rounds))))


def test_a_constant_ratio_is_known_exactly() -> None:
    """If every pair has the same ratio, the estimate is that ratio and the interval has no width."""
    baseline = np.array([[1.0, 2.0, 4.0], [10.0, 30.0, 20.0]])
    ratios = workload_ratios(pairs(baseline, baseline * 2))
    for interval in (ratios.geometric_mean, ratios.total):
        assert (interval.estimate, interval.low, interval.high) == pytest.approx((2, 2, 2))
    assert {query.outcome for query in query_ratios(pairs(baseline, baseline * 2))} == {"loss"}
    assert {query.outcome for query in query_ratios(pairs(baseline, baseline / 2))} == {"win"}
    assert {query.outcome for query in query_ratios(pairs(baseline, baseline))} == {"tie"}


def test_the_total_weighs_by_time_and_the_geometric_mean_does_not() -> None:
    """A query of 1 ms that doubles and one of 99 ms that does not: 1.01 in total, the square root of 2 in the mean."""
    baseline = np.array([[1.0] * 3, [99.0] * 3])
    ratios = workload_ratios(pairs(baseline, baseline * [[2], [1]]))
    assert ratios.total.estimate == pytest.approx(1.01)
    assert ratios.geometric_mean.estimate == pytest.approx(math.sqrt(2))


def test_exchanging_the_sides_inverts_the_ratio() -> None:
    """Slow-down and speed-up are two views of one figure: no side is favoured."""
    there = noisy(np.random.default_rng(0), 20, 5, unlike=0.3)
    back = pairs(there.candidate_ms, there.baseline_ms)
    for forward, backward in zip(query_ratios(there), query_ratios(back), strict=True):
        inverse = backward.ratio.inverse
        assert (inverse.estimate, inverse.low, inverse.high) == pytest.approx(
            (forward.ratio.estimate, forward.ratio.low, forward.ratio.high)
        )
    assert workload_ratios(there).total.estimate == pytest.approx(workload_ratios(back).total.inverse.estimate)


def test_a_run_against_itself_is_even() -> None:
    """With a reference the ratio is that of the ratios: a candidate twice as slow as its baseline, then and now, is unchanged."""
    run = noisy(np.random.default_rng(0), 20, 5, unlike=0.3)
    ratios = workload_ratios(run, run)
    assert ratios.total.estimate == pytest.approx(1)
    assert ratios.geometric_mean.estimate == pytest.approx(1)
    assert {query.outcome for query in query_ratios(run, run)} == {"tie"}


def test_a_faster_machine_changes_no_ratio_of_ratios() -> None:
    """The same pairs on a machine three times as fast compare exactly as on the first: times do not carry over, ratios do."""
    random = np.random.default_rng(0)
    now, before = noisy(random, 20, 5), noisy(random, 20, 5)
    other_machine = pairs(before.baseline_ms / 3, before.candidate_ms / 3)
    here, there = workload_ratios(now, before), workload_ratios(now, other_machine)
    assert (here.total.low, here.geometric_mean.low) == pytest.approx((there.total.low, there.geometric_mean.low))


def test_the_same_seed_gives_the_same_interval() -> None:
    """The bootstrap is seeded; another seed gives nearly the same."""
    run = noisy(np.random.default_rng(0), 30, 5, unlike=0.3)
    assert workload_ratios(run, seed=1) == workload_ratios(run, seed=1)
    first, second = workload_ratios(run, seed=1).total, workload_ratios(run, seed=2).total
    assert first != second
    assert math.log(first.high / first.low) == pytest.approx(math.log(second.high / second.low), rel=0.15)


def test_nothing_to_compare_is_an_error() -> None:
    """Without pairs there is an error, not a ratio of 1."""
    with pytest.raises(ValueError, match=r"^there is no pair to compare: no query ran to the end on both sides$"):
        workload_ratios(pairs(np.ones((0, 5)), np.ones((0, 5))))


def test_one_round_of_one_query_says_nothing_about_noise() -> None:
    """A single round has an estimate, an infinite interval and no significant outcome."""
    run = pairs(np.array([[10.0]]), np.array([[50.0]]))
    total = workload_ratios(run).total
    assert (total.estimate, total.low, total.high) == pytest.approx((5, 0, math.inf))
    assert [(query.ratio.low, query.ratio.high, query.outcome) for query in query_ratios(run)] == [(0.0, math.inf, "tie")]
    assert (total.inverse.low, total.inverse.high) == (0.0, math.inf)


@pytest.mark.parametrize("rounds", [2, 3, 5, 10])
def test_the_interval_of_a_query_covers_its_ratio(rounds: int) -> None:
    """Of 4000 simulated queries the 95 % interval holds the truth for 94 to 97 %, from two rounds on."""
    ratios = mean_ratios(noisy(np.random.default_rng(rounds), 4000, rounds))
    covered = float((np.abs(ratios.mean) <= ratios.margin(0.95)).mean())
    assert 0.94 <= covered <= 0.97


def test_resampling_five_rounds_would_not_cover() -> None:
    """The percentile bootstrap of five rounds holds the truth in less than 88 % of the cases, so a query's interval is Student's."""
    random = np.random.default_rng(0)
    log_ratios = noisy(random, 1000, 5).log_ratios
    draws = log_ratios[:, random.integers(5, size=(500, 5))].mean(axis=-1)
    low, high = np.quantile(draws, [0.025, 0.975], axis=1)
    assert ((low <= 0) & (high >= 0)).mean() < 0.88


@pytest.mark.parametrize(("queries", "uneven"), [(2, 0.5), (5, 1.8), (20, 1.8), (146, 0.5)])
@pytest.mark.parametrize("unlike", [0.0, 0.5])
def test_the_intervals_of_the_workload_cover_its_ratios(queries: int, uneven: float, unlike: float) -> None:
    """
    Over 300 simulated runs both intervals hold the truth in at least 92 %, for few and for unevenly long queries, alike or not.

    The truth is that of all queries the workload stands for: 1 in the geometric mean, exp(unlike^2 / 2) in total.
    """
    random = np.random.default_rng(queries)
    runs = [workload_ratios(noisy(random, queries, 5, unlike=unlike, uneven=uneven), replicates=200, seed=i) for i in range(300)]
    total = math.exp(unlike**2 / 2)
    assert np.mean([run.geometric_mean.low <= 1 <= run.geometric_mean.high for run in runs]) >= 0.92
    assert np.mean([run.total.low <= total <= run.total.high for run in runs]) >= 0.92


@pytest.mark.parametrize("rounds", [3, 5, 10])
def test_queries_that_run_at_once_share_their_noise(rounds: int) -> None:
    """Slices of 30 queries differ by 5 % as a whole: the intervals hold the truth in at least 92 %, those of resampled queries do not."""
    random = np.random.default_rng(rounds)
    runs = []
    for _ in range(300):
        run = noisy(random, 30, rounds)
        runs.append(replace(run, candidate_ms=run.candidate_ms * np.exp(random.normal(0, 0.05, (1, rounds)))))
    apart = [workload_ratios(run, replicates=200, seed=i) for i, run in enumerate(runs)]
    at_once = [workload_ratios(replace(run, at_once=True), replicates=200, seed=i) for i, run in enumerate(runs)]
    for name in ("geometric_mean", "total"):
        assert np.mean([getattr(run, name).low <= 1 <= getattr(run, name).high for run in at_once]) >= 0.92
        assert np.mean([getattr(run, name).low <= 1 <= getattr(run, name).high for run in apart]) < 0.8


def test_two_rounds_of_queries_at_once_have_no_interval() -> None:
    """Two rounds that happen to be alike say nothing of a third."""
    ratios = workload_ratios(replace(noisy(np.random.default_rng(0), 30, 2), at_once=True))
    assert (ratios.total.low, ratios.total.high) == (0.0, math.inf)


def test_one_disturbed_execution_makes_no_difference() -> None:
    """A single outlier among five rounds, however large, moves neither figure of the workload, and its query stays a tie."""
    clean = noisy(np.random.default_rng(0), 10, 5)
    disturbed = clean.candidate_ms.copy()
    disturbed[3, 2] *= 100
    run = pairs(clean.baseline_ms, disturbed)
    for before, after in zip(estimates(clean), estimates(run), strict=True):
        assert after == pytest.approx(before, abs=0.01)
    assert query_ratios(run)[3].outcome == "tie"


def estimates(run: Pairs) -> tuple[float, float]:
    """Return the two estimates for the workload."""
    ratios = workload_ratios(run)
    return ratios.geometric_mean.estimate, ratios.total.estimate


def test_without_a_difference_all_queries_tie() -> None:
    """Over 200 A/A runs of 50 queries with realistic noise, at least 95 % show not one win or loss."""
    runs = Machine().sessions(200, np.random.default_rng(5))
    even = [all(query.outcome == "tie" for query in query_ratios(run)) for run in runs]
    assert np.mean(even) >= 0.95


def test_wins_and_losses_are_found() -> None:
    """Queries that are really 2 x faster or slower win or lose; the others tie."""
    random = np.random.default_rng(0)
    run = noisy(random, 30, 5)
    factors = np.repeat([[0.5], [1.0], [2.0]], 10, axis=0)
    outcomes = [query.outcome for query in query_ratios(pairs(run.baseline_ms, run.candidate_ms * factors))]
    assert outcomes == ["win"] * 10 + ["tie"] * 10 + ["loss"] * 10


def test_holm_is_the_textbook_procedure() -> None:
    """0.01, 0.04, 0.03, 0.005 become 0.03, 0.06, 0.06, 0.02: times 4, 3, 2, 1 in order of size, never decreasing."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(st.lists(st.floats(min_value=0, max_value=1), max_size=30))
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    """Adjusted p-values are at least the raw ones, at most Bonferroni's, and keep the order."""
    raw = np.array(p_values)
    adjusted = holm(raw)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, raw * max(1, len(raw))) + 1e-15).all()
    assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= -1e-15).all()


def test_discarding_keeps_the_hopeless_out_of_the_correction() -> None:
    """One small p-value among 99 near 1 is corrected for itself alone, doubled for having been chosen."""
    p_values = np.array([0.004] + [0.99] * 99)
    assert holm(p_values)[0] == pytest.approx(0.4)
    adjusted = holm_after_discarding(p_values)
    assert adjusted[0] == pytest.approx(0.008)
    assert set(adjusted[1:]) == {1.0}


@pytest.mark.parametrize("below", [0.0, 1.0, 5.0])
def test_discarding_keeps_the_promise_of_holm(below: float) -> None:
    """Over 4000 families of 50 true hypotheses, at or `below` the limit by so many errors, at most 3 % have one rejected at 2.5 %."""
    random = np.random.default_rng(1)
    samples = random.standard_normal((4000, 50, 5)) - below / math.sqrt(5)
    t = samples.mean(axis=-1) / (samples.std(axis=-1, ddof=1) / math.sqrt(5))
    rejected = [(holm_after_discarding(stdtr(4, -family)) <= 0.025).any() for family in t]
    assert np.mean(rejected) <= 0.03


def test_a_quantile_is_computed_once_for_each_degree_of_freedom(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate asks for a thousand queries in each of hundreds of simulated sessions, and a quantile takes a microsecond."""
    now, before = Machine(queries=1000).sessions(2, np.random.default_rng(5))
    ratios, asked = mean_ratios(now, before), 0

    def counted(freedom: Floats, p: Floats) -> Floats:
        nonlocal asked
        found: Floats = np.asarray(stdtrit(freedom, p))
        asked += found.size
        return found

    monkeypatch.setattr(intervals, "stdtrit", counted)
    increases = increases_until_certain(ratios, 0.1, 0.025)
    assert increases.shape == (1000,)
    assert asked == 2 * len(set(ratios.freedom.tolist())) < 1000


def test_speed_ups_of_different_queries_are_compared_without_pairs() -> None:
    """The errors of both add up like those of independent numbers; an end that is not known stays open."""
    one, other = Interval(estimate=2.0, low=1.0, high=4.0), Interval(estimate=0.5, low=0.25, high=1.0)
    found = unpaired(one, other)
    width = math.log(2) * math.sqrt(2)
    assert (found.estimate, found.low, found.high) == pytest.approx((4.0, 4 * math.exp(-width), 4 * math.exp(width)))
    open_end = unpaired(Interval(estimate=2.0, low=0.0, high=math.inf), other)
    assert (open_end.low, open_end.high) == (0.0, math.inf)
