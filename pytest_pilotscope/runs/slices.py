"""`--clients` and `--writes`: the sides of a run take turns in time slices, each with several sessions at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import SideFailed, UsageError
from pytest_pilotscope.measurement.clients import Clients, DecidedQuery, decided
from pytest_pilotscope.measurement.protocol import QueryMeasurement, turns
from pytest_pilotscope.measurement.sides import Side
from pytest_pilotscope.postgres.writing import script_scale, writing
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.record import Entry
from pytest_pilotscope.record.results import QueryRun

if TYPE_CHECKING:
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.queries.scripts import Writes
    from pytest_pilotscope.runs.single import BenchmarkRun

RESERVED = 5
"""Connections that stay free on a server of ours, and for others."""

Open = Callable[[], AbstractContextManager[Clients]]
"""Gives the clients of a side for one slice."""


def wanted_connections(sides: int, clients: int, *, write: bool = False) -> int:
    """Return how many connections to one server the clients of some sides need."""
    return RESERVED + (2 * clients + 3 * sides if write else sides * (clients + 1))


def allowed_connections(database: Database) -> int:
    """Return how many connections a server accepts."""
    with database.session() as session:
        return int(session.scalar("SELECT current_setting('max_connections')"))


def check_connections(databases: Sequence[Database], clients: int, *, write: bool = False) -> None:
    """
    Raise `UsageError` if a server does not accept the sessions of all clients of the sides that it has.

    If the clients `write`, one side at a time has sessions, two for each client, and each side keeps what copies are made from.
    """
    servers = {id(database.server): database for database in databases}
    sides = Counter(id(database.server) for database in databases)
    for server, database in servers.items():
        wanted, allowed = wanted_connections(sides[server], clients, write=write), allowed_connections(database)
        if wanted > allowed:
            raise UsageError(
                f"--clients {clients}: {sides[server]} sides need {wanted} connections, and the server has max_connections = {allowed}; "
                "ask for fewer clients or sides"
            )


def measure_slices(
    run: BenchmarkRun, measured: Mapping[str, QueryMeasurement], databases: Mapping[str, Database]
) -> Iterator[tuple[Query, list[str]]]:
    """Measure the slices of all sides, with the queries that all of them ran in the warm-up; yield the queries that fail."""
    clients = run.settings.clients_at_once or 1
    if not any(one.ran_on(run.sides) for one in measured.values()):
        return
    with ExitStack() as stack:
        ready = []
        for side in run.sides:
            try:
                ready.append(_side(run, side, measured, databases[side.name], stack))
            except SideFailed as error:  # of a comparison: the others go on
                run.ended(error)
        title = f"{run.header.algorithm} on {run.header.dataset}, {clients} clients"
        rounds = run.settings.fewest_rounds
        with run.progress(title, rounds * len(ready)) as advance:
            for repetition in range(1, rounds + 1):
                for order, open_side in enumerate(turns(ready, repetition)):
                    with open_side() as of_side:
                        runs, writes, its_slice = of_side.run(repetition, order)
                    lines: list[Entry] = [*runs, *writes, its_slice]
                    for line in lines:
                        run.writer.write(line)
                    advance(1)
                    yield from _failed(run, runs, of_side)


def _side(run: BenchmarkRun, side: Side, measured: Mapping[str, QueryMeasurement], database: Database, stack: ExitStack) -> Open:
    """
    Let a side decide on each query, which may take as many times longer as there are clients, and return what opens its slices.

    Clients that only read have the same sessions in all slices.
    """
    clients = run.settings.clients_at_once or 1
    factor = 1 if run.settings.query_timeout_ms is not None else clients
    queries = [decided(side, one.query, ceil(one.limit_ms * factor)) for one in measured.values() if one.ran_on(run.sides)]
    if run.workload.writes is not None:
        return partial(_in_copy, run, side.name, queries, database, clients, run.workload.writes)
    same = _clients(run, side.name, queries, database, clients, stack)
    return lambda: nullcontext(same)


def _clients(run: BenchmarkRun, side: str, queries: Sequence[DecidedQuery], database: Database, clients: int, stack: ExitStack) -> Clients:
    sessions = [stack.enter_context(database.measuring_session()) for _ in range(clients)]
    return Clients(side=side, sessions=sessions, queries=queries, clock=run.clock, seed=run.settings.seed)


@contextmanager
def _in_copy(
    run: BenchmarkRun, side: str, queries: Sequence[DecidedQuery], database: Database, clients: int, writes: Writes
) -> Iterator[Clients]:
    """Give the clients of a side in a new copy of its database, so that each slice begins with the same data; then drop the copy."""
    with database.copy() as copy, ExitStack() as stack:
        ready = _clients(run, side, queries, copy, clients, stack)
        limit_ms = run.settings.query_timeout_ms
        ready.writers = [stack.enter_context(writing(stack.enter_context(copy.session()), limit_ms)) for _ in range(clients)]
        ready.writes, ready.variables = writes, {"scale": script_scale(ready.writers[0])}
        ready.warm_up()
        yield ready


def _failed(run: BenchmarkRun, runs: Sequence[QueryRun], clients: Clients) -> Iterator[tuple[Query, list[str]]]:
    failed = {found.query_id: found for found in runs if found.error is not None}
    for one in clients.queries:
        if one.query.id in failed:
            yield one.query, run.failures_of(one.query, [failed[one.query.id]])
