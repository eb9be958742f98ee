"""
Reading records beside `json.loads` of the same lines.

    pytest benchmarks/speed/test_records.py

Both read the same bytes in turns. The record has 100 queries on 3 sides in 5 rounds, with plans and estimates of a
query of five relations.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import pytest

from pytest_pilotscope.record.record import RecordWriter, nothing_collected, read_record
from pytest_pilotscope.record.results import PlanNode, QueryReport, QueryRun, RunEnd, RunHeader, SubplanEstimate

SIDES = ("baseline", "mscn", "oracle")
QUERIES = tuple(f"q{number:03}" for number in range(100))
TURNS = 15


def _plan(aliases: str) -> PlanNode:
    scan = PlanNode(operation="Seq Scan", relation="comments", alias=aliases[0], rows=4.0, cost=12.5, actual_rows=3.5, loops=2.0)
    if len(aliases) == 1:
        return scan
    children = (scan, _plan(aliases[1:]))
    return PlanNode(
        operation="Hash Join", rows=9.0, cost=99.5, actual_rows=8.0, loops=1.0, conditions=("(a.id = b.id)",), children=children
    )


def _write(path: Path) -> None:
    header = RunHeader(
        run_name="r", algorithm="mscn", dataset="d", started_at="2026-01-01", sides=SIDES, rounds=5, seed=0, suite_version="0", queries={}
    )
    estimates = tuple(SubplanEstimate(aliases=("a", "b", str(i)), estimated=1.5 * i, true=2.0 * i) for i in range(20))
    with RecordWriter(path, header) as writer:
        for query in QUERIES:
            for side in SIDES:
                for order in range(6):
                    run = QueryRun(
                        query_id=query, side=side, repetition=order, order=order, inference_ms=0.1, planning_ms=0.2, execution_ms=3.25
                    )
                    writer.write(run)
                writer.write(QueryReport(query_id=query, side=side, plan=_plan("abcde"), plan_cost=99.5, estimates=estimates))
        writer.write(RunEnd(status="FINISHED", finished_at="2026-01-01"))


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """Return the path of the record to read."""
    _write(tmp_path / "record.jsonl")
    return tmp_path / "record.jsonl"


def _seconds(read: Callable[[], object]) -> float:
    started = perf_counter()
    read()
    return perf_counter() - started


def test_reading(record: Path, show: Callable[[str], None]) -> None:
    """The record as values over its lines as dictionaries."""

    def loads() -> list[object]:
        with nothing_collected():
            return [json.loads(line) for line in record.read_bytes().splitlines()]

    ratios = [_seconds(lambda: read_record(record)) / _seconds(loads) for _ in range(TURNS)]
    show(f"{record.stat().st_size / 1e6:.1f} MB: read_record takes {median(ratios):.1f} times as long as json.loads")
    assert len(read_record(record).reports) == len(QUERIES) * len(SIDES)
