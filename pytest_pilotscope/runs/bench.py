"""
One invocation: open the databases once, measure the runs one after the other, and conclude from their records.

Nothing here knows pytest. `say` shows a line to the user, `progress` a bar.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from pytest_pilotscope.datasets.base import ShowsProgress
from pytest_pilotscope.errors import PilotscopeError, UnknownName, UsageError
from pytest_pilotscope.options.progress import ShowProgress
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.provision.chosen_queries import completed, described, given_workload, too_few
from pytest_pilotscope.queries.queries import Workload
from pytest_pilotscope.record.results import BASELINE, RunHeader
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.report.progress import Say
from pytest_pilotscope.runs.cases import Case, cases_of
from pytest_pilotscope.runs.finished import FinishedRun, Tracking, read_back
from pytest_pilotscope.runs.header import check_results, restrictions
from pytest_pilotscope.runs.opening import benchmark_run, select_queries
from pytest_pilotscope.runs.single import BenchmarkRun

if TYPE_CHECKING:
    from pytest_pilotscope.datasets.base import Dataset
    from pytest_pilotscope.gate.judging import Gate
    from pytest_pilotscope.provision.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """The result of all runs: lines for the user, and the exit code (1 for a failure)."""

    lines: tuple[str, ...] = ()
    exit_code: int = 0


@dataclass(slots=True, kw_only=True)
class Bench:
    """The state of one invocation; close it to stop the servers."""

    settings: Settings
    registry: Registry
    say: Say
    progress: ShowProgress
    cases: tuple[Case, ...] = ()
    finished: list[FinishedRun] = field(default_factory=list)
    _gate: Gate | None = None
    _databases: dict[str, Database] = field(default_factory=dict)
    _workloads: dict[str, Workload] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def check(self) -> None:
        """
        Raise `UsageError` for settings that cannot be measured.

        Those are unknown names, an empty selection, a model that is neither trained nor loaded, and an unwritable folder of results.
        The gate's reference is read here, before new records exist, so that they cannot be mistaken for it.
        """
        for name in (*self.settings.algorithms, *self.settings.options):
            self.registry.algorithm(name)
            self.registry.options(name, self.settings.options)
        for name in self.settings.algorithms:
            self.registry.algorithm(name).resolve()
        self._check_model()
        _check_measuring(self.settings)
        check_results(self.settings.results)
        for name in self.settings.datasets:
            queries = select_queries(self.workload(name).test, self.settings)
            if self.settings.calibrate:
                _check_calibration(self.settings, len(queries))
        if self.settings.gate and not self.settings.calibrate:
            from pytest_pilotscope.gate.judging import open_gate
            from pytest_pilotscope.tracking.record_artifacts import newest_record

            self._gate = open_gate(self.settings, partial(newest_record, tracking_uri=self.settings.tracking_uri))

    def _check_model(self) -> None:
        """Raise `UsageError` for a model that cannot exist, and for a missing one. Algorithms without `load` need no model."""
        reference = self.settings.load_model
        if reference is not None:
            from pytest_pilotscope.tracking.models import check_reference

            check_reference(reference)
            return
        made = (self.registry.algorithm(name).resolve() for name in self.settings.algorithms)
        if not self.settings.training and any(hasattr(algorithm, "load") for algorithm in made):
            raise UsageError("--no-training needs a model: add --load-model best|RUN_ID|PATH|models:/NAME/VERSION")

    def provision(self) -> None:
        """Open the databases of the cases."""
        for case in self.cases:
            self.database(case.dataset)

    def workload(self, name: str) -> Workload:
        """Return the queries of a dataset, or those of `--queries-dir`. They are complete once `database` has opened the database."""
        if name not in self._workloads:
            self._workloads[name] = given_workload(name, self.dataset(name), self.settings)
        return self._workloads[name]

    def dataset(self, name: str) -> Dataset | None:
        """Make the dataset of a name; None for the database in the DSN of `--server`. Raise `UnknownName` for any other name."""
        known = {entry.name for entry in self.registry.datasets}
        if name not in known:
            if own_database(self.settings) == name:
                return None
            raise UnknownName("dataset", name, known, otherwise=f"name a database of yours with --server postgresql://HOST/{name}")
        dataset: Dataset = self.registry.dataset(name).resolve()(
            name=name, scale=self.settings.scale, seed=self.settings.seed, data_dir=self.settings.data_dir
        )
        if isinstance(dataset, ShowsProgress):
            dataset.show_progress = self.progress
        return dataset

    def database(self, name: str) -> Database:
        """Return a dataset's database; provision it at the first call."""
        if name not in self._databases:
            from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database

            dataset = self.dataset(name)
            config = PostgreSQLConfig.from_settings(self.settings, db=name if dataset is not None else None)
            database = self._stack.enter_context(open_database(config, dataset))
            self.say(f"pilotscope: {name} on {database.report.header()}")
            for line in restrictions(self.settings.algorithms, self.registry, database):
                self.say(f"pilotscope: {line}")
            self._databases[name] = database
            workload = completed(self.workload(name), database, self.settings, learns=self._learns(), show_progress=self.progress)
            self._workloads[name] = workload
            for line in (*described(workload), *too_few(workload, self.settings)):
                self.say(f"pilotscope: {name}: {line}")
        return self._databases[name]

    def _learns(self) -> bool:
        """Tell whether an algorithm needs training queries."""
        algorithms = (self.registry.algorithm(name).resolve() for name in self.settings.algorithms)
        return self.settings.load_model is None and any(getattr(algorithm, "learns", True) for algorithm in algorithms)

    @contextmanager
    def open_run(self, case: Case) -> Iterator[BenchmarkRun]:
        """Give the run of a case; however the block ends, hand the record to its readers."""
        tracking = Tracking(self.settings)
        database = self.database(case.dataset)
        header: RunHeader | None = None

        def started(its_header: RunHeader) -> None:
            nonlocal header
            header = its_header
            tracking.begin(its_header)

        try:
            with benchmark_run(
                *case.measured,
                together=case.compares,
                database=database,
                workload=self.workload(case.dataset),
                settings=self.settings,
                registry=self.registry,
                progress=self.progress,
                started=started,
            ) as run:
                yield run
        finally:
            if header is not None:
                self.finished.append(read_back(header, self.settings.results, tracking))

    def conclude(self) -> Conclusion:
        """Write the report; calibrate with the runs, or judge them by the gate."""
        lines: list[str] = []
        failed = False
        try:
            if self.settings.report is not None and self.finished:
                from pytest_pilotscope.report.page import write_page

                lines.append(f"report: {write_page(self.settings.report, [run.record for run in self.finished])}")
            for run in self.finished if self.settings.calibrate else ():
                from pytest_pilotscope.gate.calibrations import calibrate_with, calibration_folder

                lines += calibrate_with(run.record, calibration_folder())
            if self._gate is not None:
                from pytest_pilotscope.gate.judging import judge

                expected = (run for case in cases_of(self.settings) for run in case.runs)
                judgement = judge(self._gate, [run.record for run in self.finished], expected)
                lines += judgement.lines
                failed = judgement.exit_code != 0
        except PilotscopeError as error:
            lines.append(str(error))
            failed = True
        if unsent := sum(run.unsent for run in self.finished):
            lines.append(f"not sent to MLflow: {unsent} of {len(self.finished)} runs; `pilotscope sync` sends them, or says what is wrong")
        if self.settings.calibrate and len(self.finished) < len(self.settings.datasets):
            lines.append("not everything was measured, so not everything is calibrated")
            failed = True
        return Conclusion(lines=tuple(lines), exit_code=int(failed))

    def close(self) -> None:
        """Stop what was started."""
        self._databases.clear()
        self._stack.close()


def _check_measuring(settings: Settings) -> None:
    wanted = {"--gate": settings.gate not in (None, "none"), "--compare": settings.compare, "--calibrate": settings.calibrate}
    if not settings.measure and any(wanted.values()):
        raise UsageError(f"--no-measure leaves nothing to judge; leave {', '.join(name for name, on in wanted.items() if on)} out")


def _check_calibration(settings: Settings, queries: int) -> None:
    if settings.compare or settings.algorithms != (BASELINE,):
        raise UsageError("--calibrate measures PostgreSQL against itself; leave --algo and --compare out")
    if settings.rounds < 2 or queries < 2:
        raise UsageError(
            f"--calibrate needs at least 2 rounds and 2 queries to see noise, found {settings.rounds} and {queries}; "
            "leave --rounds, --queries and --limit as they are for the gate"
        )


def own_database(settings: Settings) -> str | None:
    """Return the user's own database: the name in the DSN of `--server`."""
    return settings.server.database if isinstance(settings.server, Dsn) else None
