"""What a method cost and whom it hurt: deciding, choices, and queries that it made slower."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pilotscope.report.remarks import decisions_of, regressions_of
from pytest_pilotscope.report.terminal import render_records
from pytest_pilotscope.statistics.summary import summarize, summary_json
from tests.record.building import record_of
from tests.report.samples import comparison
from tests.statistics.test_ranking import record_of_sides


def test_slower_queries_are_named_the_worst_first() -> None:
    """Those beyond noise, with their ratio, at most five by name; a side that made nothing slower is not mentioned."""
    record = record_of_sides(fast=0.5, slow=2.0)
    (remark,) = regressions_of(summarize(record))
    assert remark.bad
    assert remark.text.startswith("slow made 20 of 20 queries slower beyond noise: q")
    assert remark.text.endswith("x) and 15 more")
    ratios = [float(part.split("(")[1].split("x")[0]) for part in remark.text.split(": ")[1].split(", ")]
    assert ratios == sorted(ratios, reverse=True)
    assert "slow made 20 of 20 queries slower beyond noise" in render_records([record], width=200, color=False)


def test_the_summary_lists_them() -> None:
    """By query, with candidate / baseline, also for sides that have none."""
    found = summary_json(record_of_sides(fast=0.5, slow=2.0))["extra_info"]["regressions"]
    assert found["fast"] == {}
    assert len(found["slow"]) == 20
    assert found["slow"]["q1"] == pytest.approx(2.0, rel=0.1)


def test_within_noise_nothing_is_named() -> None:
    """Times that differ as much within a side as between the sides are no regression."""
    times = {"q": [1.0, 3.0, 2.0]}
    assert list(regressions_of(summarize(record_of({"baseline": times, "mscn": {"q": [3.0, 1.0, 2.5]}})))) == []


def test_what_deciding_cost_and_brought_is_said() -> None:
    """Inference in seconds and as a share of the side's time, and what the server saved by it; a side that decides nothing says nothing."""
    record = record_of({"baseline": {"q": [300.0, 300.0]}, "lero": {"q": [100.0, 100.0]}})
    runs = tuple(replace(run, inference_ms=25.0) if run.side == "lero" else run for run in record.runs)
    (remark,) = decisions_of(replaced := replace(record, runs=runs), summarize(replaced))
    assert not remark.bad
    assert remark.text == "lero: deciding took 0.025 s (20.2% of its time); planning and execution took 0.201 s less than the baseline's"
    idle = replace(record, runs=tuple(replace(run, inference_ms=0.0) for run in record.runs))
    assert list(decisions_of(idle, summarize(idle))) == []


def test_how_well_plans_were_chosen_is_said() -> None:
    """Of the validation queries, whose candidates were all run: accuracy and regret, beside the regret of PostgreSQL's own plans."""
    record = comparison()
    (text,) = (remark.text for remark in decisions_of(record, summarize(record)) if "regret" in remark.text)
    assert text == (
        "fast: of 40 validation queries whose candidate plans were all run, the best-scored plan was the fastest in 75%; "
        "regret 8.0% (of PostgreSQL's own plans 20.0%)"
    )
