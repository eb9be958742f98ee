"""
Sending the records that MLflow did not get during their runs.

`sync` finds the run of a record by the tag `record_id`. It does not change a run that ended, completes one that did not, and does not
restore a deleted one. Sending a record twice adds nothing.
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

from pytest_pilotscope.errors import TrackingError, raise_interrupt_behind, reason_of
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.record.projection import runs_of
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.record.results import TrainingReport
from pytest_pilotscope.tracking.publish import begin, complete
from pytest_pilotscope.tracking.store import open_client, translated

if TYPE_CHECKING:
    from mlflow.entities import Run

logger = logging.getLogger(__name__)

State = Literal["sent", "completed", "there", "deleted", "running", "failed"]
"""The run was `sent`, `completed`, `there` already, `deleted` in the store, is still `running`, or `failed` to be sent."""

TAG = "record_id"
"""The tag with the id of a run's record."""

_ENDED = ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The outcome for one run. `reason` says why it failed; `missing` names artifacts that are no longer on the disk."""

    path: Path
    state: State
    experiment: str | None = None
    run_id: str | None = None
    status: str | None = None
    reason: str | None = None
    missing: tuple[str, ...] = ()


def sync(results: Path, *, tracking_uri: str | StoreUri | None = None, but: Collection[Path] = ()) -> Iterator[Sent]:
    """
    Send every record of a folder that is missing or unfinished in the store, except those in `but`; yield an outcome for each run, by name.

    A record that cannot be read or sent has an outcome, too, and does not stop the others. Raise `TrackingError` if the store does not
    open.
    """
    open_client(tracking_uri)
    for path in sorted(set(results.glob("*.jsonl")) - set(but)):
        try:
            with _unused(path) as free:
                if not free:
                    yield Sent(path=path, state="running")
                    continue
                for record in runs_of(read_record(path)):
                    yield _send(record, path, tracking_uri)
        except Exception as error:
            raise_interrupt_behind(error)
            yield Sent(path=path, state="failed", reason=reason_of(error))


def _send(record: Record, path: Path, tracking_uri: str | StoreUri | None) -> Sent:
    experiment = f"{record.header.algorithm}_{record.header.dataset}"
    run = _run_of(record, path, experiment, tracking_uri)
    if run is not None and (run.info.lifecycle_stage == "deleted" or run.info.status in _ENDED):
        state: State = "deleted" if run.info.lifecycle_stage == "deleted" else "there"
        return Sent(path=path, state=state, experiment=experiment, run_id=run.info.run_id, status=run.info.status)
    complete_record, missing = _with_artifacts_found(record, path)
    tracker = begin(record.header, tracking_uri=tracking_uri, run_id=run.info.run_id if run else None)
    beside = (path.with_name(f"{record.header.run_name}.json"), path.with_suffix(".md"), path.with_suffix(".html"))
    files = [
        file for file in (path, *beside, path.with_suffix("") / "report.html", path.with_suffix("") / "plots") if _is_there(file, path)
    ]
    complete(tracker, complete_record, artifacts=files, ended_at=datetime.fromtimestamp(path.stat().st_mtime, timezone.utc))
    return Sent(
        path=path,
        state="completed" if run else "sent",
        experiment=experiment,
        run_id=tracker.run_id,
        status=record.end.status if record.end else "KILLED",
        missing=missing,
    )


def _run_of(record: Record, path: Path, experiment: str, tracking_uri: str | StoreUri | None) -> Run | None:
    """Return the run of a record in the store, also a deleted one."""
    from mlflow.entities import ViewType

    identity = record.header.tags.get(TAG, "")
    if not identity.isalnum():
        raise TrackingError(f"{path}: the header has no tag {TAG!r}, so it is unknown whether the record was sent already")
    client = open_client(tracking_uri)
    with translated(f"the run of {path.name}"):
        found = client.get_experiment_by_name(experiment)
        if found is None:
            return None
        runs = client.search_runs([found.experiment_id], f"tags.{TAG} = '{identity}'", run_view_type=ViewType.ALL, max_results=1)
    return runs[0] if runs else None


def _with_artifacts_found(record: Record, path: Path) -> tuple[Record, tuple[str, ...]]:
    """Return the record with the present paths of its artifacts (the user may have moved the results), and the paths of missing ones."""
    missing: list[str] = []
    training: list[TrainingReport] = []
    for report in record.training:
        found = {written: _found(Path(written), path) for written in report.artifacts}
        missing += [written for written, present in found.items() if present is None]
        training.append(replace(report, artifacts=tuple(str(present) for present in found.values() if present is not None)))
    return replace(record, training=tuple(training)), tuple(missing)


def _found(written: Path, path: Path) -> Path | None:
    """Return the path of an artifact in the run's folder next to its record; None if it is not there."""
    folder = path.with_suffix("")
    if folder.name not in written.parts:
        return None
    present = folder / Path(*written.parts[written.parts.index(folder.name) + 1 :])
    return present if _is_there(present, path) else None


def _is_there(file: Path, path: Path) -> bool:
    """
    Tell whether a file, or a folder with all that is in it, is in the folder of the record.

    The record may be somebody else's, such as one that a job of a fork has uploaded: it names no file of this machine, nor does a link.
    """
    results = path.parent.resolve()
    return file.exists() and all(one.resolve().is_relative_to(results) for one in (file, *file.rglob("*")))


@contextmanager
def _unused(path: Path) -> Iterator[bool]:
    """Lock the record, and yield True if its writer (which locks it while it lives) or another `sync` does not have the lock."""
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
