"""Building records for tests from execution times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryRun, RunEnd, RunHeader

Time = float | str
"""Milliseconds; or `>500` for a run that timed out at 500 ms, or any other text for a failure with that message."""

FINISHED = RunEnd(status="FINISHED", finished_at="2025-01-01T00:10:00+00:00")


def record_of(times: Mapping[str, Mapping[str, Sequence[Time]]], *, algorithm: str = "mscn", seed: int = 0) -> Record:
    """
    Return a finished record with these execution times by side, query and round (the first is round 1).

    Every run has 1 ms of planning inside its time (a quarter of it, if it is shorter than 4 ms), and every side but the baseline as much
    inference.
    """
    queries = dict.fromkeys(query_id for side in times.values() for query_id in side)
    rounds = max((len(row) for side in times.values() for row in side.values()), default=5)
    header = RunHeader(
        run_name=f"{algorithm}_stats_tiny_20250101_000000",
        algorithm=algorithm,
        dataset="stats_tiny",
        started_at="2025-01-01T00:00:00+00:00",
        sides=tuple(times),
        rounds=rounds,
        seed=seed,
        suite_version="0.1.0",
        queries={query_id: f"SELECT count(*) FROM {query_id}" for query_id in queries},
        fingerprints={"build": "16.4", "statistics": "aa", "data": "bb"},
    )
    runs = tuple(
        run_of(side, query_id, repetition, time)
        for side, by_query in times.items()
        for query_id, row in by_query.items()
        for repetition, time in enumerate(row, start=1)
    )
    return Record(header=header, runs=runs, end=FINISHED)


def run_of(side: str, query_id: str, repetition: int, time: Time) -> QueryRun:
    """Return one run; `record_of` describes the text."""
    run = QueryRun(query_id=query_id, side=side, repetition=repetition, order=0, inference_ms=0.0, planning_ms=0.0, execution_ms=0.0)
    if isinstance(time, str) and not time.startswith(">"):
        return replace(run, error=time)
    total_ms = float(time[1:]) if isinstance(time, str) else time
    part_ms = min(1.0, total_ms / 4)
    inference_ms = 0.0 if side == "baseline" else part_ms
    if isinstance(time, str):
        return replace(run, inference_ms=inference_ms, execution_ms=total_ms - inference_ms, timed_out=True)
    return replace(run, inference_ms=inference_ms, planning_ms=part_ms, execution_ms=total_ms - part_ms - inference_ms)
