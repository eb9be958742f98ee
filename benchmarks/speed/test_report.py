"""
Making the page of a record, and gating it, beside `json.loads` of the record's lines, in processor time.

    pytest benchmarks/speed/test_report.py

The records have 300 and 1,000 queries on 6 sides in 5 rounds, with plans of nine relations that are different on all sides in half of the
queries, and estimates on two of the sides.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from time import process_time

import pytest

from pytest_pilotscope.gate.rules import Policy, decide
from pytest_pilotscope.record.record import RecordWriter, nothing_collected, read_record
from pytest_pilotscope.record.results import PlanNode, QueryReport, QueryRun, RunEnd, RunHeader, SubplanEstimate
from pytest_pilotscope.report.page import page

METHODS = {
    "baseline": "Hash",
    "oracle": "Merge",
    "mscn": "Nested Loop",
    "lero": "Hash Right",
    "hintset": "Merge Right",
    "textbook": "Hash Left",
}
ESTIMATING = ("baseline", "mscn")
ALIASES = "abcdefghi"
ROUNDS = 5


def _plan(aliases: str, method: str) -> PlanNode:
    conditions = ("(a_number >= 1000) AND (another_number <= 2000)",)
    table = f"table_{aliases[0]}"
    scan = PlanNode(
        operation="Seq Scan", relation=table, alias=aliases[0], conditions=conditions, rows=1234, cost=12.5, actual_rows=99, loops=1
    )
    if len(aliases) == 1:
        return scan
    condition = (f"({aliases[0]}.id = {aliases[1]}.other_id)",)
    children = (scan, _plan(aliases[1:], method))
    return PlanNode(operation=f"{method} Join", rows=12345, cost=99.5, actual_rows=98765, loops=1, conditions=condition, children=children)


def write_record(path: Path, queries: int) -> None:
    """Write a record of so many queries."""
    draw = random.Random(1)  # noqa: S311 - times for a benchmark
    joins = " AND ".join(f"{a}.id = {b}.other_id AND {a}.a_number >= 1000" for a, b in pairwise(ALIASES))
    sql = f"SELECT count(*) FROM {', '.join(f'table_{a} AS {a}' for a in ALIASES)} WHERE {joins}"  # noqa: S608 - constants
    names = [f"q{number:04}" for number in range(queries)]
    header = RunHeader(
        run_name="r",
        algorithm="compare",
        dataset="d",
        started_at="2026-01-01T00:00:00+00:00",
        sides=tuple(METHODS),
        rounds=ROUNDS,
        seed=0,
        suite_version="0",
        queries=dict.fromkeys(names, sql),
    )
    estimates = tuple(SubplanEstimate(aliases=(*ALIASES[: 2 + i % 4], str(i)), estimated=1.5 * i, true=2.0 * i) for i in range(40))
    with RecordWriter(path, header) as writer:
        for number, name in enumerate(names):
            usual_ms = draw.uniform(10, 200)
            for side, method in METHODS.items():
                typical_ms = usual_ms * draw.lognormvariate(0, 0.5)
                for order in range(ROUNDS + 1):
                    ms = typical_ms * draw.uniform(0.95, 1.05)
                    writer.write(
                        QueryRun(query_id=name, side=side, repetition=order, order=order, planning_ms=1, execution_ms=ms, inference_ms=0.1)
                    )
                its = method if number % 2 else "Hash"
                known = estimates if side in ESTIMATING else None
                writer.write(
                    QueryReport(query_id=name, side=side, plan=_plan(ALIASES, its), plan_shape=its, plan_cost=99.5, estimates=known)
                )
        writer.write(RunEnd(status="FINISHED", finished_at="2026-01-01T00:10:00+00:00"))


def _took_s(work: Callable[[], object]) -> float:
    began_s = process_time()
    work()
    return process_time() - began_s


@pytest.mark.parametrize("queries", [300, 1000])
def test_page_and_gate_beside_json(queries: int, tmp_path: Path, show: Callable[[str], None]) -> None:
    """Read, gate against itself and show a record; the first page also imports matplotlib."""
    path = tmp_path / "record.jsonl"
    write_record(path, queries)
    lines = path.read_bytes().splitlines()
    page([read_record(path)])
    with nothing_collected():
        json_s = min(_took_s(lambda: [json.loads(line) for line in lines]) for _ in range(3))
    record = read_record(path)
    read_s = _took_s(lambda: read_record(path))
    gate_s = _took_s(lambda: decide(record, record, Policy()))
    text = page([record])
    page_s = _took_s(lambda: page([record]))
    size_mb = path.stat().st_size / 1e6
    figures = (
        f"json.loads {json_s:.2f} s, reading {read_s / json_s:.1f}, gating {gate_s / json_s:.1f}, page {page_s / json_s:.1f} times as long"
    )
    show(f"{queries} queries x {len(METHODS)} sides, {size_mb:.0f} MB: {figures}; page {page_s:.1f} s, {len(text.encode()) / 1e6:.2f} MB")
