"""The MLflow store: its address, its client, and the folders of its artifacts."""

from __future__ import annotations

import logging
import os
import re
import ssl
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_pilotscope.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.entities import PagedList

T = TypeVar("T")

DEFAULT_URI = "sqlite:///mlflow.db"
"""MLflow's own default; MLflow 3 no longer accepts its file store."""

ANSWER_LIMIT_S = 5.0
"""The time limit for the first answer of a tracking server; MLflow itself would retry a dead one for minutes."""

_PASSWORD = re.compile(r"(://[^/:@\s]*):[^/@\s]*@")


def resolve_uri(tracking_uri: str | None = None) -> str:
    """Return the given URI, else MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db` in the current directory."""
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI


def open_client(tracking_uri: str | None = None) -> MlflowClient:
    """
    Return a client of the store; initialise a new sqlite store under a lock, because MLflow fails if two processes do it at once.

    Raise `TrackingError` if the store does not answer.
    """
    from filelock import FileLock

    uri = resolve_uri(tracking_uri)
    path = sqlite_path(uri)
    if path is None:
        return _remote_client(uri)
    if not path.parent.is_dir():
        raise TrackingError(
            f"the MLflow store {uri!r} cannot be opened: {path.parent} is not a folder; create it or choose another --tracking-uri"
        )
    with FileLock(path.with_name(f"{path.name}.lock")):
        return _client(f"sqlite:///{path}")


def open_existing(tracking_uri: str | None = None) -> MlflowClient:
    """Return a client for reading; raise `TrackingError`, and create no empty store, if there is none."""
    uri = resolve_uri(tracking_uri)
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise TrackingError(
            f"there is no MLflow store: {path} does not exist; run a benchmark first, or name the store with --tracking-uri or "
            "MLFLOW_TRACKING_URI"
        )
    return open_client(uri)


def shown_uri(uri: str) -> str:
    """Return the URI of a store, or any text with such URIs, without passwords."""
    return _PASSWORD.sub(r"\1:***@", uri)


def is_server(uri: str) -> bool:
    """Tell whether the store is a tracking server, which has a UI of its own."""
    return uri.startswith(("http://", "https://"))


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a sqlite store; None for every other kind of store."""
    prefix = "sqlite:///"
    return Path(uri[len(prefix) :]).absolute() if uri.startswith(prefix) else None


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment, and create it if necessary; in a local store, its artifact folder is next to the store."""
    with translated(f"experiment {name!r}"):
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        path = sqlite_path(str(client.tracking_uri))
        location = (path.parent / "mlruns" / name).as_uri() if path else None
        return str(client.create_experiment(name, artifact_location=location))


def paged(fetch: Callable[[str | None], PagedList[T]]) -> Iterator[T]:
    """Yield the items of all pages; fetch a page, by the token of the one before, only if it is needed."""
    token: str | None = None
    while True:
        page = fetch(token)
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def translated(subject: str) -> Iterator[None]:
    """Turn the errors of MLflow, its database and the network into `TrackingError`, which names the `subject` of the access."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        reason = str(error).strip().split("\n[SQL:", maxsplit=1)[0]  # SQLAlchemy appends the statement and an advertisement
        raise TrackingError(shown_uri(f"the MLflow store could not be used for {subject}: {reason}")) from error


@cache
def _remote_client(uri: str) -> MlflowClient:
    if is_server(uri):
        _check_answers(uri)
    return _client(uri)


def _check_answers(uri: str) -> None:
    """Raise `TrackingError` if nothing answers; any HTTP status is an answer, and so is a certificate, which MLflow checks."""
    address = re.sub(r"://[^/@]*@", "://", uri)
    try:
        urllib.request.urlopen(address, timeout=ANSWER_LIMIT_S).close()  # noqa: S310 - is_server() lets only http and https through
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return
        problem = getattr(reason, "strerror", None) or reason
        raise TrackingError(
            f"the MLflow server {shown_uri(uri)!r} does not answer: {problem}; check the address, or name another store with --tracking-uri"
        ) from error


@cache
def _client(uri: str) -> MlflowClient:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a benchmark contacts only the servers that its user named
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s; with MLflow's own 7 a dead server costs 4 minutes
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
