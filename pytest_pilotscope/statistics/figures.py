"""
The figures of one side of a record.

Times are end to end and in seconds, unless the name says otherwise. A query counts with the median of its measured rounds. A timed-out run
counts with its limit, so that the total is a lower bound; `lower_bound` then says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isclose
from statistics import median
from typing import Any

import numpy as np

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE_AGAIN, QueryReport, QueryRun
from pytest_pilotscope.statistics.accuracy import QErrors, Quantiles, estimating_sides, q_errors, quantiles
from pytest_pilotscope.statistics.intervals import Interval, QueryRatio, query_ratios, workload_ratios
from pytest_pilotscope.statistics.load import Load, load_of
from pytest_pilotscope.statistics.pairs import Pairs, pairs_of

COST_DIGIT = 0.0101
"""The last digit of a cost in EXPLAIN, with room for its rounding."""

NOISE_FLOOR_MS = 0.5
"""
A smaller difference per query is not a result, even if the interval excludes 1: one turn of the operating system's scheduler, one page
read, or the statement that sets the steering takes as long, and the next session would differ.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryTimes:
    """
    The medians over the measured `rounds` of one query on one side, in ms, and the number of rounds that timed out.

    Older records have no processor time of inference.
    """

    query_id: str
    rounds: int
    end_to_end_ms: float
    inference_ms: float
    planning_ms: float
    execution_ms: float
    timed_out: int
    inference_processor_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanChanges:
    """
    Counts of queries: with known plans on both sides, of those with another plan, of these the significantly faster and slower.

    `tied` are the ids of those whose other plan has the same cost.
    """

    queries: int
    changed: int
    faster: int
    slower: int
    tied: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """
    The comparison of one side with the baseline side.

    `speedup` is baseline total / candidate total, and `geometric_speedup` is the geometric mean over queries; both are above 1 if the side
    is faster. No figure uses the `left_out` queries, which failed or are incomplete on either side. `difference_ms` is the mean extra time
    of a query (negative if it is shorter). `break_even` is the number of executions of the workload that pay for the training, with its
    interval: infinite if none do, None without training. `itself` is set if the other side is PostgreSQL, too.
    """

    speedup: Interval
    geometric_speedup: Interval
    queries: tuple[QueryRatio, ...]
    wins: int
    losses: int
    ties: int
    left_out: int
    plans: PlanChanges | None
    break_even: Interval | None
    difference_ms: float
    itself: bool = False

    @property
    def below_noise_floor(self) -> bool:
        """True if the difference is too small to be a result."""
        return abs(self.difference_ms) < NOISE_FLOOR_MS

    @property
    def is_result(self) -> bool:
        """True if the side is certainly faster or certainly slower, by more than the noise floor."""
        return not self.below_noise_floor and (self.speedup.low > 1 or self.speedup.high < 1)

    @property
    def regressions(self) -> dict[str, float]:
        """The significantly slower queries, with candidate / baseline; none if PostgreSQL is measured against itself."""
        return {} if self.itself else {query.query_id: query.ratio.estimate for query in self.queries if query.outcome == "loss"}

    @property
    def noisy(self) -> dict[str, float]:
        """The queries that differ significantly although PostgreSQL is measured against itself, each with its factor above 1."""
        differing = [query for query in self.queries if query.outcome != "tie"] if self.itself else []
        return {query.query_id: max(query.ratio.estimate, query.ratio.inverse.estimate) for query in differing}


@dataclass(frozen=True, slots=True, kw_only=True)
class SideSummary:
    """
    The figures of one side.

    `queries` have all their rounds: `query_count` of them ran to the end every time, and `timeout_count` timed out at least once. Besides,
    `error_count` queries failed, and `unmeasured_count` lack rounds. `total_s` is the sum over queries of the median time. Its parts are
    sums of medians, too, so they add up to it only approximately. `against` is None for the baseline itself and if there is no pair.
    `p_errors` are those that are known; those of `unknown_p_errors` queries are not. `incomparable_answers` counts the queries whose
    answers SQL leaves open, `left_queries` those that the side left to PostgreSQL.
    """

    side: str
    queries: tuple[QueryTimes, ...]
    query_count: int
    timeout_count: int
    error_count: int
    unmeasured_count: int
    total_s: float
    inference_s: float
    planning_s: float
    execution_s: float
    average_s: float
    p50_s: float
    p95_s: float
    p99_s: float
    against: Against | None = None
    steered_ratio: float | None = None
    q_errors: QErrors | None = None
    p_errors: Quantiles | None = None
    unknown_p_errors: int = 0
    incomparable_answers: int = 0
    left_queries: int = 0
    training_s: float | None = None
    load: Load | None = None

    @property
    def complete(self) -> bool:
        """True if the total covers the whole workload."""
        return bool(self.queries) and not (self.error_count or self.unmeasured_count)

    @property
    def lower_bound(self) -> bool:
        """True if a time-out makes the total a lower bound."""
        return self.timeout_count > 0


def summarize_side(record: Record, side: str) -> SideSummary:
    """Return the figures of one of the record's sides."""
    runs: dict[str, list[QueryRun]] = {query_id: [] for query_id in record.query_ids()}
    for run in record.measured(side):
        runs[run.query_id].append(run)
    failed = {run.query_id for run in record.runs if run.side == side and run.error is not None}
    whole = [of_query for id_, of_query in runs.items() if id_ not in failed and len(of_query) >= record.header.rounds]
    queries = tuple(_query(of_query) for of_query in whole)
    timed_out = sum(query.timed_out > 0 for query in queries)
    training = [report.duration_s for report in record.training if report.side == side]
    return SideSummary(
        side=side,
        queries=queries,
        query_count=len(queries) - timed_out,
        timeout_count=timed_out,
        error_count=len(failed),
        unmeasured_count=len(runs.keys() | failed) - len(queries) - len(failed),
        against=_against(record, side, sum(training)),
        training_s=sum(training) if training else None,
        load=load_of(record, side),
        **_times(queries),
        **_accuracy([report for report in record.reports if report.side == side], estimates=side in estimating_sides(record)),
    )


def _times(queries: Sequence[QueryTimes]) -> dict[str, Any]:
    times_s = np.array([query.end_to_end_ms for query in queries] or [0.0]) / 1e3
    p50, p95, p99 = (float(p) for p in np.quantile(times_s, [0.5, 0.95, 0.99]))
    return {
        "total_s": float(times_s.sum()),
        "average_s": float(times_s.mean()),
        "p50_s": p50,
        "p95_s": p95,
        "p99_s": p99,
        "inference_s": sum(query.inference_ms for query in queries) / 1e3,
        "planning_s": sum(query.planning_ms for query in queries) / 1e3,
        "execution_s": sum(query.execution_ms for query in queries) / 1e3,
    }


def _accuracy(reports: Sequence[QueryReport], *, estimates: bool) -> dict[str, Any]:
    """Return the figures of the reports; the errors only for a side that `estimates`."""
    steered = [report.steered_ratio for report in reports if report.steered_ratio is not None]
    estimating = reports if estimates else ()
    found = [estimate for report in estimating for estimate in report.estimates or ()]
    p_errors = [report.p_error for report in estimating if report.p_error is not None]
    return {
        "steered_ratio": sum(steered) / len(steered) if steered else None,
        "q_errors": q_errors(found) if found else None,
        "p_errors": quantiles(p_errors) if p_errors else None,
        "unknown_p_errors": sum(report.p_error_reason is not None for report in estimating),
        "incomparable_answers": sum(report.not_comparable is not None for report in reports),
        "left_queries": sum(report.left is not None for report in reports),
    }


def _query(runs: Sequence[QueryRun]) -> QueryTimes:
    return QueryTimes(
        query_id=runs[0].query_id,
        rounds=len(runs),
        end_to_end_ms=median(run.end_to_end_ms for run in runs),
        inference_ms=median(run.inference_ms for run in runs),
        planning_ms=median(run.planning_ms for run in runs),
        execution_ms=median(run.execution_ms for run in runs),
        timed_out=sum(run.timed_out for run in runs),
        inference_processor_ms=median_if_all([run.inference_processor_ms for run in runs]),
    )


def median_if_all(values: Sequence[float | None]) -> float | None:
    """Return the median; None if one of the values is not known."""
    known = [value for value in values if value is not None]
    return median(known) if known and len(known) == len(values) else None


def _against(record: Record, side: str, training_s: float) -> Against | None:
    if side == record.header.baseline_side:
        return None
    pairs = pairs_of(record, side)
    if not pairs.query_ids:
        return None
    ratios = workload_ratios(pairs, seed=record.header.seed)
    differences_ms = np.median(pairs.candidate_ms, axis=1) - np.median(pairs.baseline_ms, axis=1)
    queries = tuple(
        query if abs(difference_ms) >= NOISE_FLOOR_MS else replace(query, outcome="tie")
        for query, difference_ms in zip(query_ratios(pairs), differences_ms, strict=True)
    )
    outcomes = [query.outcome for query in queries]
    return Against(
        speedup=ratios.total.inverse,
        geometric_speedup=ratios.geometric_mean.inverse,
        queries=queries,
        wins=outcomes.count("win"),
        losses=outcomes.count("loss"),
        ties=outcomes.count("tie"),
        left_out=len(pairs.left_out),
        plans=_plan_changes(record, side, queries),
        break_even=break_even(pairs, training_s, ratios.total.inverse),
        difference_ms=float(differences_ms.mean()),
        itself=side == BASELINE_AGAIN,
    )


def break_even(pairs: Pairs, training_s: float, speedup: Interval) -> Interval | None:
    """Return training time / time saved per execution of the workload, at the speed-up and at the ends of its interval."""
    if training_s <= 0:
        return None
    baseline_s = float(np.median(pairs.baseline_ms, axis=1).sum()) / 1e3

    def executions(speedup: float) -> float:
        return training_s / (baseline_s * (1 - 1 / speedup)) if speedup > 1 else inf

    return Interval(estimate=executions(speedup.estimate), low=executions(speedup.high), high=executions(speedup.low))


def _plan_changes(record: Record, side: str, queries: Sequence[QueryRatio]) -> PlanChanges | None:
    planned = {(report.query_id, report.side): report for report in record.reports if report.plan_shape is not None}
    baseline = record.header.baseline_side
    known = [id_ for id_, of in planned if of == side and (id_, baseline) in planned]
    if not known:
        return None
    changed = [id_ for id_ in known if planned[id_, side].plan_shape != planned[id_, baseline].plan_shape]
    outcomes = [query.outcome for query in queries if query.query_id in changed]
    return PlanChanges(
        queries=len(known),
        changed=len(changed),
        faster=outcomes.count("win"),
        slower=outcomes.count("loss"),
        tied=tuple(id_ for id_ in changed if is_tie(planned[id_, side], planned[id_, baseline])),
    )


def is_tie(one: QueryReport, other: QueryReport) -> bool:
    """Tell whether two plans differ only by a tie: they do not do the same, and cost the same to the digits that EXPLAIN shows."""
    if one.plan_cost is None or other.plan_cost is None or one.plan_shape == other.plan_shape:
        return False
    return isclose(one.plan_cost, other.plan_cost, rel_tol=1e-9, abs_tol=COST_DIGIT)
