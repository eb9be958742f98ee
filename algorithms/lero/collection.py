"""
Collection of Lero's training data: the candidates of every training query, timed on the database.

Each candidate has a session of its own, in which it is prepared under its cardinalities. So PostgreSQL plans it once however often it runs,
and all candidates of a query can take turns.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.lero.candidates import Candidates, all_slots, explore, look
from pytest_pilotscope.algorithms.lero.collected import FORMAT, CollectedQuery, CollectionStore, collected, sql_key
from pytest_pilotscope.algorithms.lero.signature import signature_of
from pytest_pilotscope.algorithms.lero.timing import TimingRules, time_plans
from pytest_pilotscope.errors import QueryTimeout, StatementFailed, counted
from pytest_pilotscope.places.folders import cache_subfolder
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.queries.statements import single

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.provision.pool import Worker, WorkerPool

logger = logging.getLogger(__name__)

_PREPARED = "pilotscope_candidate"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionRules:
    """The rules of looking for plans and of timing them; they are part of a collection's key."""

    factors: tuple[float, ...]
    max_candidates: int
    timing: TimingRules


def rules_of(training: Training) -> CollectionRules:
    """Return the rules that the user's settings give."""
    limit_ms, options = training.settings.query_timeout_ms, training.options
    timing = TimingRules() if limit_ms is None else replace(TimingRules(), last_limit_ms=limit_ms)
    return CollectionRules(factors=options["factors"], max_candidates=options["max_candidates"], timing=timing)


def store_of(training: Training, rules: CollectionRules) -> CollectionStore:
    """Open and read the store of this data, these statistics, this server and these rules, in the user's cache folder."""
    found = training.database.fingerprint
    state = (FORMAT, found.statistics, found.settings, found.indexes, found.build, asdict(rules))
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:12]
    store = CollectionStore(_folder(found.data) / f"{key}.jsonl")
    store.read()
    return store


def _folder(data_fingerprint: str) -> Path:
    return cache_subfolder("lero") / data_fingerprint.replace("~", "estimated-")


def collect(training: Training, queries: Sequence[Query], store: CollectionStore, rules: CollectionRules) -> list[CollectedQuery]:
    """
    Return these queries with their timed candidates, in order: from the store, or run now, with progress.

    With `--no-collection` no query runs. A query that PostgreSQL refuses is left out, with a warning.
    """
    if training.settings.collection and any(sql_key(query.sql) not in store.known for query in queries):
        with store.locked():
            missing = {sql_key(query.sql): query for query in queries if sql_key(query.sql) not in store.known}
            _collect_missing(training, list(missing.values()), store, rules)
    return known(queries, store)


def known(queries: Sequence[Query], store: CollectionStore) -> list[CollectedQuery]:
    """Return the queries among these that the store has, in order."""
    return [store.known[key] for query in queries if (key := sql_key(query.sql)) in store.known]


def _collect_missing(training: Training, queries: Sequence[Query], store: CollectionStore, rules: CollectionRules) -> None:
    what = f"lero plans of {counted(len(queries), 'query', 'queries')}"
    with training.pool() as pool, training.progress(what, len(queries)) as advance:
        found = _collected_here(training.database, queries, rules) if pool is None else _collected_by(pool, queries, rules)
        for query, result in found:
            if isinstance(result, CollectedQuery):
                store.add(result)
            else:
                logger.warning("lero does not learn from query %s: %s", query.id, result)
            advance(1)


def _collected_here(database: Database, queries: Sequence[Query], rules: CollectionRules) -> Iterator[tuple[Query, CollectedQuery | str]]:
    with closing(CandidateSessions(database)) as sessions:
        for query in queries:
            yield query, _collected_or_refused(query, sessions, rules)


def _collected_by(pool: WorkerPool, queries: Sequence[Query], rules: CollectionRules) -> Iterator[tuple[Query, CollectedQuery | str]]:
    by_key = {str(number): query for number, query in enumerate(queries)}
    for key, query in by_key.items():
        pool.submit(key, _collect_there, (query, rules))
    for _ in queries:
        key, result = pool.next()
        yield by_key[key], result


def _collect_there(place: Worker, task: tuple[Query, CollectionRules]) -> CollectedQuery | str:
    query, rules = task
    with closing(CandidateSessions(place.database)) as sessions:
        return _collected_or_refused(query, sessions, rules)


def _collected_or_refused(query: Query, sessions: CandidateSessions, rules: CollectionRules) -> CollectedQuery | str:
    """Return the collected query, or PostgreSQL's error."""
    try:
        return collect_one(query, sessions, rules)
    except StatementFailed as error:
        return str(error)


def collect_one(query: Query, sessions: CandidateSessions, rules: CollectionRules) -> CollectedQuery:
    """
    Find the candidates of a query and time them: the task of a worker.

    It depends only on its arguments and changes nothing, so any worker with the same data can do or repeat it. Raises `StatementFailed` for
    a query that PostgreSQL refuses.
    """
    session = sessions.first
    found = look(session, query.sql)
    candidates = explore(session, query.sql, found, all_slots(found.subplans, rules.factors), max_candidates=rules.max_candidates)
    with sessions.prepared(query.sql, candidates) as run:
        outcomes = time_plans(len(candidates.plans), run, rules.timing)
    return collected(query, signature_of(query.sql), candidates, outcomes)


class CandidateSessions:
    """Read-only sessions, one for each candidate of a query, opened on demand."""

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
        """The session that looks for candidates."""
        return self._opened(1)[0]

    def _opened(self, count: int) -> list[Session]:
        while len(self._sessions) < count:
            session = self._database.session()
            self._sessions.append(session)
            session.execute("SET plan_cache_mode = force_generic_plan; SET default_transaction_read_only = on")
        return self._sessions[:count]

    @contextmanager
    def prepared(self, sql: str, candidates: Candidates) -> Iterator[_PreparedRun]:
        """Prepare every candidate in its session, and give a function that runs them."""
        used = self._opened(len(candidates.plans))
        with ExitStack() as stack:
            for plan, session in enumerate(used):
                stack.enter_context(session.cardinalities(candidates.cardinalities(plan)))
                session.execute(f"PREPARE {_PREPARED} AS {single(sql)}")
                stack.callback(session.execute, f"DEALLOCATE {_PREPARED}")
            yield _PreparedRun(used)


@dataclass(frozen=True, slots=True)
class _PreparedRun:
    """Runs prepared candidates; see `timing.Run`."""

    sessions: Sequence[Session]

    def __call__(self, plan: int, limit_ms: float) -> float | None:
        session = self.sessions[plan]
        try:
            with session.statement_timeout(ceil(limit_ms)):
                return session.timed_stream(f"EXECUTE {_PREPARED}", None).execution_ms
        except QueryTimeout:
            return None
