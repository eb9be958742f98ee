"""Remarks on queries that decide a total, and on those that take long."""

from __future__ import annotations

from dataclasses import replace

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import PlanNode, QueryReport, SubplanEstimate
from pytest_pilotscope.report.remarks import long_queries, record_remarks
from pytest_pilotscope.report.terminal import render_records
from pytest_pilotscope.statistics.summary import summarize
from tests.record.building import record_of


def said(record: Record) -> list[str]:
    """Return the texts of the remarks."""
    return [remark.text for remark in long_queries(summarize(record))]


def times(**ms: float) -> dict[str, list[float]]:
    """Return three equal rounds of each query."""
    return {query: [time] * 3 for query, time in ms.items()}


def test_a_query_that_dominates_a_total_is_named() -> None:
    """More than half of the total of a side, of three queries or more; the sides of one query share a sentence."""
    record = record_of({"baseline": times(q1=10.0, q2=900.0, q3=20.0), "mscn": times(q1=300.0, q2=400.0, q3=20.0)})
    expected = (
        "q2 alone takes 97% of the total of baseline and 56% of the total of mscn, so it decides the total; the speed-up per query counts "
        "all queries alike"
    )
    assert said(record) == [expected]
    assert expected in render_records([record], width=None, color=False)
    assert said(record_of({"baseline": times(q1=10.0, q2=9.0, q3=9.0), "mscn": times(q1=10.0, q2=9.0, q3=9.0)})) == []
    assert said(record_of({"baseline": times(q1=10.0, q2=900.0), "mscn": times(q1=10.0, q2=900.0)})) == []


def test_a_limit_of_time_is_recommended() -> None:
    """Queries that take over ten seconds on any side are named, unless the run has a limit."""
    slow = times(q1=11_000.0, q2=12_000.0, q3=9_000.0)
    record = record_of({"baseline": slow, "mscn": {**slow, "q3": [10_500.0] * 3}})
    assert said(record) == ["q1, q2, q3 take over 10 s; limit such queries with --query-timeout-ms"]
    assert said(replace(record, header=replace(record.header, timeout_ms=60_000.0))) == []
    one = record_of({"baseline": times(q1=11_000.0, q2=9_000.0, q3=9_000.0), "mscn": times(q1=5.0, q2=5.0, q3=5.0)})
    assert said(one) == ["q1 takes over 10 s; limit such queries with --query-timeout-ms"]


def test_queries_without_a_q_error_are_named() -> None:
    """A side that is judged on others has no q-error where PostgreSQL considers other sets; one that decides plans has none at all."""
    judged = (SubplanEstimate(aliases=("a",), estimated=2.0, true=1.0),)
    record = record_of({side: times(q1=1.0, q2=1.0) for side in ("baseline", "few+mscn", "lero")}, algorithm="compare")
    plan = PlanNode(operation="Seq Scan", rows=1.0, cost=1.0)
    reports = [
        QueryReport(query_id=query, side=side, plan=plan, steered_ratio=None if side == "baseline" else 1.0, estimates=found)
        for side, by_query in (("baseline", (judged, judged)), ("few+mscn", (judged, None)), ("lero", (None, None)))
        for query, found in zip(("q1", "q2"), by_query, strict=True)
    ]
    texts = [remark.text for remark in record_remarks(replace(record, reports=tuple(reports)))]
    assert texts == ["few+mscn: no q-error of q2: PostgreSQL does not consider the same sets of relations there as on the baseline"]
