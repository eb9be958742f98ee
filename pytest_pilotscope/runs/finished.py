"""A run whose record is closed: its summaries, the page of a comparison, and its way to MLflow."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import raise_interrupt_behind, reason_of
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.places.privatefiles import write_private
from pytest_pilotscope.record.projection import header_of, is_comparison, runs_of
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.record.results import RunHeader
from pytest_pilotscope.statistics.summary import summary_json

if TYPE_CHECKING:
    from pytest_pilotscope.tracking.tracker import MLflowTracker

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A run whose record is closed. `tracking` names its run in MLflow or the reason why there is none; `unsent` is an error of MLflow."""

    record: Record
    record_path: Path
    tracking: str
    unsent: bool


@contextmanager
def isolated(reader: str, failures: list[str]) -> Iterator[None]:
    """Note the error of one reader of the record, so that the others still read it."""
    try:
        yield
    except Exception as error:
        raise_interrupt_behind(error)
        failures.append(f"{reader}: {reason_of(error)}")
        logger.debug("%s", reader, exc_info=error)


def read_back(header: RunHeader, results: Path, tracking: Tracking, failures: list[str]) -> FinishedRun | None:
    """
    Read a closed record, write its summaries, and send it to MLflow, each however the others end; add what failed to `failures`.

    Return None if the record itself cannot be read.
    """
    path = results / f"{header.run_name}.jsonl"
    record = _read(path, failures)
    if record is None:
        tracking.fail(failures[-1])
        return None
    summaries: list[Path] = []
    for run in runs_of(record):
        with isolated(f"the summary of {run.header.run_name}", failures):
            summaries.append(_written(results / f"{run.header.run_name}.json", json.dumps(summary_json(run), indent=2) + "\n"))
    tracking.complete(record, path, [*_more_files(record, path, tracking.settings, failures), *summaries])
    return FinishedRun(record=record, record_path=path, tracking=tracking.outcome, unsent=tracking.unsent)


def _read(path: Path, failures: list[str]) -> Record | None:
    record: Record | None = None
    with isolated(f"the record {path}", failures):
        record = read_record(path)
    return record  # noqa: RET504 - None after an error, which `isolated` notes


def _more_files(record: Record, path: Path, settings: Settings, failures: list[str]) -> Iterator[Path]:
    """Write table and page of a comparison beside its record, and plots and page of any run for MLflow; yield what could be written."""
    from pytest_pilotscope.report.figure_table import markdown
    from pytest_pilotscope.report.page import write_page, write_plots

    if is_comparison(record.header):
        with isolated(f"the table of {record.header.run_name}", failures):
            yield _written(path.with_suffix(".md"), markdown(record))
        with isolated(f"the page of {record.header.run_name}", failures):
            yield write_page(path.with_suffix(".html"), [record])
    if settings.mlflow and record.status != "KILLED":  # after Ctrl-C the user does not want to wait for plots
        with isolated(f"the plots of {record.header.run_name}", failures):
            yield write_plots(path.with_suffix("") / "plots", record)
        if not is_comparison(record.header):
            with isolated(f"the page of {record.header.run_name}", failures):
                yield write_page(path.with_suffix("") / "report.html", [record])


def _written(path: Path, text: str) -> Path:
    write_private(path, text)
    return path


@dataclass(slots=True)
class Tracking:
    """
    Sends one record to MLflow. If that fails, the record stays complete and the user is told how to send it later.

    A comparison becomes one MLflow run for each of its sides, all with the same record.
    """

    settings: Settings
    unsent: bool = False
    outcome: str = field(init=False)
    _trackers: list[MLflowTracker] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outcome = "begun" if self.settings.mlflow else "off (--no-mlflow)"

    def begin(self, header: RunHeader) -> None:
        """Start the MLflow runs."""
        if not self.settings.mlflow:
            return
        with self._sending():
            from pytest_pilotscope.tracking.publish import begin

            headers = [header_of(header, side) for side in header.sides] if is_comparison(header) else [header]
            for own in headers:
                self._trackers.append(begin(own, tracking_uri=self.settings.tracking_uri))

    def complete(self, record: Record, record_path: Path, files: Sequence[Path]) -> None:
        """Send metrics, files and the end of the MLflow runs. `files` has the summaries of all runs; each gets its own."""
        if not self._trackers:
            return
        with self._sending():
            from pytest_pilotscope.tracking.publish import complete

            runs = runs_of(record)
            summaries = {record_path.with_name(f"{run.header.run_name}.json") for run in runs}
            for tracker, run in zip(self._trackers, runs, strict=True):
                others = summaries - {record_path.with_name(f"{run.header.run_name}.json")}
                complete(tracker, run, artifacts=(record_path, *(file for file in files if file not in others)))
            self.outcome = "; ".join(f"experiment {tracker.experiment_name}, run {tracker.run_id}" for tracker in self._trackers)

    def fail(self, reason: str) -> None:
        """End the MLflow runs as FAILED, because there is no record to send."""
        with self._sending():
            for tracker in self._trackers:
                tracker.end("FAILED", error=reason)

    @contextmanager
    def _sending(self) -> Iterator[None]:
        """Turn every error of the block into a line for the user: MLflow is only one reader of the record."""
        try:
            yield
        except Exception as error:
            raise_interrupt_behind(error)
            self._trackers.clear()
            self.unsent = True
            self.outcome = f"not sent ({reason_of(error)}); the record is complete, `pilotscope sync` sends it later"
            logger.warning("%s", self.outcome)
