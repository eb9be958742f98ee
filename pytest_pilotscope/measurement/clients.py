"""
Several sessions that run the workload at once, on one side after the other, and scripts that write among its queries.

A slice is the time in which one side has the machine: its clients begin together, and each runs every query once, in an order of its own.
The sides take turns slice by slice. In one round, each client has the same order on every side, and writes the same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from pytest_pilotscope.learning.decision import Decision
from pytest_pilotscope.measurement.executing import executed
from pytest_pilotscope.measurement.sides import Side, apply_decision
from pytest_pilotscope.postgres.clients import at_once
from pytest_pilotscope.postgres.writing import write
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.queries.scripts import ScriptRun, Writes
from pytest_pilotscope.record.results import WARM_UP, QueryRun, TimeSlice, WriteRun

if TYPE_CHECKING:
    from threading import Event

    from pytest_pilotscope.measurement.clocks import Clock
    from pytest_pilotscope.postgres.session import Session


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
    """
    The sessions of a side, one for each client, and the queries as the side has decided on them.

    With `writes`, each client has a session that writes, too, and `variables` are those of the scripts.
    """

    side: str
    sessions: Sequence[Session]
    queries: Sequence[DecidedQuery]
    clock: Clock
    seed: int
    writers: Sequence[Session] = ()
    writes: Writes | None = None
    variables: Mapping[str, int] = field(default_factory=dict)

    def run(self, repetition: int, order: int) -> tuple[list[QueryRun], list[WriteRun], TimeSlice]:
        """Let all clients do their work once; return the executions and the slice. An interrupt ends the statements of all clients."""
        work = [self._work(number, repetition) for number in range(1, len(self.sessions) + 1)]

        def client(index: int, stop: Event) -> tuple[list[QueryRun], list[WriteRun]]:
            runs: list[QueryRun] = []
            writes: list[WriteRun] = []
            for one in work[index]:
                if stop.is_set():
                    break
                if isinstance(one, ScriptRun):
                    writes.append(self._written(one, index, repetition))
                else:
                    runs.append(self._run(one, index, repetition, order))
            return runs, writes

        found, duration_s = at_once(len(self.sessions), client, [*self.sessions, *self.writers])
        runs, writes = [run for of, _ in found for run in of], [run for _, of in found for run in of]
        ended = sum(run.error is None and not run.timed_out for run in runs)
        its_slice = TimeSlice(
            side=self.side, repetition=repetition, order=order, duration_s=duration_s, executions=ended, writes=len(writes)
        )
        return runs, writes, its_slice

    def warm_up(self) -> None:
        """Run every query once, and every script in each session that writes, unrecorded: nothing of a new database is in the caches."""
        for one in self.queries:
            self._run(one, 0, WARM_UP, 0)
        for index in range(len(self.writers)):
            rng = Random(f"{self.seed} {WARM_UP} {index + 1}")  # noqa: S311  # no secret
            for run in self.writes.each(rng, self._variables(index)) if self.writes is not None else ():
                self._written(run, index, WARM_UP)

    def _work(self, number: int, repetition: int) -> list[DecidedQuery | ScriptRun]:
        """Return the queries and the scripts of a client in a round, in its own order; nothing is drawn while the clock runs."""
        rng = Random(f"{self.seed} {repetition} {number}")  # noqa: S311  # no secret
        work: list[DecidedQuery | ScriptRun] = [*self.queries]
        if self.writes is not None:
            work += self.writes.draw(self.writes.count(len(self.queries)), rng, self._variables(number - 1))
        return rng.sample(work, len(work))

    def _variables(self, index: int) -> dict[str, int]:
        return {**self.variables, "client_id": index}

    def _written(self, run: ScriptRun, index: int, repetition: int) -> WriteRun:
        latency_ms = write(self.writers[index], run)
        return WriteRun(side=self.side, script=run.script, repetition=repetition, client=index + 1, latency_ms=latency_ms)

    def _run(self, one: DecidedQuery, index: int, repetition: int, order: int) -> QueryRun:
        run = QueryRun(
            query_id=one.query.id,
            side=self.side,
            repetition=repetition,
            order=order,
            inference_ms=one.inference_ms,
            inference_processor_ms=one.inference_processor_ms,
            planning_ms=0.0,
            execution_ms=0.0,
            client=index + 1,
        )
        session = self.sessions[index]
        with ExitStack() as stack:
            if one.decision is not None:
                apply_decision(session, one.decision, stack)
            return executed(run, session, one.query.sql, self.clock, limit_ms=one.limit_ms)


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
