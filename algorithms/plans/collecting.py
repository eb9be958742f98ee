"""
Collection of timed plans: the plans of every training query, timed on the database.

Each plan has a session of its own, in which it is prepared under the steering that makes PostgreSQL choose it. So PostgreSQL plans it once
however often it runs, and all plans of a query can take turns.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.algorithms.plans.timed import Q, TimedStore, sql_key
from pytest_pilotscope.algorithms.plans.timing import TimingRules
from pytest_pilotscope.errors import QueryTimeout, StatementFailed, counted
from pytest_pilotscope.places.folders import cache_subfolder
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.queries.statements import single

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.provision.pool import Worker, WorkerPool

logger = logging.getLogger(__name__)

_PREPARED = "pilotscope_candidate"

Steer = Callable[["Session"], AbstractContextManager[None]]
"""From a session to a block in which PostgreSQL chooses one of the plans."""

Collect = Callable[[Query, "PlanSessions"], Q]
"""
Find the plans of a query and time them: the task of a worker, which pickle can copy.

It depends only on its arguments and changes nothing, so any worker with the same data can do or repeat it. It raises `StatementFailed` for
a query that PostgreSQL refuses.
"""


def limited(rules: TimingRules, training: Training) -> TimingRules:
    """Return the rules with the user's time limit, if there is one."""
    limit_ms = training.settings.query_timeout_ms
    return rules if limit_ms is None else replace(rules, last_limit_ms=limit_ms)


def store_path(training: Training, rules: Any, *, format_number: int) -> Path:
    """
    Return the file for this data, these statistics, this server, its sessions and these rules (JSON values), in the user's cache folder.

    The fingerprint has the settings of the server. Sessions may have more: those of `--parallel`, `--jit` and a variant give other times.
    """
    found, sessions = training.database.fingerprint, sorted(training.database.session_settings.items())
    state = (format_number, found.statistics, found.settings, found.indexes, found.build, rules, *([sessions] if sessions else []))
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:12]
    return cache_subfolder(training.algorithm) / found.data.replace("~", "estimated-") / f"{key}.jsonl"


def collected_queries(training: Training, queries: Sequence[Query], store: TimedStore[Q], collect_one: Collect[Q]) -> list[Q]:
    """Return queries as `collect_missing` does; run the missing ones one by one, on workers if there are any, with progress."""
    return collect_missing(training, queries, store, lambda missing: _collect_each(training, missing, store, collect_one))


def collect_missing(
    training: Training, queries: Sequence[Query], store: TimedStore[Q], collect: Callable[[Sequence[Query]], None]
) -> list[Q]:
    """
    Return these queries with their timed plans, in order: from the store, to which `collect` adds those that it lacks.

    With `--no-collection` no query runs. A query that PostgreSQL refuses is left out, with a warning.
    """
    if training.settings.collection and any(sql_key(query.sql) not in store.known for query in queries):
        with store.locked():
            missing = {sql_key(query.sql): query for query in queries if sql_key(query.sql) not in store.known}
            collect(list(missing.values()))
    return known(queries, store)


def known(queries: Sequence[Query], store: TimedStore[Q]) -> list[Q]:
    """Return the queries among these that the store has, in order."""
    return [store.known[key] for query in queries if (key := sql_key(query.sql)) in store.known]


def nothing_collected(training: Training, path: Path, depends_on: str) -> str:
    """Return the sentence for the error that no training query has timed plans; those in the file depend on `depends_on`."""
    name = training.algorithm
    if not training.queries:
        return f"{name} has no training queries; raise --training-size or give a workload that has some"
    queries = counted(len(training.queries), "training query", "training queries")
    if training.settings.collection:
        return f"{name} collected none of {queries}: PostgreSQL refused all; the warnings above say why"
    return (
        f"{name} has nothing to learn from: --no-collection was given, and {path} has none of {queries} for this data, server, limit and "
        f"{depends_on}; run once without --no-collection"
    )


def _collect_each(training: Training, queries: Sequence[Query], store: TimedStore[Q], collect_one: Collect[Q]) -> None:
    what = f"{training.algorithm} plans of {counted(len(queries), 'query', 'queries')}"
    with training.pool() as pool, training.progress(what, len(queries)) as advance:
        found = _collected_here(training.database, queries, collect_one) if pool is None else _collected_by(pool, queries, collect_one)
        for query, result in found:
            if isinstance(result, str):
                logger.warning("%s does not learn from query %s: %s", training.algorithm, query.id, result)
            else:
                store.add(result)
            advance(1)


def _collected_here(database: Database, queries: Sequence[Query], collect_one: Collect[Q]) -> Iterator[tuple[Query, Q | str]]:
    with closing(PlanSessions(database)) as sessions:
        for query in queries:
            yield query, _collected_or_refused(query, sessions, collect_one)


def _collected_by(pool: WorkerPool, queries: Sequence[Query], collect_one: Collect[Q]) -> Iterator[tuple[Query, Q | str]]:
    by_key = {str(number): query for number, query in enumerate(queries)}
    for key, query in by_key.items():
        pool.submit(key, collect_there, (query, collect_one))
    for _ in queries:
        key, result = pool.next()
        yield by_key[key], result


def collect_there(place: Worker, task: tuple[Query, Collect[Q]]) -> Q | str:
    """Collect a query on a worker."""
    query, collect_one = task
    with closing(PlanSessions(place.database)) as sessions:
        return _collected_or_refused(query, sessions, collect_one)


def _collected_or_refused(query: Query, sessions: PlanSessions, collect_one: Collect[Q]) -> Q | str:
    """Return the collected query, or PostgreSQL's error."""
    try:
        return collect_one(query, sessions)
    except StatementFailed as error:
        return str(error)


class PlanSessions:
    """Read-only sessions, one for each plan of a query, opened on demand."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sessions: list[Session] = []

    def close(self) -> None:
        """End all sessions."""
        for session in self._sessions:
            session.close()
        self._sessions.clear()

    @property
    def first(self) -> Session:
        """The session that looks for plans."""
        return self._opened(1)[0]

    def _opened(self, count: int) -> list[Session]:
        while len(self._sessions) < count:
            session = self._database.session()
            self._sessions.append(session)
            session.execute("SET plan_cache_mode = force_generic_plan; SET default_transaction_read_only = on")
        return self._sessions[:count]

    @contextmanager
    def prepared(self, sql: str, steering: Sequence[Steer]) -> Iterator[_PreparedRun]:
        """Prepare a statement in one session for each plan, and give a function that runs them."""
        used = self._opened(len(steering))
        with ExitStack() as stack:
            for steer, session in zip(steering, used, strict=True):
                stack.enter_context(steer(session))
                session.execute(f"PREPARE {_PREPARED} AS {single(sql)}")
                stack.callback(session.execute, f"DEALLOCATE {_PREPARED}")
            yield _PreparedRun(used)


@dataclass(frozen=True, slots=True)
class _PreparedRun:
    """Runs prepared plans; see `timing.Run`."""

    sessions: Sequence[Session]

    def __call__(self, plan: int, limit_ms: float) -> float | None:
        session = self.sessions[plan]
        try:
            with session.statement_timeout(ceil(limit_ms)):
                return _execution_ms(session)
        except QueryTimeout:
            return None


def _execution_ms(session: Session) -> float:
    """Run the prepared plan; return the server's own time, or the client's where the server has no pilotscope library."""
    if has_extension(session):
        return session.timed_stream(f"EXECUTE {_PREPARED}", None).execution_ms
    started_ns = perf_counter_ns()
    session.stream(f"EXECUTE {_PREPARED}", None)
    return (perf_counter_ns() - started_ns) / 1e6
