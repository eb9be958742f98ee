"""Clocks: the library times a statement on the server, or EXPLAIN ANALYZE does where the library is not loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns, process_time_ns
from typing import Any

from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import TimedRun, has_extension, timed_stream
from pytest_pilotscope.postgres.streaming import Take
from pytest_pilotscope.queries.statements import single

Clock = Callable[[Session, str, Take | None], TimedRun]
"""Runs a statement, hands its rows to the function (None: drops them), and returns its times and the number of its rows."""


@dataclass(slots=True)
class Stopwatch:
    """Adds up the time of its blocks, in ms: by the wall clock, and the processor time of this process."""

    elapsed_ms: float = 0.0
    processor_ms: float = 0.0
    _started_ns: int = 0
    _processor_ns: int = 0

    def __enter__(self) -> None:
        self._started_ns, self._processor_ns = perf_counter_ns(), process_time_ns()

    def __exit__(self, *_: object) -> None:
        self.processor_ms += (process_time_ns() - self._processor_ns) / 1e6
        self.elapsed_ms += (perf_counter_ns() - self._started_ns) / 1e6


def clock_of(*sessions: Session) -> Clock:
    """
    Return the best clock that all of these sessions have.

    Without the library it is EXPLAIN (ANALYZE, TIMING OFF): the server's own planning and execution time with a little instrumentation
    per node, the same on every side; a plain execution before it gives the rows.
    """
    return timed_stream if all(map(has_extension, sessions)) else explain_timed


def explain_timed(session: Session, sql: str, take: Take | None) -> TimedRun:
    """Run a statement for its rows, and once more under EXPLAIN (ANALYZE, TIMING OFF) for its times."""
    return _explained(session, sql, session.stream(single(sql), take), [])


def timed_with_rows(session: Session, sql: str) -> TimedRun:
    """Run a statement by the best clock of its session, and return its rows, too."""
    if has_extension(session):
        return session.timed(sql)
    rows = session.execute(single(sql))
    return _explained(session, sql, len(rows), rows)


def _explained(session: Session, sql: str, row_count: int, rows: list[tuple[Any, ...]]) -> TimedRun:
    explained = session.scalar(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY ON, FORMAT JSON) {sql}")[0]
    return TimedRun(planning_ms=explained["Planning Time"], execution_ms=explained["Execution Time"], row_count=row_count, rows=rows)
