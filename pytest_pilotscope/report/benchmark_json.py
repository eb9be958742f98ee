"""Entries for pytest-benchmark, one per query and side, so that its JSON, storage and comparison work on our runs."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

from pytest_benchmark.session import BenchmarkSession
from pytest_benchmark.stats import Metadata

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryReport, QueryRun

MARK = "pilotscope"
"""The key in `extra_info` that marks our entries."""


def add_entries(session: BenchmarkSession, record: Record, *, nodeid: str) -> None:
    """
    Append one entry per query and side to pytest-benchmark's session.

    Samples are end-to-end times in seconds. A timed-out repetition counts with its limit, and `extra_info` has the number of these. A query
    without a successful repetition on a side has no entry, because pytest-benchmark has no field for that.
    """
    runs: dict[tuple[str, str], list[QueryRun]] = defaultdict(list)
    for run in record.runs:
        if not run.warm_up and run.error is None:
            runs[run.query_id, run.side].append(run)
    reports = {(report.query_id, report.side): report for report in record.reports}
    for (query_id, side), measured in runs.items():
        session.benchmarks.append(_entry(record, nodeid, query_id, side, measured, reports.get((query_id, side))))


def _entry(record: Record, nodeid: str, query_id: str, side: str, runs: list[QueryRun], report: QueryReport | None) -> Any:
    header = record.header
    fixture = SimpleNamespace(
        name=f"{query_id}[{side}-{header.dataset}]",
        fullname=f"{nodeid}::{query_id}[{side}]",
        group=f"{header.dataset}::{query_id}",
        param=f"{side}-{header.dataset}",
        params={"algo": header.algorithm, "db": header.dataset, "query": query_id, "side": side},
        extra_info=_extra(record, side, runs, report),
        cprofile_stats=None,
        has_error=False,
    )
    entry: Any = Metadata(fixture, iterations=1, options={"timer": "server clock + perf_counter", "warmup": True})  # type: ignore[no-untyped-call]  # pytest-benchmark has no type information
    for run in runs:
        entry.update(run.end_to_end_ms / 1e3)
    return entry


def _extra(record: Record, side: str, runs: list[QueryRun], report: QueryReport | None) -> dict[str, Any]:
    header = record.header
    extra: dict[str, Any] = {
        MARK: header.suite_version,
        "run_name": header.run_name,
        "side": side,
        "baseline_side": header.baseline_side,
        "inference_ms": [run.inference_ms for run in runs],
        "planning_ms": [run.planning_ms for run in runs],
        "execution_ms": [run.execution_ms for run in runs],
        "timed_out": sum(run.timed_out for run in runs),
        "parallel": header.parallel,
        "fingerprints": dict(header.fingerprints),
    }
    if report is not None:
        extra |= {
            "steered_ratio": report.steered_ratio,
            "plan_shape": report.plan_shape,
            "plan_cost": report.plan_cost,
            "p_error": report.p_error,
        }
    return extra
