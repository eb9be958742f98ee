"""
A run of a stream: queries in their order, with repeats, and writes between them.

Each query runs on all sides before the next one, so that all of them meet the same data. Then the algorithms that learn on the way observe
their executions. Writes change copies of databases, which are dropped at the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import QueryTimeout, SideFailed, StatementFailed, UsageError, raise_interrupt_behind, reason_of
from pytest_pilotscope.learning.algorithm import Algorithm, Observing, PartialCardinalities
from pytest_pilotscope.measurement.protocol import Line
from pytest_pilotscope.measurement.sides import DeciderSide, EstimatorSide, ObservingSide, Side
from pytest_pilotscope.measurement.supervision import Supervision
from pytest_pilotscope.postgres.fingerprint import LENGTH
from pytest_pilotscope.postgres.process import temporary_folder
from pytest_pilotscope.postgres.writing import writing
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import BASELINE, QueryRun, RunHeader, StreamStep
from pytest_pilotscope.runs.comparison import ComparisonRun
from pytest_pilotscope.runs.single import BenchmarkRun

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.options.settings import Settings
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.queries.queries import Workload
    from pytest_pilotscope.queries.streams import Step
    from pytest_pilotscope.registry import Registry

WRITTEN = "the writes of the stream change the true row counts"


def check_stream(settings: Settings, registry: Registry) -> None:
    """Raise `UsageError` for options that cannot be measured with `--stream`."""
    unfit = {
        "--drift": settings.drift is not None,
        "--calibrate": settings.calibrate,
        "--gate": settings.gate not in (None, "none"),
        "--no-measure": not settings.measure,
        "--clients": settings.clients is not None,
        "--writes": bool(settings.writes),
        "--rounds auto": settings.rounds == "auto",
        "--variant": bool(settings.variants),
    }
    for name in settings.algorithms:
        for part in registry.parts(name):
            if registry.options(part.name, settings.options).get("dynamic"):
                unfit[f"--{part.name}-dynamic"] = True
    if found := [name for name, on in unfit.items() if on]:
        raise UsageError(f"--stream {settings.stream}: its queries run in one order, and only what they teach counts; leave {found[0]} out")


@contextmanager
def writable(database: Database, steps: Sequence[Step]) -> Iterator[Database]:
    """Give a database that a stream may write to: a copy, dropped at the end of the block, unless the stream writes nothing."""
    if not any(step.write for step in steps):
        yield database
        return
    from pytest_pilotscope.postgres.drift.data import keep_autovacuum_away

    with database.copyable() as whole, whole.copy() as copy:
        with copy.session() as session:
            keep_autovacuum_away(session)
        yield copy


def streamed_header(header: RunHeader, description: str) -> RunHeader:
    """Return the header of a run with the numbers of its stream."""
    return replace(header, tags={**header.tags, "stream": description})


@dataclass(slots=True, kw_only=True)
class StreamRun(ComparisonRun):
    """A run of a stream; `steps` are its queries by their ids."""

    steps: Mapping[str, Step]
    _observing: dict[str, ObservingSide] = field(default_factory=dict)
    _supervisions: list[Supervision] = field(default_factory=list)
    _regret_ms: dict[str, float] = field(default_factory=dict)
    _runs: tuple[QueryRun, ...] = ()
    _writes: int = 0
    _trainings: list[Training] = field(default_factory=list)
    _stack: ExitStack = field(default_factory=ExitStack)

    def supervised(self, session: Session, database: Database) -> Supervision:
        """Return the limits and checks for an algorithm in a session; what they keep follows the writes of the stream."""
        self._supervisions.append(made := BenchmarkRun.supervised(self, session, database))
        return made

    def train(self, algorithms: Mapping[str, Any], stack: ExitStack) -> Sequence[SideFailed]:
        """Train and set up one algorithm after the other; return the failures, which leave their algorithms out."""
        self._stack = stack
        return ComparisonRun.train(self, algorithms, stack)

    def training(self, side: str, algorithm: str, database: Database, session: Session, workload: Workload | None = None) -> Training:
        """Return the data that an algorithm of a side learns from; they follow the writes of the stream."""
        self._trainings.append(made := BenchmarkRun.training(self, side, algorithm, database, session, workload))
        return made

    def trained_side(self, name: str, made: Sequence[Algorithm], stack: ExitStack) -> Side:
        """Train algorithms that are one side; one that learns on the way observes its executions."""
        side = BenchmarkRun.trained_side(self, name, made, stack)
        if isinstance(made[-1], Observing) and isinstance(side, EstimatorSide | DeciderSide):
            side = self._observing[name] = ObservingSide(side=side, algorithm=made[-1])
        return side

    def _true_cardinalities(self, *, count: bool) -> dict[str, PartialCardinalities]:
        if any(step.write for step in self.steps.values()):
            return {query_id: PartialCardinalities({}, {frozenset(): WRITTEN}) for query_id in self.steps}
        return BenchmarkRun._true_cardinalities(self, count=count)

    def measure(self, query: Query) -> list[str]:
        """Write what comes before a query, measure it on all sides, and let them learn; return one sentence for every problem."""
        step = self.steps[query.id]
        writes = self._writes
        if step.write is not None:
            self._write(step.write)
        self._runs = ()
        problems = ComparisonRun.measure(self, query)
        for side in self.sides[1:]:
            try:
                learning_ms = self._observe(side, query)
            except Exception as error:
                raise_interrupt_behind(error)
                self.sides = tuple(other for other in self.sides if other is not side)
                text = f"query {query.id!r} on side {side.name!r}, learning from its execution: {reason_of(error)}"
                problems.append(self.failed(side.name, query, text))
                continue
            self._regret_ms[side.name] = self._regret_ms.get(side.name, 0.0) + self._lost_ms(side.name)
            self.writer.write(
                StreamStep(
                    query_id=query.id,
                    side=side.name,
                    original=step.original,
                    repeat=step.repeat,
                    regret_ms=self._regret_ms[side.name],
                    learning_ms=learning_ms,
                    writes=writes,
                    write=step.write,
                )
            )
        return problems

    def measured(self, query: Query, sides: Sequence[Side], write: Callable[[Line], None]) -> tuple[QueryRun, ...]:
        """Measure one query on these sides, and keep its runs."""
        self._runs = BenchmarkRun.measured(self, query, sides, write)
        return self._runs

    def _of(self, side: str) -> list[QueryRun]:
        """Return the measured runs of the present query on a side; none if one of them failed."""
        runs = [run for run in self._runs if run.side == side]
        return [] if any(run.error is not None for run in runs) else [run for run in runs if not run.warm_up]

    def _lost_ms(self, side: str) -> float:
        ours, theirs = self._of(side), self._of(BASELINE)
        if not ours or not theirs:
            return 0.0
        return median(run.end_to_end_ms for run in ours) - median(run.end_to_end_ms for run in theirs)

    def _observe(self, side: Side, query: Query) -> float:
        observing, runs = self._observing.get(side.name), self._of(side.name)
        return observing.observe(query, median(run.execution_ms for run in runs)) if observing and runs else 0.0

    def _write(self, statement: str) -> None:
        """Run a statement in the database of every side, once in each, with a time limit."""
        for database in {(id(each.server), each.name): each for each in self._databases.values()}.values():
            with database.session() as session, writing(session, self.settings.query_timeout_ms):
                try:
                    session.execute(statement)
                except StatementFailed as error:
                    raise UsageError(f"--stream {self.settings.stream}: a write failed: {error.reason}; mend it: {statement}") from error
                except QueryTimeout as error:
                    text = f"--stream {self.settings.stream}: a write failed: {error}; give it more time with --query-timeout-ms"
                    raise UsageError(text) from error
        self._writes += 1
        for supervision in self._supervisions:
            supervision.renew_data()
        labels_cache = self._stack.enter_context(temporary_folder())
        for training in self._trainings:  # what is counted from now on is true of other data than before
            training.labels_cache = labels_cache
            data = hashlib.sha256(f"{training.data_fingerprint} {self.header.run_name} {self._writes}".encode()).hexdigest()[:LENGTH]
            training.database = replace(training.database, fingerprint=replace(training.database.fingerprint, data=data))
