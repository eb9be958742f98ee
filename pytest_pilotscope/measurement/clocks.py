"""How a statement is timed on the server: by the library where it is loaded, else by EXPLAIN ANALYZE."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from pytest_pilotscope.postgres.steering import TimedRun, has_extension

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

Clock = Callable[["Session", str], TimedRun]
ClockName = Literal["library", "explain"]


def clock_name(session: Session) -> ClockName:
    """Which clock this session has; part of every result, because the two are not comparable to the last per cent."""
    return "library" if has_extension(session) else "explain"


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
    rows = session.execute(sql)
    explained = session.scalar(f"EXPLAIN (ANALYZE, TIMING OFF, SUMMARY ON, FORMAT JSON) {sql}")[0]
    return TimedRun(planning_ms=explained["Planning Time"], execution_ms=explained["Execution Time"], rows=rows)
