"""A run whose record is closed: its summaries, the page of a comparison, and its way to MLflow."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import TrackingError
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


def read_back(header: RunHeader, results: Path, tracking: Tracking) -> FinishedRun:
    """Read a closed record, write its summaries, and send it to MLflow."""
    record_path = results / f"{header.run_name}.jsonl"
    record = read_record(record_path)
    summary_paths = [results / f"{run.header.run_name}.json" for run in runs_of(record)]
    for run, path in zip(runs_of(record), summary_paths, strict=True):
        write_private(path, json.dumps(summary_json(run), indent=2) + "\n")
    files = [record_path, *(_comparison_files(record, record_path) if is_comparison(header) else ())]
    tracking.complete(record, files, summary_paths)
    return FinishedRun(record=record, record_path=record_path, tracking=tracking.outcome, unsent=tracking.unsent)


def _comparison_files(record: Record, record_path: Path) -> tuple[Path, Path]:
    """Write the table and the page of a comparison beside its record."""
    from pytest_pilotscope.report.figure_table import markdown
    from pytest_pilotscope.report.page import write_page

    path = record_path.with_suffix(".md")
    write_private(path, markdown(record))
    return path, write_page(record_path.with_suffix(".html"), [record])


@dataclass(slots=True)
class Tracking:
    """
    Sends one record to MLflow. If that fails, the record stays complete and the user is told how to send it later.

    A comparison becomes one MLflow run for each of its sides, all with the same record.
    """

    settings: Settings
    outcome: str = "off (--no-mlflow)"
    unsent: bool = False
    _trackers: list[MLflowTracker] = field(default_factory=list)

    def begin(self, header: RunHeader) -> None:
        """Start the MLflow runs."""
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
        """Send metrics, files and the end of the MLflow runs."""
        if not self._trackers:
            return
        from pytest_pilotscope.report.page import write_plots
        from pytest_pilotscope.tracking.publish import complete

        if record.status != "KILLED":  # after Ctrl-C the user does not want to wait for plots
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
