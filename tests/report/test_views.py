"""The tables that tests of a run show below their names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pilotscope.record.results import PlanNode, QueryReport, SubplanEstimate
from pytest_pilotscope.report.views import estimation_view, inference_view
from tests.record.building import record_of


@pytest.mark.parametrize("side", ["mscn", "mscn-retrained"])
def test_the_table_of_inference_fits_eighty_columns(side: str) -> None:
    """Its longest line does, with the longest name of a built-in side."""
    record = record_of({"baseline": {"q0": [10.0, 10.1]}, side: {"q0": [10.0, 10.1]}})
    runs = tuple(replace(run, inference_ms=123.45 if run.side == side else 0.0, inference_processor_ms=100.0) for run in record.runs)
    view = inference_view(replace(record, runs=runs))
    assert view is not None
    assert max(map(len, view.split("\n"))) <= 80
    assert side in view


def test_estimates_of_forty_relations_are_in_a_few_rows() -> None:
    """Sets of 1 to 40 relations are grouped by joins; q-errors and p-errors have a table each, with a row for all, in 80 columns."""
    names = [f"t{place}" for place in range(40)]
    sets = tuple(SubplanEstimate(aliases=tuple(names[: size + 1]), estimated=2.0, true=1.0) for size in range(40))
    reports = tuple(
        QueryReport(query_id="q0", side=side, estimates=sets, p_error=1.25, steered_ratio=None if side == "baseline" else 1.0)
        for side in ("baseline", "mscn")
    )
    view = estimation_view(replace(record_of({side: {"q0": [10.0]} for side in ("baseline", "mscn")}), reports=reports))
    assert view is not None
    lines = [line.rstrip() for line in view.split("\n")]
    assert max(map(len, lines)) <= 80
    assert [line.split()[:3] for line in lines if line.startswith((" mscn", " side", "q-error", "p-error"))] == [
        ["q-error", "of", "subplans"],
        ["side", "joins", "count"],
        ["mscn", "0", "1"],
        ["mscn", "1", "1"],
        ["mscn", "2", "1"],
        ["mscn", "3-4", "2"],
        ["mscn", "5-8", "4"],
        ["mscn", "9-16", "8"],
        ["mscn", "17-32", "16"],
        ["mscn", "33-39", "7"],
        ["mscn", "all", "40"],
        ["p-error", "of", "queries"],
        ["side", "joins", "count"],
        ["mscn", "39", "1"],
        ["mscn", "all", "1"],
    ]


def test_inference_for_many_numbers_of_relations_is_in_a_few_rows() -> None:
    """Queries of 1 to 12 relations are grouped as sets by joins are."""
    times = {f"q{size}": [10.0] for size in range(1, 13)}
    record = record_of(dict.fromkeys(("baseline", "mscn"), times))
    runs = tuple(replace(run, inference_ms=1.0 if run.side == "mscn" else 0.0) for run in record.runs)
    reports = tuple(QueryReport(query_id=f"q{size}", side="baseline", plan=_joined(size)) for size in range(1, 13))
    view = inference_view(replace(record, runs=runs, reports=reports))
    assert view is not None
    assert [line.split()[1:3] for line in view.split("\n") if line.startswith(" mscn")] == [
        ["1", "1"],
        ["2", "1"],
        ["3-4", "2"],
        ["5-8", "4"],
        ["9-12", "4"],
    ]


def _joined(relations: int) -> PlanNode:
    scans = tuple(PlanNode(operation="Seq Scan", relation="t", alias=f"t{place}", rows=1.0, cost=1.0) for place in range(relations))
    return PlanNode(operation="Append", rows=1.0, cost=1.0, children=scans)
