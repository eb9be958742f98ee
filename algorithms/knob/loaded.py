"""Trials under load: several clients run the queries at once (`--clients`), with scripts that write among them (`--writes`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import inf, log
from random import Random
from threading import Event, Lock
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.knob import measuring
from pytest_pilotscope.algorithms.knob.measuring import LEAST_LIMIT_S, SLOWER, Pass, Selected
from pytest_pilotscope.algorithms.knob.objective import Objective
from pytest_pilotscope.postgres.clients import at_once
from pytest_pilotscope.postgres.knobs import set_session_knobs
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.writing import script_scale, write, writing
from pytest_pilotscope.queries.scripts import ScriptRun, Writes
from pytest_pilotscope.record.results import Scalar
from pytest_pilotscope.statistics.intervals import Interval
from pytest_pilotscope.statistics.load import interval_of_logs

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.provision.database import Database

ROUNDS = 5
"""Slices in which the best settings are measured against the default: Student's t needs more of them than there are rounds of queries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`clients` at once, each of which runs every query once and the scripts of `writes` among them, in an order that `seed` decides."""

    clients: int
    writes: Writes | None
    write_limit_ms: float | None
    seed: int

    def objective(self, objective: Objective, queries: int) -> Objective:
        """Return the objective for all executions of all clients."""
        writes = 0 if self.writes is None else self.writes.count(queries)
        return replace(objective, count=self.clients * (queries + writes), clients=self.clients)

    @property
    def parameters(self) -> dict[str, Scalar]:
        """The load as the record has it."""
        return {"knob_clients": self.clients, "knob_writes": None if self.writes is None else self.writes.fingerprint}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSessions:
    """A session that reads and one that writes for each client; the latter only if there are scripts."""

    readers: Sequence[Session]
    writers: Sequence[Session]


Open = Callable[[], AbstractContextManager[LoadSessions]]
"""Gives the sessions of one slice."""


def load_of(training: Training) -> Load | None:
    """Return the load that the user chose with `--clients` and `--writes`; None without either."""
    settings = training.settings
    if settings.clients_at_once is None:
        return None
    return Load(clients=settings.clients_at_once, writes=training.writes, write_limit_ms=settings.query_timeout_ms, seed=settings.seed)


@contextmanager
def load_sessions(database: Database, load: Load, knobs: Mapping[str, str]) -> Iterator[LoadSessions]:
    """Open the sessions of all clients, with these settings: if they write, in a new copy of the database, which is dropped at the end."""
    with ExitStack() as stack:
        if load.writes is not None:
            database = stack.enter_context(database.copy())
        readers = [stack.enter_context(database.measuring_session()) for _ in range(load.clients)]
        writers = [stack.enter_context(database.session()) for _ in range(load.clients if load.writes is not None else 0)]
        for session in (*readers, *writers):
            set_session_knobs(session, knobs)
        yield LoadSessions(readers=readers, writers=[stack.enter_context(writing(session, load.write_limit_ms)) for session in writers])


def run_clients(sessions: LoadSessions, selected: Selected, objective: Objective, load: Load, limit: float, *, repetition: int = 0) -> Pass:
    """
    Let all clients do their work until the cost is sure to be above `limit`.

    Before, one of them runs every query once, and each runs every script, to fill the caches.

    The pass has the times of queries and scripts alike, in the order in which they ended.
    """
    warm_up = measuring.run_pass(sessions.readers[0], selected, replace(objective, target="total_time", clients=1), inf)
    if warm_up.capped:
        return warm_up
    for number, session in enumerate(sessions.writers):
        rng = Random(f"{load.seed} warm-up {number}")  # noqa: S311  # no secret
        for run in load.writes.each(rng, _variables(sessions, number)) if load.writes is not None else ():
            write(session, run)
    work = [_work(load, selected, sessions, repetition, number) for number in range(load.clients)]
    times, lock, capped = list[float](), Lock(), Event()

    def client(number: int, stop: Event) -> None:
        for one in work[number]:
            if stop.is_set() or capped.is_set():
                return
            if isinstance(one, ScriptRun):
                time_s, limit_s = write(sessions.writers[number], one) / 1000, inf
            else:
                sql, limit_s = one
                time_s = measuring.time_s(sessions.readers[number], sql, limit_s)
            with lock:
                times.append(time_s)
                if objective.exceeds(times, limit) or time_s >= limit_s:
                    capped.set()

    at_once(load.clients, client, [*sessions.readers, *sessions.writers])
    return Pass(times_s=tuple(times), capped=capped.is_set())


def _work(load: Load, selected: Selected, sessions: LoadSessions, repetition: int, number: int) -> list[tuple[str, float] | ScriptRun]:
    """Return the queries, each with its time limit, and the scripts of a client, in its order: the same for all settings."""
    rng = Random(f"{load.seed} {repetition} {number}")  # noqa: S311  # no secret
    work: list[tuple[str, float] | ScriptRun] = [
        (query.sql, load.clients * max(SLOWER * default_s, LEAST_LIMIT_S))
        for query, default_s in zip(selected.queries, selected.default_s, strict=True)
    ]
    if load.writes is not None:
        work += load.writes.draw(load.writes.count(len(selected.queries)), rng, _variables(sessions, number))
    return rng.sample(work, len(work))


def _variables(sessions: LoadSessions, number: int) -> dict[str, int]:
    return {"scale": script_scale(sessions.writers[0]), "client_id": number}


def compare_loaded(default: Open, candidate: Open, selected: Selected, objective: Objective, load: Load) -> Interval:
    """Return the cost's ratio, candidate / default, with its 95 % interval, from slices in which the two take turns."""
    logs = []
    for repetition in range(1, ROUNDS + 1):
        costs = {}
        for side in (default, candidate) if repetition % 2 else (candidate, default):
            with side() as sessions:
                costs[side] = objective.partial(run_clients(sessions, selected, objective, load, inf, repetition=repetition).times_s)
        logs.append(log(costs[candidate] / costs[default]))
    return interval_of_logs(logs)
