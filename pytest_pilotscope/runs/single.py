"""
A run of one algorithm on a dataset: its training, and the measurement of query after query.

`opening.benchmark_run` opens it, for the plugin and for the Python API. Nothing here knows pytest.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import AlgorithmError, DifferentAnswer, ServerError, SideFailed, StatementFailed, errors_of
from pytest_pilotscope.learning.algorithm import Algorithm, Cardinalities, CardinalityEstimator, DatabasePreparer, PartialCardinalities
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.measurement.clocks import Clock, clock_of
from pytest_pilotscope.measurement.preparation import preparation_of
from pytest_pilotscope.measurement.protocol import Line, QueryMeasurement
from pytest_pilotscope.measurement.sides import PlainSide, Side, side_of
from pytest_pilotscope.measurement.supervision import Supervision
from pytest_pilotscope.options.progress import ShowProgress
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.coldness import drop_caches
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.record.names import file_name
from pytest_pilotscope.record.results import BASELINE, BASELINE_AGAIN, QueryRun, RunHeader, TrainingReport
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.runs.learn import copyable, learn
from pytest_pilotscope.runs.records import Records
from pytest_pilotscope.runs.slices import check_connections, measure_slices
from pytest_pilotscope.runs.wanted_model import wanted_model

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class BenchmarkRun:
    """One algorithm that is measured against the baseline. `train` makes the sides, `measure_all` measures them."""

    header: RunHeader
    database: Database
    workload: Workload
    queries: tuple[Query, ...]
    settings: Settings
    registry: Registry
    writer: Records
    progress: ShowProgress
    session: Session
    failures: dict[str, str]
    sides: tuple[Side, ...] = ()
    truths: Mapping[str, Cardinalities] = field(default_factory=dict)
    clock: Clock = field(init=False)
    _databases: dict[str, Database] = field(default_factory=dict)
    _measurements: dict[str, QueryMeasurement] = field(default_factory=dict)
    _further_rounds: int = 0
    _deciding: list[str] = field(default_factory=list)
    _supervision: Supervision = field(init=False)

    def __post_init__(self) -> None:
        self._supervision = self.supervised(self.session, self.database)

    def train(self, algorithms: Mapping[str, Any], stack: ExitStack) -> Sequence[SideFailed]:
        """Train the algorithm and set up its side until `stack` closes. Raise what the algorithm raises."""
        ((name, made),) = algorithms.items()
        partners = self.settings.algorithms if name == BASELINE else ()  # a baseline measured with an estimator has an accuracy, too
        count = any(hasattr(part.resolve(), "steer") for partner in partners for part in self.registry.parts(partner))
        sides = [self.trained_side(name, made, stack)]
        self.begin(sides, count_truths=count or isinstance(made[-1], CardinalityEstimator))
        return ()

    def trained_side(self, name: str, made: Sequence[Algorithm], stack: ExitStack) -> Side:
        """
        Train algorithms that are one side, or load their models, record the reports, and return the side.

        Each is trained on the database that those before it have prepared.
        """
        database, session, supervision = self.database, self.session, self._supervision
        for part, algorithm in zip(self.registry.parts(name), made, strict=True):
            if database is not self.database:
                database = stack.enter_context(copyable(self._idle(database), [algorithm], always=bool(self.settings.writes)))
                session = stack.enter_context(database.measuring_session())
                supervision = self.supervised(session, database)
            report = self.learned(name, algorithm, self.training(name, part.name, database, session), supervision)
            self.writer.write(report if len(made) == 1 else replace(report, side=name, algorithm=part.name))
            if isinstance(algorithm, DatabasePreparer):
                with errors_of(part.name, "in prepare"):
                    prepared = stack.enter_context(algorithm.prepare(database))
                self._supervision.renew()
                if part.name not in self.header.other_servers:
                    with prepared.measuring_session() as its_session:
                        self.writer.write(preparation_of(name, session, its_session, own=prepared, database=database))
                database = prepared
        if self.settings.writes and isinstance(made[-1], DatabasePreparer):  # each slice begins with a copy of it
            database = stack.enter_context(self._idle(database).copyable())
        self._databases[BASELINE_AGAIN if name == BASELINE else name] = database
        if name == BASELINE:  # paired with a second baseline
            return PlainSide(name=BASELINE_AGAIN, session=session)
        if isinstance(made[-1], DatabasePreparer):
            return PlainSide(name=name, session=stack.enter_context(database.measuring_session()))
        side = side_of(name, made[-1], session, supervision)
        self._deciding += [] if isinstance(side, PlainSide) else [name]
        return side

    def learned(self, side: str, algorithm: Algorithm, training: Training, supervision: Supervision) -> TrainingReport:
        """Train an algorithm of a side, or load its model; put back what it left changed in the session if it raises."""
        given = self.writer.header_of(side).parameters
        with supervision.put_back_on_error():
            report = learn(algorithm, training, given=given, model=wanted_model(algorithm, training))
        supervision.check(training.algorithm, "its training", training=True)
        return report

    def _idle(self, prepared: Database) -> Database:
        """Return a prepared database as one that copies are made from, unless it is the original one with other settings."""
        same = (prepared.server, prepared.name) == (self.database.server, self.database.name)
        return prepared if same else replace(prepared, copy_source=None)

    def supervised(self, session: Session, database: Database) -> Supervision:
        """Return the limits and checks for an algorithm in a session."""
        return Supervision(
            timeout_ms=self.settings.steer_timeout_ms,
            training_timeout_s=self.settings.training_timeout_s,
            session=session,
            fingerprint=database.fingerprint,
            exclusive=database.server.provider != "given",
        )

    def training(self, side: str, algorithm: str, database: Database, session: Session, workload: Workload | None = None) -> Training:
        """Return the data that an algorithm of a side learns from. Each has a folder of its own unless it is the only one of the run."""
        header = self.writer.header_of(side)
        folder = self.settings.results / header.run_name
        return Training.of(
            workload or self.workload,
            algorithm=algorithm,
            database=database,
            session=session,
            settings=self.settings,
            options=self.registry.options(algorithm, self.settings.options),
            folder=folder.joinpath(*(file_name(name) for name in dict.fromkeys((side, algorithm)) if name != header.algorithm)),
            progress=self.progress,
        )

    def begin(self, opponents: Sequence[Side], *, count_truths: bool) -> None:
        """Pair the baseline with these sides. Without `count_truths`, use only the true cardinalities that are in the cache."""
        self.sides = (PlainSide(name=BASELINE, session=self.session), *opponents)
        self._databases[BASELINE] = self.database
        if (clients := self.settings.clients_at_once) is not None:
            databases = [self._databases[side.name] for side in self.sides]
            check_connections(databases, clients, write=bool(self.settings.writes))
        self.clock = clock_of(*(side.session for side in self.sides))
        self.truths = self._true_cardinalities(count=count_truths)

    def _true_cardinalities(self, *, count: bool) -> dict[str, PartialCardinalities]:
        """
        Return the true cardinalities of the test queries for q-error and p-error, after training, so that no algorithm sees them.

        Empty on servers that report no estimates. A query without any has its reason under the empty set.
        """
        if not has_extension(self.session):
            return {}
        training = self.training(BASELINE, self.header.algorithm, self.database, self.session)
        try:
            labels = training.labels(self.queries, known_only=not count)
        finally:
            training.close()
        truths = {query_id: PartialCardinalities(labels.rows(query_id), labels.unknown(query_id)) for query_id in labels}
        return truths | {query_id: PartialCardinalities({}, {frozenset(): why}) for query_id, why in labels.unsupported.items()}

    def measure_all(self) -> Iterator[tuple[Query, list[str]]]:
        """
        Measure query after query; yield each with one sentence for every problem. Rounds that `auto` adds yield problems only.

        Raise `ServerError`, which says what happened, when the server is gone: the other queries would fail as well. Raise `AlgorithmError`
        at the end if anything was changed meanwhile.
        """
        yield from self._measure_rounds()
        if self._deciding:
            self._supervision.check(" or ".join(self._deciding), "all queries", measured=True)

    def _measure_rounds(self) -> Iterator[tuple[Query, list[str]]]:
        began_s = monotonic()
        title = f"{self.header.algorithm} on {self.header.dataset}"
        yield from self._measure_each(self.queries, title)
        if self.settings.clients_at_once is not None:
            yield from measure_slices(self, self._measurements, self._databases)
        if self.settings.rounds != "auto":
            return
        from pytest_pilotscope.runs.rounds import further_rounds

        queries = [query for query in self.queries if query.id in self._measurements]
        for rounds in further_rounds(self.settings, self.writer.paths, began_s):
            self._further_rounds = rounds
            for query, problems in self._measure_each(queries, f"{title}, {rounds} more rounds"):
                if problems:
                    yield query, problems

    def _measure_each(self, queries: Sequence[Query], title: str) -> Iterator[tuple[Query, list[str]]]:
        with self.progress(title, len(queries)) as advance:
            for query in queries:
                try:
                    problems = self.measure(query)
                except StatementFailed:
                    self._check_sessions(query)
                    raise
                advance(1)
                yield query, problems
                self._check_sessions(query)

    def measure(self, query: Query) -> list[str]:
        """
        Measure one query on all sides; return one sentence for every problem.

        A statement that fails on a side fails that side's run but not the other queries. So does a different answer.
        """
        try:
            return self.failures_of(query, self.measured(query, self.sides, self.writer.write))
        except DifferentAnswer as error:
            return [self.failed(error.side, query, str(error))]

    def measured(self, query: Query, sides: Sequence[Side], write: Callable[[Line], None]) -> tuple[QueryRun, ...]:
        """Measure one query on these sides, or measure further rounds of it; hand every line of the record to `write`."""
        if self._further_rounds:
            return self._measurements[query.id].more(self._further_rounds, sides, write)
        measurement = QueryMeasurement(
            query=query,
            sides=sides,
            timeout_ms=self.settings.query_timeout_ms,
            write=write,
            clock=self.clock,
            truth=self.truths.get(query.id),
            chill=drop_caches if self.settings.cold else None,
        )
        in_slices = self.settings.clients_at_once is not None
        runs = measurement.run(0 if in_slices else self.settings.fewest_rounds)
        if self.settings.rounds == "auto" or in_slices:
            self._measurements[query.id] = measurement
        return runs

    def _check_sessions(self, query: Query) -> None:
        """Raise `ServerError` if a side has lost its session, and `AlgorithmError` if it was closed here."""
        if any(side.session.closed for side in self.sides):
            for database in (self.database, *self.database.variants.values()):
                database.server.connect().close()  # raises the reason if the server is gone
            if any(side.session.closed_here for side in self.sides):
                raise AlgorithmError(
                    f"the session of the sides was closed while query {query.id!r} was measured, and the other queries are not "
                    "measured: an algorithm must not close the session that it is given"
                )
            raise ServerError(
                f"PostgreSQL closed a session while query {query.id!r} was measured, and accepts connections again; its log has the "
                "reason. The other queries are not measured"
            )

    def failures_of(self, query: Query, runs: Sequence[QueryRun]) -> list[str]:
        """Note the statements that failed, and return one sentence for each side."""
        failed = {run.side: run.error for run in runs if run.error is not None}
        return [self.failed(side, query, f"query {query.id!r} failed on side {side!r}: {error}") for side, error in failed.items()]

    def ended(self, error: SideFailed) -> None:
        """Note the error that ends a side, while the others go on."""
        self.failures.setdefault(error.side, error.reason)

    def failed(self, side: str, query: Query, reason: str) -> str:
        """Note that a side has failed, and return the reason."""
        logger.warning("%s: %s", query.id, reason)
        self.failures.setdefault(side, reason)
        return reason
