"""
Records that did not get through to MLflow, sent later.

A record is found in the store by its tag `record_id`. What is there and ended is left alone, what is there unfinished is completed, and
what was deleted there stays deleted. Sending a record twice adds nothing.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_pilotscope.errors import PilotscopeError, TrackingError
from pytest_pilotscope.record.projection import runs_of
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.record.results import TrainingReport
from pytest_pilotscope.tracking.publish import begin, complete
from pytest_pilotscope.tracking.store import open_client, translated

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

State = Literal["sent", "completed", "there", "deleted", "running", "failed"]
"""`sent` anew, `completed` what was there half, was `there` already, was `deleted` there, is being measured, or `failed` to be sent."""

TAG = "record_id"
"""The tag that says which record a run was made from."""

_ENDED = ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What became of one record. `reason` says why it failed, `missing` names artifacts that are no longer on the disk."""

    path: Path
    state: State
    experiment: str | None = None
    run_id: str | None = None
    status: str | None = None
    reason: str | None = None
    missing: tuple[str, ...] = ()


def sync(results: Path, *, tracking_uri: str | None = None, but: Collection[Path] = ()) -> Iterator[Sent]:
    """
    Send every record of a folder that is not in the store, or there unfinished; one result for each run, in the order of the names.

    Those in `but` are left alone.

    A record that cannot be read or sent is a result of its own and stops no other one. Raises `TrackingError` when the store does not open.
    """
    open_client(tracking_uri)
    for path in sorted(set(results.glob("*.jsonl")) - set(but)):
        try:
            with _unused(path) as free:
                yield from _send(path, tracking_uri) if free else (Sent(path=path, state="running"),)
        except (PilotscopeError, OSError) as error:
            yield Sent(path=path, state="failed", reason=str(error))


def _send(path: Path, tracking_uri: str | None) -> Iterator[Sent]:
    """Send what a record is of: one run, or those of a comparison."""
    for record in runs_of(read_record(path)):
        yield _send_run(record, path, tracking_uri)


def _send_run(record: Record, path: Path, tracking_uri: str | None) -> Sent:
    experiment = f"{record.header.algorithm}_{record.header.dataset}"
    run = _run_of(record, path, experiment, tracking_uri)
    if run is not None and (run.info.lifecycle_stage == "deleted" or run.info.status in _ENDED):
        state: State = "deleted" if run.info.lifecycle_stage == "deleted" else "there"
        return Sent(path=path, state=state, experiment=experiment, run_id=run.info.run_id, status=run.info.status)
    complete_record, missing = _with_artifacts_found(record, path)
    tracker = begin(record.header, tracking_uri=tracking_uri, run_id=run.info.run_id if run else None)
    beside = (path.with_name(f"{record.header.run_name}.json"), path.with_suffix(".md"), path.with_suffix(".html"))
    files = [file for file in (path, *beside, path.with_suffix("") / "plots") if file.exists()]
    complete(tracker, complete_record, artifacts=files, ended_at=datetime.fromtimestamp(path.stat().st_mtime, timezone.utc))
    return Sent(
        path=path,
        state="completed" if run else "sent",
        experiment=experiment,
        run_id=tracker.run_id,
        status=record.end.status if record.end else "KILLED",
        missing=missing,
    )


def _run_of(record: Record, path: Path, experiment: str, tracking_uri: str | None) -> Run | None:
    """The run that was made from a record, also a deleted one."""
    from mlflow.entities import ViewType

    identity = record.header.tags.get(TAG, "")
    if not identity.isalnum():
        raise TrackingError(f"{path}: the header has no tag {TAG!r}, so nobody can tell whether the record was sent already")
    client = open_client(tracking_uri)
    with translated(f"the run of {path.name}"):
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return None
        runs = client.search_runs([found.experiment_id], f"tags.{TAG} = '{identity}'", run_view_type=ViewType.ALL, max_results=1)
    return runs[0] if runs else None


def _with_artifacts_found(record: Record, path: Path) -> tuple[Record, tuple[str, ...]]:
    """The record with the paths of its artifacts as they are now (the folder of results may have been moved), and those that are gone."""
    missing: list[str] = []
    training: list[TrainingReport] = []
    for report in record.training:
        places = {written: _found(Path(written), path.with_suffix("")) for written in report.artifacts}
        missing += [written for written, place in places.items() if place is None]
        training.append(replace(report, artifacts=tuple(str(place) for place in places.values() if place is not None)))
    return replace(record, training=tuple(training)), tuple(missing)


def _found(written: Path, folder: Path) -> Path | None:
    """Where an artifact is: where it was written, else at the same place below the run's own folder beside the record."""
    if folder.name in written.parts:
        below = written.parts[written.parts.index(folder.name) + 1 :]
        if (folder / Path(*below)).exists():
            return folder / Path(*below)
    return written if written.exists() else None


@contextmanager
def _unused(path: Path) -> Iterator[bool]:
    """Whether nobody writes the record (its writer holds a lock on it as long as it lives) nor sends it at this moment; keeps it so."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
