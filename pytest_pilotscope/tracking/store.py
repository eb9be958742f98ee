"""The MLflow store: which one, opened once, with experiments whose artifacts land in a known place."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_URI = "sqlite:///mlflow.db"
"""MLflow's own default; its file store is no longer accepted by MLflow 3."""


def resolve_uri(tracking_uri: str | None = None) -> str:
    """The store in use: the one given, else MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db` in the current directory."""
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def open_client(tracking_uri: str | None = None) -> MlflowClient:
    """
    Return a client of the store; a new sqlite store is initialised under a lock, because MLflow fails when two processes do it at once.

    Raises `TrackingError` when the store does not answer.
    """
    uri = resolve_uri(tracking_uri)
    path = sqlite_path(uri)
    if path is None:
        return _client(uri)
    if not path.parent.is_dir():
        raise TrackingError(
            f"the MLflow store {uri!r} cannot be opened: {path.parent} is not a folder; create it or choose another --tracking-uri"
        )
    with _exclusive(path.with_name(f"{path.name}.lock")):
        return _client(f"sqlite:///{path}")


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of a sqlite store; None for every other kind of store."""
    prefix = "sqlite:///"
    return Path(uri[len(prefix) :]).absolute() if uri.startswith(prefix) else None


def experiment_id(client: MlflowClient, name: str) -> str:
    """The id of an experiment, created if need be; a local store gets an absolute artifact folder beside it."""
    with translated(f"experiment {name!r}"):
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        path = sqlite_path(str(client.tracking_uri))
        location = (path.parent / "mlruns" / name).as_uri() if path else None
        return str(client.create_experiment(name, artifact_location=location))


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn MLflow's and the network's errors into `TrackingError`, saying what could not be read or written."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, OSError) as error:
        raise TrackingError(f"the MLflow store could not be used for {what}: {error}") from error


@cache
def _client(uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a benchmark talks to nobody its user did not name
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside MLflow's own imports
        from mlflow import MlflowClient
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with warnings.catch_warnings(), translated(f"{uri!r}"):
        warnings.simplefilter("ignore")
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)
    return client


@contextmanager
def _exclusive(lock_path: Path) -> Iterator[None]:
    from filelock import FileLock

    with FileLock(lock_path):
        yield
