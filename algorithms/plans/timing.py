"""
Comparison of the candidates of one query by time. The caller hands in `run(plan, limit_ms)`; this file knows no database.

First every plan runs once, uncounted, which warms the caches for all of them. The limit of these runs starts low and grows only while no
plan has finished, so that a plan that takes minutes costs little more than the fastest one. Then the plans take turns in rounds, each round
starting with another plan. A run is cut off at a multiple of the best time so far; the plan is then censored: its time is known to be
larger than the limit. A plan that is clearly behind after a round does not run again. Once the time for the query is spent, no plan runs
any more: plans that finished then count with the time of their first run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

Run = Callable[[int, float], float | None]
"""From the number of a plan and a limit in ms to its time in ms, or None when it was cut off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingRules:
    """
    The limits of the runs of a query's candidates.

    `multiple` of the best time so far, but at least `floor_ms`, is the limit of a run. The first runs have `first_limit_ms`, then
    `growth` times as much, up to `last_limit_ms`. A plan whose best time is more than `behind` times the best of all does not run again.
    No run begins after `budget_ms`.
    """

    rounds: int = 3
    multiple: float = 3.0
    floor_ms: float = 20.0
    first_limit_ms: float = 250.0
    growth: float = 4.0
    last_limit_ms: float = 60_000.0
    behind: float = 1.5
    budget_ms: float = 60_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    The times of one plan, in ms: of its first run and of the counted ones.

    `censored_ms` is the limit that cut the plan off, if no counted run finished; its `warm_up_ms` may still be known.
    """

    warm_up_ms: float | None = None
    times_ms: tuple[float, ...] = ()
    censored_ms: float | None = None

    @property
    def ms(self) -> float | None:
        """The median of the counted times; None for a censored plan."""
        return median(self.times_ms) if self.times_ms else None

    @property
    def at_least_ms(self) -> float:
        """The time of the plan, or its known lower bound."""
        found = self.ms if self.times_ms else self.censored_ms
        return found if found is not None else 0.0


TIE = 0.1
"""Times that differ by less than this share of the faster one are a tie: about the noise of single runs of a few ms."""


def is_faster(one: Outcome, other: Outcome) -> bool:
    """Tell whether one plan is known to be faster than another, beyond a tie."""
    return one.ms is not None and one.ms * (1 + TIE) < other.at_least_ms


@dataclass(slots=True)
class _PlanTimes:
    """The times of one plan so far."""

    warm_up_ms: float | None = None
    times_ms: list[float] = field(default_factory=list)
    cut_ms: float | None = None


def time_plans(plans: int, run: Run, rules: TimingRules) -> tuple[Outcome, ...]:
    """Compare plans by time; if no plan finishes within the last limit or the budget, all are censored."""
    all_times = [_PlanTimes() for _ in range(plans)]
    timer = _Timer(run, rules)
    _warm_up(all_times, timer)
    _rounds(all_times, timer)
    return tuple(_outcome(times) for times in all_times)


def _outcome(times: _PlanTimes) -> Outcome:
    times_ms = times.times_ms
    if not times_ms and times.cut_ms is None and times.warm_up_ms is not None:
        times_ms = [times.warm_up_ms]
    return Outcome(warm_up_ms=times.warm_up_ms, times_ms=tuple(times_ms), censored_ms=None if times_ms else times.cut_ms or 0.0)


@dataclass(slots=True)
class _Timer:
    """Runs plans by the rules and adds up their times."""

    run: Run
    rules: TimingRules
    spent_ms: float = 0.0

    @property
    def over(self) -> bool:
        """True if the time for the query is spent."""
        return self.spent_ms >= self.rules.budget_ms

    def limit_ms(self, best_ms: float) -> float:
        """Return the limit of a run, given the best time."""
        return min(max(self.rules.multiple * best_ms, self.rules.floor_ms), self.rules.last_limit_ms)

    def timed(self, plan: int, limit_ms: float) -> float | None:
        """Run a plan and add its time."""
        found_ms = self.run(plan, limit_ms)
        self.spent_ms += limit_ms if found_ms is None else found_ms
        return found_ms


def _warm_up(all_times: list[_PlanTimes], timer: _Timer) -> None:
    """Run every plan until it has finished or was cut off at the multiple of the best, or at the last limit."""
    rules = timer.rules
    limit_ms, best_ms = min(rules.first_limit_ms, rules.last_limit_ms), None
    pending = list(range(len(all_times)))
    while pending:
        for plan in pending:
            times = all_times[plan]
            bound_ms = limit_ms if best_ms is None else timer.limit_ms(best_ms)
            if timer.over or (times.cut_ms is not None and times.cut_ms >= bound_ms):
                continue
            times.warm_up_ms = timer.timed(plan, bound_ms)
            times.cut_ms = bound_ms if times.warm_up_ms is None else None
            best_ms = min((ms for ms in (best_ms, times.warm_up_ms) if ms is not None), default=None)
        enough_ms = rules.last_limit_ms if best_ms is None else timer.limit_ms(best_ms)
        pending = [] if timer.over else [plan for plan in pending if (cut := all_times[plan].cut_ms) is not None and cut < enough_ms]
        limit_ms = min(limit_ms * rules.growth, rules.last_limit_ms)


def _rounds(all_times: list[_PlanTimes], timer: _Timer) -> None:
    alive = [plan for plan, times in enumerate(all_times) if times.warm_up_ms is not None]
    for number in range(timer.rules.rounds):
        start = number % max(len(alive), 1)
        for plan in [*alive[start:], *alive[:start]]:
            if timer.over:
                return
            limit_ms = timer.limit_ms(min(_known(all_times[other]) for other in alive))
            found_ms = timer.timed(plan, limit_ms)
            if found_ms is None:
                all_times[plan].cut_ms = limit_ms
            else:
                all_times[plan].times_ms.append(found_ms)
        best_ms = min((min(all_times[plan].times_ms) for plan in alive if all_times[plan].times_ms), default=0.0)
        alive = [plan for plan in alive if all_times[plan].times_ms and min(all_times[plan].times_ms) <= timer.rules.behind * best_ms]


def _known(times: _PlanTimes) -> float:
    return min(times.times_ms) if times.times_ms else times.warm_up_ms or 0.0
