"""
One invocation: databases opened once, runs measured one after the other, and everything that is made from their records.

Knows nothing of pytest. `say` shows a line to the user, `progress` a bar.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.core.queries import Workload
from pytest_pilotscope.core.record import Record, read_record
from pytest_pilotscope.core.results import BASELINE, RunHeader
from pytest_pilotscope.core.settings import Settings
from pytest_pilotscope.core.summary import summary_json
from pytest_pilotscope.errors import TrackingError, UsageError
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.report.progress import Say, ShowProgress
from pytest_pilotscope.run import BenchmarkRun, benchmark_run, select_queries

if TYPE_CHECKING:
    from pytest_pilotscope.datasets.base import Dataset
    from pytest_pilotscope.provision import Database
    from pytest_pilotscope.tracking.tracker import MLflowTracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A run whose record is closed, and the files made from it."""

    record: Record
    record_path: Path
    summary_path: Path
    tracking: str
    """Where it went in MLflow, or why it did not."""


@dataclass(slots=True, kw_only=True)
class Bench:
    """The state of one invocation; close it to stop the servers."""

    settings: Settings
    registry: Registry
    say: Say
    progress: ShowProgress
    finished: list[FinishedRun] = field(default_factory=list)
    _databases: dict[str, Database] = field(default_factory=dict)
    _workloads: dict[str, Workload] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def check(self) -> None:
        """Raise `UsageError` for what cannot be measured: unknown names, an empty selection, a model that is neither trained nor loaded."""
        for name in self.settings.algorithms:
            self.registry.algorithm(name)
        if not self.settings.training and self.settings.load_model is None and set(self.settings.algorithms) != {BASELINE}:
            raise UsageError("--no-training needs a model: add --load-model best|RUN_ID|PATH|models:/NAME/VERSION")
        for name in self.settings.datasets:
            select_queries(self.workload(name).test, self.settings)

    def provision(self) -> None:
        """Open the databases of all datasets."""
        for name in self.settings.datasets:
            self.database(name)

    def workload(self, name: str) -> Workload:
        """Return the queries of a dataset, made once."""
        if name not in self._workloads:
            self._workloads[name] = self.dataset(name).workload()
        return self._workloads[name]

    def dataset(self, name: str) -> Dataset:
        """Make the dataset of a name; raises `UnknownName`."""
        dataset: Dataset = self.registry.dataset(name).resolve()(name=name, scale=self.settings.scale, seed=self.settings.seed)
        return dataset

    def database(self, name: str) -> Database:
        """Provision a dataset's database, once."""
        if name not in self._databases:
            from pytest_pilotscope.provision import PostgreSQLConfig, open_database

            config = PostgreSQLConfig.from_settings(self.settings, db=name)
            database = self._stack.enter_context(open_database(config, self.dataset(name)))
            self.say(f"pilotscope: {name} on {database.report.header()}")
            self._databases[name] = database
        return self._databases[name]

    @contextmanager
    def open_run(self, algorithm: str, dataset: str) -> Iterator[BenchmarkRun]:
        """Measure an algorithm on a dataset; when the block ends, however it ends, the record is handed to its readers."""
        tracking = _Tracking(self.settings)
        database = self.database(dataset)
        header: RunHeader | None = None

        def started(its_header: RunHeader) -> None:
            nonlocal header
            header = its_header
            tracking.begin(its_header)

        try:
            with benchmark_run(
                algorithm,
                database=database,
                workload=self.workload(dataset),
                settings=self.settings,
                registry=self.registry,
                progress=self.progress,
                started=started,
            ) as run:
                yield run
        finally:
            if header is not None:
                self.finished.append(_read_back(header, self.settings.results, tracking))

    def close(self) -> None:
        """Stop what was started."""
        self._databases.clear()
        self._stack.close()


def _read_back(header: RunHeader, results: Path, tracking: _Tracking) -> FinishedRun:
    record_path = results / f"{header.run_name}.jsonl"
    summary_path = record_path.with_suffix(".json")
    record = read_record(record_path)
    summary_path.write_text(json.dumps(summary_json(record), indent=2) + "\n", encoding="utf-8")
    tracking.complete(record, record_path, summary_path)
    return FinishedRun(record=record, record_path=record_path, summary_path=summary_path, tracking=tracking.outcome)


@dataclass(slots=True)
class _Tracking:
    """MLflow as a reader that may fail: the record stays whole and the user is told how to send it later."""

    settings: Settings
    outcome: str = "off (--no-mlflow)"
    _tracker: MLflowTracker | None = None

    def begin(self, header: RunHeader) -> None:
        if not self.settings.mlflow:
            return
        from pytest_pilotscope.tracking.publish import begin

        try:
            self._tracker = begin(header, tracking_uri=self.settings.tracking_uri)
        except TrackingError as error:
            self._unsent(error)

    def complete(self, record: Record, *files: Path) -> None:
        if self._tracker is None:
            return
        from pytest_pilotscope.tracking.publish import complete

        try:
            complete(self._tracker, record, artifacts=files)
            self.outcome = f"experiment {self._tracker.experiment_name}, run {self._tracker.run_id}"
        except TrackingError as error:
            self._unsent(error)

    def _unsent(self, error: TrackingError) -> None:
        self.outcome = f"not sent ({error}); the record is complete, `pilotscope sync` sends it later"
        logger.warning("%s", self.outcome)
