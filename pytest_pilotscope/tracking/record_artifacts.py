"""Reading records from the store, where each run has its record as an artifact."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pilotscope.errors import RecordError, TrackingError
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.tracking.store import open_existing, resolve_uri, sqlite_path, translated
from pytest_pilotscope.tracking.tracker import MLflowTracker

_RECORD = re.compile(r".+_\d{8}_\d{6}(_\d+)?\.jsonl")
"""The name of a record: its run and the start of that; an algorithm's own artifacts may be JSON Lines, too."""


def newest_record(experiment: str, *, tracking_uri: str | StoreUri | None = None) -> Record | None:
    """
    Return the record of the newest finished run that has one; None if there is no such run, experiment or local store.

    Raise `TrackingError` if the store does not answer or the record cannot be read.
    """
    path = sqlite_path(resolve_uri(tracking_uri))
    if path is not None and not path.is_file():
        return None
    for run in MLflowTracker.list_runs(experiment, tracking_uri=tracking_uri):
        if run["status"] == "FINISHED" and (name := _record_name(run["run_id"], tracking_uri)):
            return _fetched(run["run_id"], name, tracking_uri)
    return None


def record_of_run(run: Mapping[str, Any], *, tracking_uri: str | StoreUri | None = None) -> Record:
    """Return the record of a run in the form of `MLflowTracker.list_runs`; raise `TrackingError` if it has none."""
    name = _record_name(run["run_id"], tracking_uri)
    if name is None:
        raise TrackingError(f"run {run['run_id']} ({run['run_name']}) has no record among its artifacts")
    return _fetched(run["run_id"], name, tracking_uri)


def _record_name(run_id: str, tracking_uri: str | StoreUri | None) -> str | None:
    with translated(f"the artifacts of run {run_id}"):
        paths = [artifact.path for artifact in open_existing(tracking_uri).list_artifacts(run_id) if not artifact.is_dir]
    return next((path for path in paths if _RECORD.fullmatch(path)), None)


def _fetched(run_id: str, name: str, tracking_uri: str | StoreUri | None) -> Record:
    with tempfile.TemporaryDirectory(prefix="pilotscope-record-") as folder:
        with translated(f"the record of run {run_id}"):
            local = open_existing(tracking_uri).download_artifacts(run_id, name, folder)
        try:
            return read_record(Path(local))
        except RecordError as error:
            raise TrackingError(f"the record of run {run_id} cannot be read: {error}") from error
