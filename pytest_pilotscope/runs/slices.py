"""`--clients`: the sides of a run take turns in time slices, each with several sessions at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from math import ceil
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import SideFailed, UsageError
from pytest_pilotscope.measurement.clients import Clients, decided
from pytest_pilotscope.measurement.protocol import QueryMeasurement, turns
from pytest_pilotscope.measurement.sides import Side
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import QueryRun

if TYPE_CHECKING:
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.runs.single import BenchmarkRun

RESERVED = 5
"""Connections that stay free on a server of ours, and for others."""


def wanted_connections(sides: int, clients: int) -> int:
    """Return how many connections to one server the clients of some sides need."""
    return sides * (clients + 1) + RESERVED


def allowed_connections(database: Database) -> int:
    """Return how many connections a server accepts."""
    with database.session() as session:
        return int(session.scalar("SELECT current_setting('max_connections')"))


def check_connections(databases: Sequence[Database], clients: int) -> None:
    """Raise `UsageError` if a server does not accept the sessions of all clients of the sides that it has."""
    servers = {id(database.server): database for database in databases}
    sides = Counter(id(database.server) for database in databases)
    for server, database in servers.items():
        wanted, allowed = wanted_connections(sides[server], clients), allowed_connections(database)
        if wanted > allowed:
            raise UsageError(
                f"--clients {clients}: {sides[server]} sides need {wanted} connections, and the server has max_connections = {allowed}; "
                "ask for fewer clients or sides"
            )


def measure_slices(
    run: BenchmarkRun, measured: Mapping[str, QueryMeasurement], databases: Mapping[str, Database]
) -> Iterator[tuple[Query, list[str]]]:
    """Measure the slices of all sides, with the queries that all of them ran in the warm-up; yield the queries that fail."""
    clients = run.settings.clients or 1
    if not any(one.ran_on(run.sides) for one in measured.values()):
        return
    with ExitStack() as stack:
        ready = []
        for side in run.sides:
            try:
                ready.append(_clients(run, side, measured, databases[side.name], clients, stack))
            except SideFailed as error:  # of a comparison: the others go on
                run.ended(error)
        title = f"{run.header.algorithm} on {run.header.dataset}, {clients} clients"
        rounds = run.settings.fewest_rounds
        with run.progress(title, rounds * len(ready)) as advance:
            for repetition in range(1, rounds + 1):
                for order, of_side in enumerate(turns(ready, repetition)):
                    runs, its_slice = of_side.run(repetition, order)
                    for line in runs:
                        run.writer.write(line)
                    run.writer.write(its_slice)
                    advance(1)
                    yield from _failed(run, runs, of_side)


def _clients(
    run: BenchmarkRun, side: Side, measured: Mapping[str, QueryMeasurement], database: Database, clients: int, stack: ExitStack
) -> Clients:
    """Open the sessions of a side, and let it decide on each query, which may take as many times longer as there are clients."""
    factor = 1 if run.settings.query_timeout_ms is not None else clients
    queries = [decided(side, one.query, ceil(one.limit_ms * factor)) for one in measured.values() if one.ran_on(run.sides)]
    sessions = [stack.enter_context(database.measuring_session()) for _ in range(clients)]
    return Clients(side=side.name, sessions=sessions, queries=queries, clock=run.clock, seed=run.settings.seed)


def _failed(run: BenchmarkRun, runs: Sequence[QueryRun], clients: Clients) -> Iterator[tuple[Query, list[str]]]:
    failed = {found.query_id: found for found in runs if found.error is not None}
    for one in clients.queries:
        if one.query.id in failed:
            yield one.query, run.failures_of(one.query, [failed[one.query.id]])
