"""
The regression gate: pure decisions over records, so that tests and simulations can call them.

A regression is a time ratio whose confidence interval lies above the allowed delta (of the workload, of the scripts that write, or of a
query after Holm's correction), an exact figure that got worse, or a query that newly fails or always times out. If two runs are not
comparable, the gate reports a state with a name and never passes silently. The gate compares a run with a stored one by the ratios to each
run's own baseline, because ratios are comparable between machines and times are not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pytest_pilotscope.errors import counted, named
from pytest_pilotscope.gate.comparable import MISSING_REFERENCE, State, same_queries, states_between, states_of
from pytest_pilotscope.gate.exact_figures import FIGURES, Regression, exact_regressions
from pytest_pilotscope.gate.power import Power, largest_seen, power_of
from pytest_pilotscope.gate.writes import SCRIPTS, ComparedWrites, judged_writes
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.statistics.intervals import (
    CONFIDENCE,
    Interval,
    WorkloadRatios,
    exponentiated,
    holm_after_discarding,
    mean_ratios,
    workload_ratios,
)
from pytest_pilotscope.statistics.pairs import Bools, Pairs, pairs_of

LARGEST_SHOWN = 10.0
"""The largest slow-down that is shown as a number (10 is 1000 %)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    The limits of the gate.

    The workload may be slower by `delta`, a query by `query_delta` and scripts that write by `write_delta` (0.03 is 3 %). The `exact`
    figures may not get worse at all. States fail or only warn, as `on_missing` says; a run that did not finish always fails. So does a
    pass, as `on_blind` says, if the run was too noisy to show a slow-down of `power.largest_seen`.
    """

    delta: float = 0.03
    query_delta: float = 0.20
    write_delta: float = 0.10
    exact: frozenset[str] = FIGURES
    on_missing: Literal["fail", "warn"] = "fail"
    on_blind: Literal["fail", "warn"] = "warn"
    confidence: float = CONFIDENCE
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("delta", "query_delta", "write_delta"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and >= 0, found {value}")
        if unknown := sorted(self.exact - FIGURES):
            raise ValueError(f"unknown exact figure {unknown[0]!r}; known: {', '.join(sorted(FIGURES))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """The comparison of one side: the number of queries, the workload's slow-down with its intervals, and the slow-downs it would show."""

    side: str
    queries: int
    ratios: WorkloadRatios
    power: Power | None = None


_Found = State | Regression | Compared | ComparedWrites


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """The gate's decision with its reasons. A ratio of 1.0 means as fast as the run it is `against`."""

    against: Literal["reference", "baseline"]
    policy: Policy
    compared: tuple[Compared, ...]
    regressions: tuple[Regression, ...]
    states: tuple[State, ...]
    writes: tuple[ComparedWrites, ...] = ()

    @property
    def verdict(self) -> str:
        """The decision in words: REGRESSED, NOT COMPARABLE, PASSED or PASSED WITH RESERVATIONS, and then what a pass was blind to."""
        if self.regressions:
            return "REGRESSED"
        if any(state.kind == "unfinished" for state in self.states) or (self.states and self.policy.on_missing == "fail"):
            return "NOT COMPARABLE"
        passed = "PASSED WITH RESERVATIONS" if self.states else "PASSED"
        return f"{passed}, but blind below {self.blind}" if self.blind else passed

    @property
    def blind(self) -> str:
        """The slow-downs below which the run is blind, if they are too large for the deltas."""
        powers = [item.power for item in self.compared if item.power is not None]
        workload = max((power.workload for power in powers), default=0.0)
        query = max((power.query for power in powers), default=0.0)
        writes = max((item.caught for item in self.writes), default=0.0)
        seen = (
            (workload, self.policy.delta, ""),
            (query, self.policy.query_delta, " for a single query"),
            (writes, self.policy.write_delta, " for the scripts of --writes"),
        )
        return ", ".join(f"{_percent(least)}{of}" for least, delta, of in seen if least > largest_seen(delta))

    @property
    def exit_code(self) -> int:
        """0 if the run passed, with or without reservations, else 1; 1 also for a pass that was blind if the policy says so."""
        return 0 if self.verdict.startswith("PASSED") and not (self.blind and self.policy.on_blind == "fail") else 1


def decide(candidate: Record, reference: Record | None, policy: Policy) -> GateReport:
    """Gate a run against a stored one by each side's ratio to the baseline of its own run; report a state if there is no reference."""
    if reference is None:
        return _report("reference", policy, [*states_of(candidate), MISSING_REFERENCE])
    found: list[_Found] = [*states_of(candidate), *states_between(candidate, reference)]
    queries = same_queries(candidate, reference)
    for side in _sides(candidate):
        if side in reference.header.sides:
            found += exact_regressions(candidate, reference, side, queries, policy.exact)
            found += _failures(candidate, side, queries)
            found += _against_reference(candidate, reference, side, policy)
            found += judged_writes(candidate, reference, side, policy.write_delta, policy.confidence)
    return _report("reference", policy, found)


def decide_against_baseline(candidate: Record, policy: Policy) -> GateReport:
    """Gate a run against its own baseline: no side may be slower than plain PostgreSQL by more than the deltas."""
    found: list[_Found] = [*states_of(candidate)]
    for side in _sides(candidate):
        pairs = pairs_of(candidate, side)
        found += _failures(candidate, side, candidate.query_ids())
        found += _not_compared(candidate, side, candidate.query_ids(), pairs.query_ids)
        found += _judged_pairs(side, pairs, None, policy)
        found += judged_writes(candidate, None, side, policy.write_delta, policy.confidence)
    return _report("baseline", policy, found)


def _judged_pairs(side: str, pairs: Pairs, reference: Pairs | None, policy: Policy) -> Iterator[_Found]:
    """Yield the decision about times, with the power that it had. Queries that timed out on both sides in every round have none."""
    yield from _newly_timed_out(side, pairs, reference)
    yield from _lower_bounds(side, pairs, reference)
    if (tied := _tied(pairs)).any():
        timed = [query_id for query_id, without in zip(pairs.query_ids, tied, strict=True) if not without]
        pairs, reference = pairs.restricted_to(timed), None if reference is None else reference.restricted_to(timed)
    for found in gate_pairs(side, pairs, reference, policy):
        if isinstance(found, Compared):
            found = replace(found, power=power_of(pairs, reference, policy.delta, policy.query_delta, policy.confidence))
        yield found


def gate_pairs(side: str, pairs: Pairs, reference: Pairs | None, policy: Policy) -> Iterator[_Found]:
    """Yield the decision about times; `reference` has the same queries in the same order."""
    if not pairs.query_ids:
        yield State(kind="empty", text=f"no query of {side} could be compared; nothing was gated")
        return
    ratios = workload_ratios(pairs, reference, confidence=policy.confidence, seed=policy.seed)
    yield Compared(side=side, queries=len(pairs.query_ids), ratios=ratios)
    for figure, ratio in (("geometric mean", ratios.geometric_mean), ("total time", ratios.total)):
        if ratio.low > 1 + policy.delta:
            yield Regression(side=side, figure=figure, ratio=ratio, allowed=1 + policy.delta)
    yield from _slow_queries(side, pairs, reference, policy)


def _slow_queries(side: str, pairs: Pairs, reference: Pairs | None, policy: Policy) -> Iterator[Regression]:
    ratios = mean_ratios(pairs, reference)
    certain = holm_after_discarding(ratios.p_above(math.log1p(policy.query_delta))) <= (1 - policy.confidence) / 2
    margin = ratios.margin(policy.confidence)
    for i in certain.nonzero()[0]:
        interval = exponentiated(float(ratios.mean[i]), float(margin[i]))
        yield Regression(side=side, figure="time", query_id=pairs.query_ids[i], ratio=interval, allowed=1 + policy.query_delta)


def _against_reference(candidate: Record, reference: Record, side: str, policy: Policy) -> Iterator[_Found]:
    ours, theirs = pairs_of(candidate, side), pairs_of(reference, side)
    expected = same_queries(candidate, reference)
    both = set(ours.query_ids).intersection(theirs.query_ids)
    common = [query_id for query_id in expected if query_id in both]
    yield from _not_compared(candidate, side, expected, common)
    pairs, before = ours.restricted_to(common), theirs.restricted_to(common)
    yield from _judged_pairs(side, pairs, before, policy)


def _failures(candidate: Record, side: str, queries: tuple[str, ...]) -> Iterator[Regression]:
    errors = {run.query_id: run.error for run in candidate.runs if run.side == side and run.error is not None}
    for query_id in queries:
        if query_id in errors:
            yield Regression(side=side, figure="failure", query_id=query_id, before=None, after=errors[query_id])


def _not_compared(candidate: Record, side: str, expected: Sequence[str], compared: Collection[str]) -> Iterator[State]:
    """Yield a state if queries got no verdict; a failure on this side is a verdict."""
    failed = {run.query_id for run in candidate.runs if run.side == side and run.error is not None}
    judged = failed.union(compared)
    if lost := [query_id for query_id in expected if query_id not in judged]:
        text = f"{counted(len(lost), 'query', 'queries')} of {side} without all rounds on both sides: {named(lost)}"
        yield State(kind="missing-queries", text=text)


def _newly_timed_out(side: str, pairs: Pairs, before: Pairs | None) -> Iterator[Regression]:
    """Yield the queries that time out in every round, but never in this run's baseline nor in the reference."""
    never = ~pairs.baseline_timed_out.any(axis=1)
    if before is not None:
        never &= ~before.candidate_timed_out.any(axis=1)
    for i in (never & pairs.candidate_timed_out.all(axis=1)).nonzero()[0]:
        rounds = f"{pairs.rounds} of {pairs.rounds} rounds"
        yield Regression(side=side, figure="time-outs", query_id=pairs.query_ids[i], before="0 rounds", after=rounds)


def _lower_bounds(side: str, pairs: Pairs, before: Pairs | None) -> Iterator[State]:
    """Yield states for the queries of which only lower bounds are known, which say nothing against a slow-down; not if it was so before."""
    tied, cut_off = _tied(pairs), _cut_off(pairs)
    if before is not None:
        tied &= ~_tied(before)
        cut_off &= ~_cut_off(before)
    for queries, when in ((tied, "on both sides in every round"), (cut_off, "in most rounds, and the baseline did not")):
        if found := [query_id for query_id, is_one in zip(pairs.query_ids, queries, strict=True) if is_one]:
            text = f"{counted(len(found), 'query', 'queries')} of {side} timed out {when}, so nothing tells how slow: {named(found)}"
            yield State(kind="timed-out", text=f"{text}; raise --query-timeout-ms, or leave them out")


def _tied(pairs: Pairs) -> Bools:
    """Tell (Q,) which queries timed out on both sides in every round."""
    tied: Bools = (pairs.baseline_timed_out & pairs.candidate_timed_out).sum(axis=1) == pairs.rounds
    return tied


def _cut_off(pairs: Pairs) -> Bools:
    """Tell (Q,) which queries timed out in more than half of the rounds while the baseline did not, so that their medians are limits."""
    cut_off: Bools = 2 * (pairs.candidate_timed_out & ~pairs.baseline_timed_out).sum(axis=1) > pairs.rounds
    return cut_off


def _sides(record: Record) -> tuple[str, ...]:
    return tuple(side for side in record.header.sides if side != record.header.baseline_side)


def _report(against: Literal["reference", "baseline"], policy: Policy, found: list[_Found]) -> GateReport:
    if not any(isinstance(item, (Compared, State)) for item in found):
        found.append(State(kind="empty", text="the run measured only its baseline; nothing was gated"))
    return GateReport(
        against=against,
        policy=policy,
        compared=tuple(item for item in found if isinstance(item, Compared)),
        regressions=tuple(item for item in found if isinstance(item, Regression)),
        states=tuple(item for item in found if isinstance(item, State)),
        writes=tuple(item for item in found if isinstance(item, ComparedWrites)),
    )


def describe(report: GateReport) -> tuple[str, ...]:
    """Return lines for a terminal: the verdict, the comparisons, the regressions with their size, and the states."""
    meaning = "the reference" if report.against == "reference" else "the baseline"
    percent = f"{report.policy.confidence:.0%}"
    lines = [f"gate against {meaning}: {report.verdict}"]
    lines += [
        f"  {item.side}, {counted(item.queries, 'query', 'queries')}: total {_ratio(item.ratios.total)}, "
        f"geometric mean {_ratio(item.ratios.geometric_mean)} times {meaning} ({percent} intervals)"
        for item in report.compared
    ]
    lines += [f"  {item.side}, {SCRIPTS}: {_ratio(item.ratio)} times {meaning} ({percent} interval)" for item in report.writes]
    lines += [f"  regression: {_sentence(regression, meaning)}" for regression in report.regressions]
    lines += [f"  {'warning' if report.exit_code == 0 else 'state'}: {state.kind}: {state.text}" for state in report.states]
    return tuple(lines)


def describe_power(report: GateReport) -> tuple[str, ...]:
    """Return lines for a terminal: the slow-downs that the run would have caught, and advice if they are too large."""
    lines = [
        f"  {item.side}: this run would have caught, 19 times in 20, a workload slower by {_percent(item.power.workload)}, "
        f"or a single query slower by {_percent(item.power.query)}"
        for item in report.compared
        if item.power is not None
    ]
    lines += [
        f"  {item.side}: this run would have caught, 19 times in 20, scripts of --writes slower by {_percent(item.caught)}"
        for item in report.writes
    ]
    if report.blind:
        policy = report.policy
        needed = f"{_percent(largest_seen(policy.delta))} and for a single query {_percent(largest_seen(policy.query_delta))}"
        needed += f" and for the scripts of --writes {_percent(largest_seen(policy.write_delta))}" if report.writes else ""
        more = "with more --rounds" if report.writes else "with --rounds auto"
        fails = "" if report.policy.on_blind == "warn" else ", so it does not pass (--gate-on-blind fail)"
        lines.append(f"  blind: a gate with these deltas should catch {needed}{fails}; measure {more}, or on a quieter machine")
    return tuple(lines)


def _percent(share: float) -> str:
    """Return a percentage; `over 1000 %` also for what nothing can show."""
    return f"{share * 100:.{1 if share < 1 else 0}f} %" if share <= LARGEST_SHOWN else f"over {LARGEST_SHOWN * 100:.0f} %"


def _ratio(ratio: Interval) -> str:
    return f"{ratio.estimate:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"


def _sentence(regression: Regression, meaning: str) -> str:
    subject = regression.figure if regression.figure == SCRIPTS else f"{regression.figure} of {regression.query_id or 'the workload'}"
    if regression.ratio is not None:
        return f"{regression.side}: {subject} is {_ratio(regression.ratio)} times {meaning}, allowed is {regression.allowed:.3f}"
    if regression.figure == "failure":
        return f"{regression.side}: {regression.query_id} failed: {regression.after}"
    return f"{regression.side}: {subject} was {_value(regression.before)}, now {_value(regression.after)}"


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
