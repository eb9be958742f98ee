"""Queries that a method made slower are named, in the table's remarks and in the summary."""

from __future__ import annotations

import pytest

from pytest_pilotscope.core.summary import summarize, summary_json
from pytest_pilotscope.report.remarks import regressions_of
from pytest_pilotscope.report.terminal import render_records
from tests.core.records import record_of
from tests.core.test_ranking import contest


def test_slower_queries_are_named_the_worst_first() -> None:
    """Those beyond noise, with their ratio, at most five by name; a side that made nothing slower is not mentioned."""
    record = contest(fast=0.5, slow=2.0)
    (remark,) = regressions_of(summarize(record))
    assert remark.bad
    assert remark.text.startswith("slow made 20 of 20 queries slower beyond noise: q")
    assert remark.text.endswith("x) and 15 more")
    ratios = [float(part.split("(")[1].split("x")[0]) for part in remark.text.split(": ")[1].split(", ")]
    assert ratios == sorted(ratios, reverse=True)
    assert "slow made 20 of 20 queries slower beyond noise" in render_records([record], width=200, color=False)


def test_the_summary_lists_them() -> None:
    """By query, with candidate / baseline, also for sides that have none."""
    found = summary_json(contest(fast=0.5, slow=2.0))["extra_info"]["regressions"]
    assert found["fast"] == {}
    assert len(found["slow"]) == 20
    assert found["slow"]["q1"] == pytest.approx(2.0, rel=0.1)


def test_within_noise_nothing_is_named() -> None:
    """Times that differ as much within a side as between the sides are no regression."""
    times = {"q": [1.0, 3.0, 2.0]}
    assert list(regressions_of(summarize(record_of({"baseline": times, "mscn": {"q": [3.0, 1.0, 2.5]}})))) == []
