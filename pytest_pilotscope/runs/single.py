"""
One run: an algorithm on a dataset, from training to the end of its record.

Knows nothing of pytest; the plugin and the Python API both go through `benchmark_run`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import DifferentAnswer, ServerError, StatementFailed, UsageError
from pytest_pilotscope.learning.algorithm import Algorithm, Cardinalities, CardinalityEstimator, DatabasePreparer, PartialCardinalities
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.measurement.clocks import Clock, clock_of
from pytest_pilotscope.measurement.protocol import QueryMeasurement
from pytest_pilotscope.measurement.sides import PlainSide, Side, side_of
from pytest_pilotscope.options.progress import ShowProgress
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.record.record import RecordWriter
from pytest_pilotscope.record.results import BASELINE, BASELINE_AGAIN, QueryRun, RunEnd, RunHeader, Status
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.runs.header import open_record, run_header
from pytest_pilotscope.runs.learn import learn

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class BenchmarkRun:
    """A run that is being measured: give it one query after the other."""

    header: RunHeader
    database: Database
    queries: tuple[Query, ...]
    sides: tuple[Side, ...]
    settings: Settings
    writer: RecordWriter
    progress: ShowProgress
    clock: Clock
    truths: Mapping[str, Cardinalities]
    failures: dict[str, str] = field(default_factory=dict)

    def measure_all(self) -> Iterator[tuple[Query, list[str]]]:
        """
        Measure query after query; give each with what went wrong with it, in sentences (nothing: an empty list).

        ServerError when the server is gone, with what has become of it: there is no point in trying the rest.
        """
        with self.progress(f"{self.header.algorithm} on {self.header.dataset}", len(self.queries)) as advance:
            for query in self.queries:
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
        Measure one query on all sides; return what went wrong with it, in sentences.

        A statement that fails on a side fails that side's run but not the other queries. A different answer does as well.
        """
        measurement = QueryMeasurement(
            query=query,
            sides=self.sides,
            timeout_ms=self.settings.query_timeout_ms,
            write=self.writer.write,
            clock=self.clock,
            truth=self.truths.get(query.id),
        )
        try:
            runs = measurement.run(self.settings.rounds)
        except DifferentAnswer as error:
            return [self.failed(error.side, query, str(error))]
        return self.failures_of(query, runs)

    def _check_sessions(self, query: Query) -> None:
        """Raise ServerError when a side has lost its session."""
        if any(side.session.closed for side in self.sides):
            self.database.server.connect().close()  # says what has become of a server that is gone
            raise ServerError(
                f"PostgreSQL broke a session off while query {query.id!r} was measured, and serves again; its log says why. "
                "The rest is not measured"
            )

    def failures_of(self, query: Query, runs: Sequence[QueryRun]) -> list[str]:
        """Note the statements that failed, and return one sentence for each side."""
        failed = {run.side: run.error for run in runs if run.error is not None}
        return [self.failed(side, query, f"query {query.id!r} failed on side {side!r}: {error}") for side, error in failed.items()]

    def failed(self, side: str, query: Query, reason: str) -> str:
        """Note that a side has failed, and return the reason."""
        logger.warning("%s: %s", query.id, reason)
        self.failures.setdefault(side, reason)
        return reason


@contextmanager
def benchmark_run(
    name: str,
    *,
    database: Database,
    workload: Workload,
    settings: Settings,
    registry: Registry,
    progress: ShowProgress,
    started: Callable[[RunHeader], None] = lambda header: None,
) -> Iterator[BenchmarkRun]:
    """
    Train an algorithm and open its measurement; whatever happens, the record gets its end.

    `started` is called with the header before training. The record ends FINISHED, FAILED (a query, an answer or the block failed) or KILLED
    (Ctrl-C). Raises what the algorithm raises.
    """
    queries = select_queries(workload.test, settings) if settings.measure else ()
    algorithm: Algorithm = registry.algorithm(name).resolve()()
    header = run_header(name, database=database, workload=workload, queries=queries, settings=settings)
    failures: dict[str, str] = {}
    with open_record(header, settings.results) as writer:
        header = writer.header
        started(header)
        with ending(writer, failures), copyable(database, [algorithm]) as database, database.measuring_session() as session:
            training = Training.of(
                workload,
                algorithm=name,
                database=database,
                session=session,
                settings=settings,
                options=registry.options(name, settings.options),
                folder=settings.results / header.run_name,
                progress=progress,
            )
            writer.write(learn(algorithm, training, given=header.parameters))
            with opponent_side(name, algorithm, database, session) as opponent:
                yield BenchmarkRun(
                    header=header,
                    database=database,
                    queries=queries,
                    sides=(PlainSide(name=BASELINE, session=session), opponent),
                    settings=settings,
                    writer=writer,
                    progress=progress,
                    clock=clock_of(session),
                    truths=true_cardinalities(training, queries, count=estimates(algorithm, settings, registry)),
                    failures=failures,
                )


def estimates(algorithm: Algorithm, settings: Settings, registry: Registry) -> bool:
    """Tell whether this run is of an estimator, or of the baseline beside one: then its accuracy is worth counting for."""
    partners = settings.algorithms if algorithm.name == BASELINE else ()
    return isinstance(algorithm, CardinalityEstimator) or any(hasattr(registry.algorithm(name).resolve(), "steer") for name in partners)


def true_cardinalities(training: Training, queries: Sequence[Query], *, count: bool) -> dict[str, PartialCardinalities]:
    """
    Return the true cardinalities of the test queries, for q-error and p-error: after training, and not for it.

    Without `count` those that are known already; none where estimates cannot be read or injected. A query that has none has a reason, for
    the empty set.
    """
    if not has_extension(training.session):
        return {}
    try:
        labels = training.labels(queries, known_only=not count)
    finally:
        training.close()
    truths = {query_id: PartialCardinalities(labels.rows(query_id), labels.unknown(query_id)) for query_id in labels}
    return truths | {query_id: PartialCardinalities({}, {frozenset(): why}) for query_id, why in labels.unsupported.items()}


@contextmanager
def copyable(database: Database, algorithms: Iterable[object]) -> Iterator[Database]:
    """Give the database, made such that copies of it can be made while our sessions are open if one of these algorithms `copies` it."""
    if any(getattr(algorithm, "copies", False) for algorithm in algorithms):
        with database.copyable() as source:
            yield source
    else:
        yield database


@contextmanager
def ending(writer: RecordWriter, failures: Mapping[str, str]) -> Iterator[None]:
    """Write the end of a record, whatever happens in the block; `failures` are of the sides, noted while measuring."""
    status: Status = "FINISHED"
    error: str | None = None
    try:
        yield
    except BaseException as problem:
        status = "FAILED" if isinstance(problem, Exception) else "KILLED"
        error = f"{type(problem).__name__}: {problem}"
        raise
    finally:
        if failures and status == "FINISHED":
            status = "FAILED"
        writer.write(RunEnd(status=status, finished_at=datetime.now(timezone.utc).isoformat(), error=error, failures=dict(failures)))


@contextmanager
def opponent_side(name: str, algorithm: Algorithm, database: Database, session: Session) -> Iterator[Side]:
    """The side that is paired with the baseline: for the baseline itself, the baseline once more."""
    if name == BASELINE:
        yield PlainSide(name=BASELINE_AGAIN, session=session)
    elif isinstance(algorithm, DatabasePreparer):
        with algorithm.prepare(database) as prepared, prepared.measuring_session() as its_session:
            yield side_of(name, algorithm, its_session)
    else:
        yield side_of(name, algorithm, session)


def select_queries(queries: Sequence[Query], settings: Settings) -> tuple[Query, ...]:
    """The test queries that match `--queries`, up to `--limit`; an empty selection is a `UsageError`."""
    patterns = settings.queries or ("*",)
    matching = [query for query in queries if any(fnmatchcase(query.id, pattern) for pattern in patterns)]
    if not matching:
        ids = f"{queries[0].id} .. {queries[-1].id}" if queries else "none"
        raise UsageError(f"--queries {','.join(patterns)} matches none of the {len(queries)} test queries (ids: {ids}); nothing to measure")
    return tuple(matching[: settings.limit])
