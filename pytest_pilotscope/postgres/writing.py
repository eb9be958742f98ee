"""Run scripts that write, each in a session that may write to a database of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from time import perf_counter_ns
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import QueryTimeout, ServerError, StatementFailed
from pytest_pilotscope.queries.scripts import ScriptRun

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

TRIES = 20
"""A transaction that others make fail (a deadlock, a serialization failure) runs so many times at most."""

LIMIT_MS = 60_000
"""The time limit of a statement if the user gives none."""

_OTHERS = frozenset(("40001", "40P01"))


def script_scale(session: Session) -> int:
    """Return the variable `scale` as pgbench finds it: the rows of `pgbench_branches`, and 1 without that table."""
    if session.scalar("SELECT to_regclass('pgbench_branches') IS NULL"):
        return 1
    return max(int(session.scalar("SELECT count(*) FROM pgbench_branches")), 1)


@contextmanager
def writing(session: Session, limit_ms: float | None) -> Iterator[Session]:
    """Give the session with a time limit for each statement (None: `LIMIT_MS`), within which it also waits for locks."""
    session.execute("SET lock_timeout = 0")
    with session.statement_timeout(LIMIT_MS if limit_ms is None else ceil(limit_ms)):
        yield session


def write(session: Session, run: ScriptRun) -> float:
    """
    Run a script and return the time that its client waited, in ms.

    Repeat a transaction that failed because of others. Raise `ServerError`, which names the script, for any other failure.
    """
    started_ns = perf_counter_ns()
    at = begun = tries = 0
    while at < len(run.statements):
        try:
            session.execute(run.statements[at])
        except (StatementFailed, QueryTimeout) as error:
            tries += 1
            others = isinstance(error, StatementFailed) and error.sqlstate in _OTHERS
            if session.closed or not others or tries == TRIES:
                raise _failure(run, error) from error
            session.end_transaction()
            at = begun
            continue
        at += 1
        begun = begun if session.transaction_open else at
    if begun < at:
        session.end_transaction()
        raise ServerError(f"--writes {run.script}: the script leaves a transaction open; end it with COMMIT")
    return (perf_counter_ns() - started_ns) / 1e6


def _failure(run: ScriptRun, error: ServerError) -> ServerError:
    if isinstance(error, QueryTimeout):
        return ServerError(f"--writes {run.script}: {error}; give it more time with --query-timeout-ms")
    return ServerError(
        f"--writes {run.script}: {error}; all sides need the same writes, so that none may fail: mend the script, or let it take keys that "
        "are free (nextval, ON CONFLICT DO NOTHING)"
    )
