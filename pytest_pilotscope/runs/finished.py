"""A run whose record is closed: its summaries, the page of a comparison, and its way to MLflow."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pytest_pilotscope.errors import raise_interrupt_behind, reason_of
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.places.privatefiles import write_private
from pytest_pilotscope.record.projection import is_comparison, runs_of
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.record.results import RunHeader

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


def read_back(header: RunHeader, settings: Settings, failures: list[str]) -> FinishedRun | None:
    """
    Read a closed record, write its summaries, and send it to MLflow, each however the others end; add what failed to `failures`.

    Return None if the record itself cannot be read.
    """
    from pytest_pilotscope.statistics.summary import summary_json  # it needs SciPy, which collecting tests does not

    path = settings.results / f"{header.run_name}.jsonl"
    record = _read(path, failures)
    if record is None:
        return None
    summaries: list[Path] = []
    for run in runs_of(record):
        with isolated(f"the summary of {run.header.run_name}", failures):
            summaries.append(_written(path.with_name(f"{run.header.run_name}.json"), json.dumps(summary_json(run), indent=2) + "\n"))
    files = [*_more_files(record, path, settings, failures), *summaries]
    tracking, unsent = _sent(record, path, files, settings) if settings.mlflow else ("off (--no-mlflow)", False)
    return FinishedRun(record=record, record_path=path, tracking=tracking, unsent=unsent)


def _read(path: Path, failures: list[str]) -> Record | None:
    record: Record | None = None
    with isolated(f"the record {path}", failures):
        record = read_record(path)
    return record  # noqa: RET504 - None after an error, which `isolated` notes


def _more_files(record: Record, path: Path, settings: Settings, failures: list[str]) -> Iterator[Path]:
    """Write table and page of a comparison beside its record, and plots and page of any run for MLflow; yield what could be written."""
    comparison = is_comparison(record.header)
    if comparison:
        from pytest_pilotscope.report.figure_table import markdown

        with isolated(f"the table of {record.header.run_name}", failures):
            yield _written(path.with_suffix(".md"), markdown(record))
    wanted = settings.mlflow and record.status != "KILLED"  # after Ctrl-C the user does not want to wait for plots
    if not (comparison or wanted):
        return
    from pytest_pilotscope.report.page import drawn, write_page, write_plots

    plots = None
    if wanted:
        with isolated(f"the plots of {record.header.run_name}", failures):
            plots = drawn(record)
            yield write_plots(path.with_suffix("") / "plots", plots)
    with isolated(f"the page of {record.header.run_name}", failures):
        yield write_page(path.with_suffix(".html") if comparison else path.with_suffix("") / "report.html", [record], plots=plots)


def _written(path: Path, text: str) -> Path:
    write_private(path, text)
    return path


def _sent(record: Record, path: Path, files: Sequence[Path], settings: Settings) -> tuple[str, bool]:
    """
    Send the run of a record to MLflow, or one run for each side of a comparison, all with the same record.

    Return their names, or the reason why they are not sent, and True in that case: MLflow is only one reader of the record. `files` has the
    summaries of all runs; each gets its own.
    """
    sent = []
    runs = runs_of(record)
    summaries = {path.with_name(f"{run.header.run_name}.json") for run in runs}
    try:
        from pytest_pilotscope.tracking.publish import begin, complete

        for run in runs:
            tracker = begin(run.header, tracking_uri=settings.tracking_uri)
            others = summaries - {path.with_name(f"{run.header.run_name}.json")}
            complete(tracker, run, artifacts=(path, *(file for file in files if file not in others)))
            sent.append(f"experiment {tracker.experiment_name}, run {tracker.run_id}")
    except Exception as error:
        raise_interrupt_behind(error)
        reason = f"not sent ({reason_of(error)}); the record is complete, `pilotscope sync` sends it later"
        logger.warning("%s", reason)
        return reason, True
    return "; ".join(sent), False
