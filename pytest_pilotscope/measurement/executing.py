"""One timed execution; its failure is a result."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import LeftTransaction, QueryTimeout, StatementFailed
from pytest_pilotscope.record.results import QueryRun

if TYPE_CHECKING:
    from pytest_pilotscope.measurement.clocks import Clock
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.postgres.streaming import Take


def executed(run: QueryRun, session: Session, sql: str, clock: Clock, *, limit_ms: int, take: Take | None = None) -> QueryRun:
    """Run a statement, unable to write, for at most `limit_ms`; return the run with its times, or with the time-out or failure."""
    try:
        with session.statement_timeout(limit_ms):
            timed = session.unable_to_write(lambda: clock(session, sql, take))
    except QueryTimeout:
        return replace(run, execution_ms=limit_ms, timed_out=True)
    except (StatementFailed, LeftTransaction) as error:
        return replace(run, error=str(error))
    return replace(run, planning_ms=timed.planning_ms, execution_ms=timed.execution_ms, row_count=timed.row_count)
