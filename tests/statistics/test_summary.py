"""The summary of a record."""

from __future__ import annotations

import json
from dataclasses import replace
from math import inf

import pytest

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryReport, SubplanEstimate, TrainingReport
from pytest_pilotscope.statistics.intervals import Interval
from pytest_pilotscope.statistics.summary import metrics, summarize, summary_json
from tests.record.building import record_of, run_of

SIDES = {
    "baseline": {"q1": [100.0, 120.0, 90.0], "q2": [1000.0, 1010.0, 990.0]},
    "mscn": {"q1": [51.0, 50.0, 52.0], "q2": [500.0, 499.0, 502.0]},
}


def with_reports(record: Record) -> Record:
    """Return the record with exact figures and a training of 5.49 s."""
    reports = (
        QueryReport(query_id="q1", side="baseline", plan_shape="aa"),
        QueryReport(query_id="q2", side="baseline", plan_shape="aa"),
        QueryReport(
            query_id="q1",
            side="mscn",
            plan_shape="aa",
            steered_ratio=1.0,
            p_error=1.5,
            estimates=(SubplanEstimate(aliases=("a", "b"), estimated=10, true=20), SubplanEstimate(aliases=("a",), estimated=5, true=0)),
        ),
        QueryReport(query_id="q2", side="mscn", plan_shape="bb", steered_ratio=0.5, p_error=1.0),
    )
    return replace(record, reports=reports, training=(TrainingReport(side="mscn", duration_s=5.49),))


def test_totals_are_sums_of_medians_in_seconds() -> None:
    """`test_total_time` is the sum over queries of the median end-to-end time, and its parts are the clocks' own medians."""
    values = metrics(summarize(record_of(SIDES)), "mscn")
    expected = {
        "test_total_time": 0.551,
        "test_average_time": 0.2755,
        "test_query_count": 2,
        "test_timeout_count": 0,
        "test_error_count": 0,
        "test_db_execution_time": 0.549,
        "test_overhead_time": 0.002,
        "test_p50_time": 0.2755,
        "test_p95_time": 0.051 + 0.95 * 0.449,
        "test_p99_time": 0.051 + 0.99 * 0.449,
        "test_speedup": 1.1 / 0.551,
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert values["test_speedup_ci_low"] < values["test_speedup"] < values["test_speedup_ci_high"]


def test_accuracy_steering_and_break_even_are_among_the_metrics() -> None:
    """q-errors over all subplans and over non-empty ones, p-errors over queries, mean steering, and training time / time saved."""
    values = metrics(summarize(with_reports(record_of(SIDES))), "mscn")
    assert (values["test_qerror_p50"], values["test_qerror_max"], values["test_qerror_nonempty_p50"]) == (3.5, 5, 2)
    assert (values["test_perror_p50"], values["test_perror_max"]) == (1.25, 1.5)
    assert values["steered_ratio"] == 0.75
    assert values["test_break_even"] == pytest.approx(10)


def test_the_baseline_has_no_speedup() -> None:
    """The baseline is not compared with itself: an A/A run has a second baseline for that."""
    names = metrics(summarize(with_reports(record_of(SIDES))), "baseline").keys()
    assert not [name for name in names if "speedup" in name or "error_" in name.replace("error_count", "") or name == "steered_ratio"]


def test_a_time_out_makes_the_total_a_flagged_lower_bound() -> None:
    """A timed-out query counts with its limit in the total, is counted apart, and did not really run to the end."""
    record = record_of({"baseline": {"q1": [10.0] * 3, "q2": [20.0] * 3}, "mscn": {"q1": [">500"] * 3, "q2": [20.0, ">500", 20.0]}})
    side = summarize(record).sides["mscn"]
    assert (side.total_s, side.lower_bound, side.timeout_count, side.query_count) == (0.52, True, 2, 0)
    assert side.complete
    assert not summarize(record).sides["baseline"].lower_bound


def test_a_failed_query_never_makes_a_method_look_fast() -> None:
    """If a query failed, the metrics have only counts: no total and no speed-up."""
    record = record_of({"baseline": {"q1": [10.0] * 3, "q2": [1000.0] * 3}, "mscn": {"q1": [10.0] * 3, "q2": ["boom"] * 3}})
    assert metrics(summarize(record), "mscn") == {"test_query_count": 1, "test_timeout_count": 0, "test_error_count": 1}
    assert "test_speedup" not in metrics(summarize(record), "baseline")
    assert "test_total_time" in metrics(summarize(record), "baseline")


def test_a_failure_of_the_baseline_voids_the_speedup_only() -> None:
    """The candidate's own times are whole, but there is no speed-up over a workload the baseline did not finish."""
    record = record_of({"baseline": {"q1": [10.0] * 3, "q2": ["boom"] * 3}, "mscn": {"q1": [10.0] * 3, "q2": [10.0] * 3}})
    values = metrics(summarize(record), "mscn")
    assert values["test_total_time"] == pytest.approx(0.02)
    assert "test_speedup" not in values


def test_a_failure_in_the_warm_up_is_an_error() -> None:
    """A query that failed before its first measured round is counted as failed, not as unmeasured."""
    record = record_of({"baseline": {"q1": [10.0]}, "mscn": {"q1": []}})
    side = summarize(replace(record, runs=(*record.runs, run_of("mscn", "q1", 0, "boom")))).sides["mscn"]
    assert (side.error_count, side.unmeasured_count, side.complete) == (1, 0, False)


def test_an_interrupted_run_has_counts_but_no_total() -> None:
    """Complete queries of an interrupted run are displayed, incomplete ones are not, and none is in a metric."""
    whole = record_of(SIDES)
    record = replace(whole, end=None, runs=tuple(run for run in whole.runs if (run.query_id, run.repetition) != ("q2", 3)))
    summary = summarize(record)
    side = summary.sides["mscn"]
    assert (summary.status, side.query_count, side.unmeasured_count, side.total_s) == ("INTERRUPTED", 1, 1, 0.051)
    assert metrics(summary, "mscn") == {"test_query_count": 1, "test_timeout_count": 0, "test_error_count": 0}


def test_a_record_without_runs_can_be_summarized() -> None:
    """A run that died while training has a summary without any time."""
    summary = summarize(record_of({"baseline": {}, "mscn": {}}))
    assert metrics(summary, "mscn") == {"test_query_count": 0, "test_timeout_count": 0, "test_error_count": 0}
    assert (summary.sides["mscn"].against, summary.sides["mscn"].complete) == (None, False)


def test_changed_plans_are_counted_with_their_outcome() -> None:
    """One of two known plans changed, and its query got significantly faster."""
    against = summarize(with_reports(record_of(SIDES))).sides["mscn"].against
    assert against is not None
    assert against.plans is not None
    assert (against.plans.queries, against.plans.changed, against.plans.faster, against.plans.slower) == (2, 1, 1, 0)
    assert (against.wins, against.losses, against.ties) == (2, 0, 0)


def test_nothing_pays_off_that_saves_nothing() -> None:
    """A slower method never breaks even, one that may be slower may never do so, and one without training has no such figure."""
    slower = record_of({"baseline": {"q1": [10.0] * 3}, "mscn": {"q1": [20.0] * 3}})
    trained = replace(slower, training=(TrainingReport(side="mscn", duration_s=1.0),))
    unsure = record_of({"baseline": {"q1": [10.0] * 3, "q2": [10.0] * 3}, "mscn": {"q1": [5.0] * 3, "q2": [12.0] * 3}})
    unsure = replace(unsure, training=trained.training)

    def break_even(record: Record) -> Interval | None:
        against = summarize(record).sides["mscn"].against
        assert against is not None
        return against.break_even

    assert break_even(record_of(SIDES)) is None
    assert break_even(trained) == Interval(estimate=inf, low=inf, high=inf)
    assert "test_break_even" not in metrics(summarize(trained), "mscn")
    perhaps = break_even(unsure)
    assert perhaps is not None
    assert perhaps.low < perhaps.estimate < perhaps.high == inf


def test_infinite_intervals_are_no_metrics() -> None:
    """One round of one query does not show the noise: there is a speed-up without an interval."""
    summary = summarize(record_of({"baseline": {"q1": [10.0]}, "mscn": {"q1": [5.0]}}))
    against = summary.sides["mscn"].against
    assert against is not None
    assert (against.speedup.low, against.speedup.high) == (0.0, inf)
    assert "test_speedup_ci_high" not in metrics(summary, "mscn")
    assert metrics(summary, "mscn")["test_speedup"] == pytest.approx(2)


def test_the_summary_file_has_the_agreed_keys() -> None:
    """`algorithm, database, timestamp, metrics, extra_info` with plain JSON inside, and whole numbers where things are counted."""
    plain = json.loads(json.dumps(summary_json(with_reports(record_of(SIDES))), allow_nan=False))
    assert list(plain) == ["algorithm", "database", "timestamp", "metrics", "extra_info"]
    assert (plain["algorithm"], plain["database"], plain["timestamp"]) == ("mscn", "stats_tiny", "2025-01-01T00:00:00+00:00")
    assert plain["metrics"]["total_time"] == pytest.approx(0.551)
    assert (plain["metrics"]["query_count"], type(plain["metrics"]["query_count"])) == (2, int)
    assert plain["extra_info"]["sides"]["baseline"]["total_time"] == pytest.approx(1.1)
    assert plain["extra_info"]["status"] == "FINISHED"


def test_a_summary_is_the_same_every_time() -> None:
    """The intervals come from a seeded bootstrap: the same record always gives the same figures."""
    assert summary_json(record_of(SIDES)) == summary_json(record_of(SIDES))
