"""Timing candidates against each other, with made-up times; and which pairs their outcomes give."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from pytest_pilotscope.algorithms.lero.pairs import ordered_pairs
from pytest_pilotscope.algorithms.plans.timing import Outcome, TimingRules, time_plans

from .lero_example import outcome

RULES = TimingRules(rounds=3, multiple=3.0, floor_ms=20.0, first_limit_ms=100.0, growth=4.0, last_limit_ms=10_000.0, behind=1.5)


class Clock:
    """Runs plans that take given times, and notes what it was asked for."""

    def __init__(self, *times_ms: float) -> None:
        self.times_ms = times_ms
        self.asked: list[tuple[int, float]] = []
        self.spent_ms = 0.0

    def __call__(self, plan: int, limit_ms: float) -> float | None:
        """Run one."""
        self.asked.append((plan, limit_ms))
        self.spent_ms += min(self.times_ms[plan], limit_ms)
        return self.times_ms[plan] if self.times_ms[plan] <= limit_ms else None

    @property
    def order(self) -> list[int]:
        """The plans in the order in which they were run."""
        return [plan for plan, _ in self.asked]


def test_the_first_run_is_not_counted_and_rounds_take_turns() -> None:
    """Plans that are close to each other are run once for the caches and then three times, each round beginning with another one."""
    clock = Clock(50, 51, 52)
    outcomes = time_plans(3, clock, RULES)
    assert clock.order == [0, 1, 2, 0, 1, 2, 1, 2, 0, 2, 0, 1]
    assert outcomes[1] == Outcome(warm_up_ms=51, times_ms=(51, 51, 51))


def test_a_plan_that_is_behind_is_not_run_again() -> None:
    """One that takes twice the best is timed once, which is enough to know its place."""
    clock = Clock(50, 100, 60)
    outcomes = time_plans(3, clock, RULES)
    assert Counter(clock.order) == {0: 4, 1: 2, 2: 4}
    assert outcomes[1].times_ms == (100,)


def test_a_plan_beyond_the_multiple_is_censored() -> None:
    """It is cut off at three times the best time so far, and kept with that limit."""
    clock = Clock(50, 500)
    outcomes = time_plans(2, clock, RULES)
    assert outcomes[1] == Outcome(censored_ms=150)
    assert (1, 150) in clock.asked
    assert (outcomes[1].ms, outcomes[1].at_least_ms) == (None, 150)


def test_postgresqls_own_plan_may_be_the_censored_one() -> None:
    """A first plan of an hour costs the limits on the way to the best plan, not an hour, and is censored like any other."""
    clock = Clock(3_600_000, 200, 210)
    first, second, _ = time_plans(3, clock, RULES)
    assert clock.spent_ms < 100 + 100 + 100 + 400 + 600 + 8 * 210
    assert first == Outcome(censored_ms=600)
    assert second.times_ms == (200, 200, 200)


def test_a_plan_that_was_cut_off_too_early_is_run_again() -> None:
    """A limit below the multiple of the best says nothing, so the plan gets the whole of it."""
    clock = Clock(250, 90)
    outcomes = time_plans(2, clock, RULES)
    assert clock.asked[:3] == [(0, 100), (1, 100), (0, 270)]
    assert outcomes[0].times_ms == (250,)


def test_small_times_have_the_floor_as_their_limit() -> None:
    """Three times half a millisecond is less than the noise, so nothing is cut off below 20 ms."""
    assert [each.times_ms for each in time_plans(2, Clock(0.5, 15), RULES)] == [(0.5, 0.5, 0.5), (15,)]


def test_nothing_finishes() -> None:
    """At the last limit all are censored with it; the limits grow fourfold on the way."""
    clock = Clock(1e6, 1e6)
    assert time_plans(2, clock, RULES) == (Outcome(censored_ms=10_000), Outcome(censored_ms=10_000))
    assert [limit for plan, limit in clock.asked if plan == 0] == [100, 400, 1600, 6400, 10_000]


def test_a_query_has_a_budget() -> None:
    """When it is spent no run is begun; what finished counts with its first run, what was cut off with its limit, the rest is unknown."""
    rules = replace(RULES, budget_ms=4_500)
    clock = Clock(5000, 500, 700, 5000)
    assert time_plans(4, clock, rules) == (
        outcome(more_than_ms=1600),
        Outcome(warm_up_ms=500, times_ms=(500,)),
        Outcome(warm_up_ms=700, times_ms=(700,)),
        outcome(more_than_ms=400),
    )
    assert clock.order == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    assert time_plans(3, Clock(300, 1, 1), replace(RULES, budget_ms=50))[1] == Outcome(censored_ms=0)


def test_a_plan_that_gets_slower_after_its_first_run() -> None:
    """It finished once, uncounted, and is cut off in the rounds: censored, at the limit of the rounds."""
    times = iter([50.0, 60.0, 50.0, None, 50.0, 50.0])

    def run(_plan: int, _limit_ms: float) -> float | None:
        return next(times)

    outcomes = time_plans(2, run, RULES)
    assert outcomes[1] == Outcome(warm_up_ms=60.0, censored_ms=150.0)


def test_one_plan_alone() -> None:
    """A query with nothing to choose is timed as well: its time is needed to weigh choosing against running."""
    assert time_plans(1, Clock(5), RULES) == (Outcome(warm_up_ms=5, times_ms=(5, 5, 5)),)


@pytest.mark.parametrize(
    ("one", "other", "pairs"),
    [
        (outcome(10, 12, 11), outcome(20), [(0, 1)]),
        (outcome(20), outcome(10), [(1, 0)]),
        (outcome(10), outcome(10.9), []),  # a tie: within 10 %
        (outcome(10), outcome(11.2), [(0, 1)]),
        (outcome(10), outcome(more_than_ms=30), [(0, 1)]),
        (outcome(more_than_ms=30), outcome(10), [(1, 0)]),
        (outcome(40), outcome(more_than_ms=30), []),  # cut off before the other had finished: unknown
        (outcome(29), outcome(more_than_ms=30), []),  # not beyond a tie
        (outcome(more_than_ms=30), outcome(more_than_ms=90), []),  # both cut off: unknown
    ],
)
def test_pairs_are_those_whose_order_is_known(one: Outcome, other: Outcome, pairs: list[tuple[int, int]]) -> None:
    """Ties, and censored plans that may be on either side, make no pair; medians decide."""
    assert ordered_pairs([one, other]) == pairs


def test_every_known_pair_counts_once() -> None:
    """Four plans of which two are a tie and one is censored give five pairs, the faster one first."""
    outcomes = [outcome(10), outcome(10.5), outcome(30), outcome(more_than_ms=60)]
    assert ordered_pairs(outcomes) == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
