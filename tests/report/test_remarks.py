"""Remarks on the cost of inference, on choices, and on slower queries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pilotscope.report.remarks import inference_remarks, slower_queries
from pytest_pilotscope.report.terminal import render_records
from pytest_pilotscope.statistics.summary import summarize, summary_json
from tests.record.building import record_of
from tests.report.samples import comparison
from tests.statistics.test_ranking import record_of_sides


def test_slower_queries_are_named_the_worst_first() -> None:
    """The remark names at most five significantly slower queries with their ratios; a side without any gets no remark."""
    record = record_of_sides(fast=0.5, slow=2.0)
    (remark,) = slower_queries(summarize(record))
    assert remark.bad
    assert remark.text.startswith("slow is significantly slower on 20 of 20 queries: q")
    assert remark.text.endswith("x) and 15 more")
    ratios = [float(part.split("(")[1].split("x")[0]) for part in remark.text.split(": ")[1].split(", ")]
    assert ratios == sorted(ratios, reverse=True)
    assert "slow is significantly slower on 20 of 20 queries" in render_records([record], width=200, color=False)


def test_the_summary_lists_them() -> None:
    """The summary has candidate / baseline of the slower queries, and an empty list for a side without any."""
    found = summary_json(record_of_sides(fast=0.5, slow=2.0))["extra_info"]["regressions"]
    assert found["fast"] == {}
    assert len(found["slow"]) == 20
    assert found["slow"]["q1"] == pytest.approx(2.0, rel=0.1)


def test_within_noise_nothing_is_named() -> None:
    """Times that differ as much within a side as between the sides are no regression."""
    times = {"q": [1.0, 3.0, 2.0]}
    assert list(slower_queries(summarize(record_of({"baseline": times, "mscn": {"q": [3.0, 1.0, 2.5]}})))) == []


def test_the_cost_of_inference_is_stated() -> None:
    """The remark states inference in seconds and as a share of the side's time, and the saved server time; without inference, nothing."""
    record = record_of({"baseline": {"q": [300.0, 300.0]}, "lero": {"q": [100.0, 100.0]}})
    runs = tuple(replace(run, inference_ms=25.0) if run.side == "lero" else run for run in record.runs)
    (remark,) = inference_remarks(replaced := replace(record, runs=runs), summarize(replaced))
    assert not remark.bad
    assert remark.text == "lero: inference took 0.025 s (20.2% of its time); planning and execution took 0.201 s less than the baseline's"
    idle = replace(record, runs=tuple(replace(run, inference_ms=0.0) for run in record.runs))
    assert list(inference_remarks(idle, summarize(idle))) == []


def test_the_quality_of_plan_choices_is_stated() -> None:
    """The remark states accuracy and regret on validation queries with all candidates executed, beside PostgreSQL's own regret."""
    record = comparison()
    (text,) = (remark.text for remark in inference_remarks(record, summarize(record)) if "regret" in remark.text)
    assert text == (
        "fast: the best-scored plan was the fastest in 75% of 40 validation queries with all candidate plans executed; "
        "regret 8.0% (PostgreSQL's own plans: 20.0%)"
    )
