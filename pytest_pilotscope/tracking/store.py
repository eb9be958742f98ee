"""The MLflow store: which one, opened once, with experiments whose artifacts land in a known place."""

from __future__ import annotations

import logging
import os
import re
import ssl
import urllib.error
import urllib.request
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

ANSWER_LIMIT_S = 5.0
"""How long a tracking server may take for its first answer. MLflow itself would retry a dead one for minutes."""

_PASSWORD = re.compile(r"(://[^/:@\s]*):[^/@\s]*@")


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
        return _remote_client(uri)
    if not path.parent.is_dir():
        raise TrackingError(
            f"the MLflow store {uri!r} cannot be opened: {path.parent} is not a folder; create it or choose another --tracking-uri"
        )
    with _exclusive(path.with_name(f"{path.name}.lock")):
        return _client(f"sqlite:///{path}")


def open_existing(tracking_uri: str | None = None) -> MlflowClient:
    """Return a client for reading; `TrackingError` instead of a new, empty store where there is none."""
    uri = resolve_uri(tracking_uri)
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise TrackingError(
            f"there is no MLflow store: {path} does not exist; run a benchmark first, or name the store with --tracking-uri or "
            "MLFLOW_TRACKING_URI"
        )
    return open_client(uri)


def shown_uri(uri: str) -> str:
    """Return the URI of a store, or any text with such URIs in it, without passwords."""
    return _PASSWORD.sub(r"\1:***@", uri)


def is_server(uri: str) -> bool:
    """Whether the store is a tracking server, which has a UI of its own."""
    return uri.startswith(("http://", "https://"))


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
    """Turn the errors of MLflow, its database and the network into `TrackingError`, saying what could not be read or written."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise TrackingError(shown_uri(f"the MLflow store could not be used for {what}: {_reason(error)}")) from error


def _reason(error: Exception) -> str:
    """The first line of the message; SQLAlchemy puts the statement and an advertisement behind it."""
    return str(error).strip().split("\n[SQL:", maxsplit=1)[0]


@cache
def _remote_client(uri: str) -> MlflowClient:
    if is_server(uri):
        _check_answers(uri)
    return _client(uri)


def _check_answers(uri: str) -> None:
    """Raise `TrackingError` when nothing answers there; any HTTP status is an answer, and so is a certificate, which MLflow judges."""
    address = re.sub(r"://[^/@]*@", "://", uri)
    try:
        urllib.request.urlopen(address, timeout=ANSWER_LIMIT_S).close()  # noqa: S310 - is_server() lets only http and https through
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return
        said = getattr(reason, "strerror", None) or reason
        raise TrackingError(
            f"the MLflow server {shown_uri(uri)!r} does not answer: {said}; check the address, or name another store with --tracking-uri"
        ) from error


@cache
def _client(uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a benchmark talks to nobody its user did not name
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s; with MLflow's own 7 a dead server is waited for 4 minutes
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
