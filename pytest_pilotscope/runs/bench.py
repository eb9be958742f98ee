"""
One invocation: databases opened once, runs measured one after the other, and everything that is made from their records.

Knows nothing of pytest. `say` shows a line to the user, `progress` a bar.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.datasets.base import ShowsProgress
from pytest_pilotscope.errors import PilotscopeError, TrackingError, UnknownName, UsageError
from pytest_pilotscope.options.progress import ShowProgress
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.places.dsn import Dsn, is_dsn
from pytest_pilotscope.provision.chosen_queries import completed, described, given_workload, too_few
from pytest_pilotscope.queries.queries import Workload
from pytest_pilotscope.record.projection import header_of, is_comparison, runs_of
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.record.results import BASELINE, RunHeader
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.report.progress import Say
from pytest_pilotscope.runs.cases import Case, cases_of
from pytest_pilotscope.runs.header import check_results, restrictions
from pytest_pilotscope.runs.single import BenchmarkRun, benchmark_run, select_queries
from pytest_pilotscope.statistics.summary import summary_json

if TYPE_CHECKING:
    from pytest_pilotscope.datasets.base import Dataset
    from pytest_pilotscope.gate.judging import Gate
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.tracking.tracker import MLflowTracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A run whose record is closed; `tracking` says where it went in MLflow, or why it did not, and `unsent` that it should have."""

    record: Record
    record_path: Path
    tracking: str
    unsent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """What all runs together amount to, as lines for the user, and whether that is a failure (1) or not (0)."""

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
        Raise `UsageError` for what cannot be measured: unknown names, an empty selection, a model that is neither trained nor loaded, and
        for a folder of results that cannot be written.

        What a gate compares with is read here, before there is anything new that it could be taken for.
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

            self._gate = open_gate(self.settings)

    def _check_model(self) -> None:
        """Raise `UsageError` for a model that cannot be meant, and for none where one is needed; algorithms without models need none."""
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
        """Return the queries of a dataset, or those of `--queries-dir`, made once; complete once its database is open."""
        if name not in self._workloads:
            self._workloads[name] = given_workload(name, self.dataset(name), self.settings)
        return self._workloads[name]

    def dataset(self, name: str) -> Dataset | None:
        """Make the dataset of a name; None for the database that the DSN of `--server` names. Raises `UnknownName`."""
        known = {entry.name for entry in self.registry.datasets}
        if name not in known:
            if own_database(self.settings) == name:
                return None
            raise UnknownName("dataset", name, known, otherwise=f"a database of yours is named with --server postgresql://HOST/{name}")
        dataset: Dataset = self.registry.dataset(name).resolve()(
            name=name, scale=self.settings.scale, seed=self.settings.seed, data_dir=self.settings.data_dir
        )
        if isinstance(dataset, ShowsProgress):
            dataset.show_progress = self.progress
        return dataset

    def database(self, name: str) -> Database:
        """Provision a dataset's database, once."""
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
        """Whether training queries are needed."""
        algorithms = (self.registry.algorithm(name).resolve() for name in self.settings.algorithms)
        return self.settings.load_model is None and any(getattr(algorithm, "learns", True) for algorithm in algorithms)

    @contextmanager
    def open_run(self, case: Case) -> Iterator[BenchmarkRun]:
        """Measure a case; when the block ends, however it ends, the record is handed to its readers."""
        tracking = _Tracking(self.settings)
        database = self.database(case.dataset)
        header: RunHeader | None = None

        def started(its_header: RunHeader) -> None:
            nonlocal header
            header = its_header
            tracking.begin(its_header)

        try:
            with _measuring(case)(
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
                self.finished.append(_read_back(header, self.settings.results, tracking))

    def conclude(self) -> Conclusion:
        """Write the report, and calibrate with what was measured, or hold it against the gate."""
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


def _measuring(case: Case) -> Callable[..., AbstractContextManager[BenchmarkRun]]:
    if case.together and case.opponents:
        from pytest_pilotscope.runs.comparison import comparison_run

        return partial(comparison_run, case.opponents)
    return partial(benchmark_run, case.algorithms[0])


def own_database(settings: Settings) -> str | None:
    """The user's own database: the one that the DSN of `--server` names."""
    return Dsn(settings.server).database if is_dsn(settings.server) else None


def _read_back(header: RunHeader, results: Path, tracking: _Tracking) -> FinishedRun:
    record_path = results / f"{header.run_name}.jsonl"
    record = read_record(record_path)
    summary_paths = [results / f"{run.header.run_name}.json" for run in runs_of(record)]
    for run, path in zip(runs_of(record), summary_paths, strict=True):
        path.write_text(json.dumps(summary_json(run), indent=2) + "\n", encoding="utf-8")
    files = [record_path, *(_comparison_files(record, record_path) if is_comparison(header) else ())]
    tracking.complete(record, files, summary_paths)
    return FinishedRun(record=record, record_path=record_path, tracking=tracking.outcome, unsent=tracking.unsent)


def _comparison_files(record: Record, record_path: Path) -> tuple[Path, Path]:
    """The table and the page of a comparison, beside its record."""
    from pytest_pilotscope.report.comparison import markdown
    from pytest_pilotscope.report.page import write_page

    path = record_path.with_suffix(".md")
    path.write_text(markdown(record), encoding="utf-8")
    return path, write_page(record_path.with_suffix(".html"), [record])


@dataclass(slots=True)
class _Tracking:
    """
    MLflow as a reader that may fail: the record stays whole and the user is told how to send it later.

    A comparison is one run in MLflow for each of its sides, all with the same record.
    """

    settings: Settings
    outcome: str = "off (--no-mlflow)"
    unsent: bool = False
    _trackers: list[MLflowTracker] = field(default_factory=list)

    def begin(self, header: RunHeader) -> None:
        if not self.settings.mlflow:
            return
        from pytest_pilotscope.tracking.publish import begin

        headers = [header_of(header, side) for side in header.sides] if is_comparison(header) else [header]
        try:
            for own in headers:
                self._trackers.append(begin(own, tracking_uri=self.settings.tracking_uri))
        except TrackingError as error:
            self._trackers.clear()
            self._unsent(error)

    def complete(self, record: Record, files: Sequence[Path], summary_paths: Sequence[Path]) -> None:
        if not self._trackers:
            return
        from pytest_pilotscope.report.page import write_plots
        from pytest_pilotscope.tracking.publish import complete

        if record.status != "KILLED":  # whoever presses Ctrl-C does not want to wait for drawings
            files = [*files, write_plots(files[0].with_suffix("") / "plots", record)]
        try:
            for tracker, run, summary_path in zip(self._trackers, runs_of(record), summary_paths, strict=True):
                complete(tracker, run, artifacts=(*files, summary_path))
            self.outcome = "; ".join(f"experiment {tracker.experiment_name}, run {tracker.run_id}" for tracker in self._trackers)
        except TrackingError as error:
            self._unsent(error)

    def _unsent(self, error: TrackingError) -> None:
        self.unsent = True
        self.outcome = f"not sent ({error}); the record is complete, `pilotscope sync` sends it later"
        logger.warning("%s", self.outcome)
