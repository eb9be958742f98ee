"""Clocks: the library times a statement on the server, or EXPLAIN ANALYZE does where the library is not loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter_ns

from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import TimedRun, has_extension
from pytest_pilotscope.queries.statements import single

Clock = Callable[[Session, str], TimedRun]


@dataclass(slots=True)
class Stopwatch:
    """Adds up the time of its blocks, in ms."""

    elapsed_ms: float = 0.0
    _started_ns: int = 0

    def __enter__(self) -> None:
        self._started_ns = perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        self.elapsed_ms += (perf_counter_ns() - self._started_ns) / 1e6


def clock_of(session: Session) -> Clock:
    """
    Return the best clock of a session.

    Without the library it is EXPLAIN (ANALYZE, TIMING OFF): the server's own planning and execution time with a little instrumentation
    per node, the same on every side; a plain execution before it gives the rows.
    """
    if has_extension(session):
        return lambda timed_session, sql: timed_session.timed(sql)
    return explain_timed


def explain_timed(session: Session, sql: str) -> TimedRun:
    """Run a statement for its rows, and once more under EXPLAIN (ANALYZE, TIMING OFF) for its times."""
    rows = session.execute(single(sql))
    explained = session.scalar(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY ON, FORMAT JSON) {sql}")[0]
    return TimedRun(planning_ms=explained["Planning Time"], execution_ms=explained["Execution Time"], rows=rows)
