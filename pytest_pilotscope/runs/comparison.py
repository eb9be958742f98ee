"""
Several algorithms in one run: each is trained in turn, then all take turns within each query.

One that breaks, in training or later, is out; the others go on, and the run ends FAILED for that one only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import DifferentAnswer, SideFailed
from pytest_pilotscope.learning.algorithm import Algorithm, Cardinalities, CardinalityEstimator
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.measurement.clocks import clock_of
from pytest_pilotscope.measurement.protocol import Line, QueryMeasurement
from pytest_pilotscope.measurement.sides import GuardedSide, PlainSide, Side
from pytest_pilotscope.options.progress import ShowProgress
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.record.projection import COMPARISON
from pytest_pilotscope.record.record import RecordWriter
from pytest_pilotscope.record.results import BASELINE, WARM_UP, QueryRun, RunHeader
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.runs.header import open_record, run_header
from pytest_pilotscope.runs.learn import learn
from pytest_pilotscope.runs.single import BenchmarkRun, copyable, ending, opponent_side, select_queries, true_cardinalities

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class ComparisonRun(BenchmarkRun):
    """A run of several sides. One whose algorithm breaks is left out of the rest; one that answers differently, of that query."""

    def measure(self, query: Query) -> list[str]:
        """Measure one query on all sides that are left; return what went wrong with it, in sentences."""
        problems: list[str] = []
        sides = self.sides
        while len(sides) > 1:
            try:
                return [*problems, *self.failures_of(query, self._measured(query, sides))]
            except DifferentAnswer as error:
                problems.append(self._without(error.side, query, str(error)))
                sides = _others(sides, error.side)
            except SideFailed as error:
                problems.append(self._without(error.side, query, f"query {query.id!r} on side {error.side!r}: {error.reason}"))
                self.sides = sides = _others(sides, error.side)
        return problems

    def _without(self, side: str, query: Query, reason: str) -> str:
        """Note in the record that a side has no times for a query."""
        self.writer.write(_failure(query, side, reason))
        return self.failed(side, query, reason)

    def _measured(self, query: Query, sides: Sequence[Side]) -> tuple[QueryRun, ...]:
        """Measure one query; the record gets its lines at the end, so that an attempt that has to be repeated leaves none."""
        lines: list[Line] = []
        measurement = QueryMeasurement(
            query=query,
            sides=sides,
            timeout_ms=self.settings.query_timeout_ms,
            write=lines.append,
            clock=self.clock,
            truth=self.truths.get(query.id),
        )
        try:
            return measurement.run(self.settings.rounds)
        except (DifferentAnswer, SideFailed):
            lines.clear()
            raise
        finally:
            for line in lines:
                self.writer.write(line)


def _others(sides: Sequence[Side], name: str) -> tuple[Side, ...]:
    return tuple(side for side in sides if side.name != name)


def _failure(query: Query, side: str, reason: str) -> QueryRun:
    return QueryRun(
        query_id=query.id,
        side=side,
        repetition=WARM_UP,
        order=0,
        inference_ms=0.0,
        planning_ms=0.0,
        execution_ms=0.0,
        error=reason,
    )


@dataclass(slots=True, kw_only=True)
class _Contest:
    """The algorithms of a comparison on their way from their names to sides."""

    database: Database
    workload: Workload
    settings: Settings
    registry: Registry
    progress: ShowProgress
    header: RunHeader
    writer: RecordWriter
    session: Session
    failures: dict[str, str]
    algorithms: list[Algorithm] = field(default_factory=list)
    broken: list[SideFailed] = field(default_factory=list)

    def sides(self, names: Sequence[str], stack: ExitStack) -> Iterator[Side]:
        """Train and set up one algorithm after the other; one that cannot be is noted and left out."""
        for name in names:
            try:
                yield GuardedSide(side=self._side(name, stack))
            except Exception as error:  # whatever it raises is raised again when the others are done
                failure = SideFailed(name, error)
                failure.__cause__ = error
                self.broken.append(failure)
                self.failures[name] = failure.reason
                logger.warning("%s", failure)

    def _side(self, name: str, stack: ExitStack) -> Side:
        algorithm: Algorithm = self.registry.algorithm(name).resolve()()
        self.writer.write(learn(algorithm, self.training(name), given=self.header.parameters))
        side = stack.enter_context(opponent_side(name, algorithm, self.database, self.session))
        self.algorithms.append(algorithm)
        return side

    def training(self, name: str) -> Training:
        """What an algorithm learns from; its artifacts have a folder of their own."""
        return Training.of(
            self.workload,
            algorithm=name,
            database=self.database,
            session=self.session,
            settings=self.settings,
            options=self.registry.options(name, self.settings.options),
            folder=self.settings.results / self.header.run_name / name,
            progress=self.progress,
        )

    def run(self, queries: tuple[Query, ...], sides: Sequence[Side]) -> ComparisonRun:
        """The measurement of these sides and the baseline."""
        return ComparisonRun(
            header=self.header,
            database=self.database,
            queries=queries,
            sides=(PlainSide(name=BASELINE, session=self.session), *sides),
            settings=self.settings,
            writer=self.writer,
            progress=self.progress,
            clock=clock_of(self.session),
            truths=self._truths(queries),
            failures=self.failures,
        )

    def _truths(self, queries: Sequence[Query]) -> Mapping[str, Cardinalities]:
        count = any(isinstance(algorithm, CardinalityEstimator) for algorithm in self.algorithms)
        return true_cardinalities(self.training(COMPARISON), queries, count=count)


@contextmanager
def comparison_run(
    names: Sequence[str],
    *,
    database: Database,
    workload: Workload,
    settings: Settings,
    registry: Registry,
    progress: ShowProgress,
    started: Callable[[RunHeader], None] = lambda header: None,
) -> Iterator[BenchmarkRun]:
    """
    Train algorithms and open their common measurement, which the baseline takes part in; whatever happens, the record gets its end.

    `started` is called with the header before training. Raises the first `SideFailed` of a training when the others have been measured.
    """
    queries = select_queries(workload.test, settings)
    header = run_header(COMPARISON, database=database, workload=workload, queries=queries, settings=settings, opponents=names)
    failures: dict[str, str] = {}
    with open_record(header, settings.results) as writer:
        header = writer.header
        started(header)
        algorithms = [registry.algorithm(name).resolve() for name in names]
        with (
            ending(writer, failures),
            copyable(database, algorithms) as database,
            database.measuring_session() as session,
            ExitStack() as stack,
        ):
            contest = _Contest(
                database=database,
                workload=workload,
                settings=settings,
                registry=registry,
                progress=progress,
                header=header,
                writer=writer,
                session=session,
                failures=failures,
            )
            sides = tuple(contest.sides(names, stack))
            yield contest.run(queries, sides)
    if contest.broken:
        raise contest.broken[0]
