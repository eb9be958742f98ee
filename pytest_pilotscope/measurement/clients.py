"""
Several sessions that run the workload at once, on one side after the other.

A slice is the time in which one side has the machine: its clients begin together, and each runs every query once, in an order of its own.
The sides take turns slice by slice. In one round, each client has the same order on every side.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from random import Random
from threading import Barrier, Event
from time import perf_counter_ns
from typing import TYPE_CHECKING

from pytest_pilotscope.learning.decision import Decision
from pytest_pilotscope.measurement.executing import executed
from pytest_pilotscope.measurement.sides import Side, apply_decision
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import QueryRun, TimeSlice

if TYPE_CHECKING:
    from pytest_pilotscope.measurement.clocks import Clock
    from pytest_pilotscope.postgres.session import Session

_ASK_AGAIN_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedQuery:
    """A query with the decision of a side, which was taken once in `inference_ms`, and its time limit."""

    query: Query
    inference_ms: float
    inference_processor_ms: float
    decision: Decision | None
    limit_ms: int


@dataclass(slots=True, kw_only=True)
class Clients:
    """The sessions of a side, one for each client, and the queries as the side has decided on them."""

    side: str
    sessions: Sequence[Session]
    queries: Sequence[DecidedQuery]
    clock: Clock
    seed: int

    def run(self, repetition: int, order: int) -> tuple[list[QueryRun], TimeSlice]:
        """Let all clients run every query once; return the executions and the slice. An interrupt ends the statements of all clients."""
        began_ns: list[int] = []
        start = Barrier(len(self.sessions), action=lambda: began_ns.append(perf_counter_ns()))
        stop = Event()
        with ThreadPoolExecutor(len(self.sessions)) as pool:
            clients = [pool.submit(self._client, number, repetition, order, start, stop) for number in range(1, len(self.sessions) + 1)]
            try:
                wait(clients)
            except BaseException:
                stop.set()
                while wait(clients, timeout=_ASK_AGAIN_S).not_done:  # a client may be between two statements
                    for session in self.sessions:
                        session.cancel()
                raise
        found = [client.result() for client in clients]
        runs = [run for of_client, _ in found for run in of_client]
        duration_s = (max(ended_ns for _, ended_ns in found) - began_ns[0]) / 1e9
        ended = sum(run.error is None and not run.timed_out for run in runs)
        return runs, TimeSlice(side=self.side, repetition=repetition, order=order, duration_s=duration_s, executions=ended)

    def _client(self, number: int, repetition: int, order: int, start: Barrier, stop: Event) -> tuple[list[QueryRun], int]:
        session, runs = self.sessions[number - 1], []
        own_order = Random(f"{self.seed} {repetition} {number}").sample(self.queries, len(self.queries))  # noqa: S311  # no secret
        start.wait()
        for one in own_order:
            if stop.is_set():
                break
            run = QueryRun(
                query_id=one.query.id,
                side=self.side,
                repetition=repetition,
                order=order,
                inference_ms=one.inference_ms,
                inference_processor_ms=one.inference_processor_ms,
                planning_ms=0.0,
                execution_ms=0.0,
                client=number,
            )
            with ExitStack() as stack:
                if one.decision is not None:
                    apply_decision(session, one.decision, stack)
                runs.append(executed(run, session, one.query.sql, self.clock, limit_ms=one.limit_ms))
        return runs, perf_counter_ns()


def decided(side: Side, query: Query, limit_ms: int) -> DecidedQuery:
    """Let a side decide on a query once."""
    with side.steered(query) as steering:
        decision = steering.decision if steering.estimates is None else Decision(rows=steering.estimates)
        return DecidedQuery(
            query=query,
            inference_ms=steering.inference_ms,
            inference_processor_ms=steering.inference_processor_ms,
            decision=decision,
            limit_ms=limit_ms,
        )
