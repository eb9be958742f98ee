"""The MLflow store: its address, its client, and the folders of its artifacts."""

from __future__ import annotations

import http.client
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
from pytest_pilotscope.places.secret import StoreUri, redact, redact_variables

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.entities import PagedList

T = TypeVar("T")

DEFAULT_URI = "sqlite:///mlflow.db"
"""MLflow's own default; MLflow 3 no longer accepts its file store."""

_ENDS_OF_HTTP = "/?# \t\r\n"  # of the host in an address, so that they cannot be in its password

ANSWER_LIMIT_S = 5.0
"""The time limit for the first answer of a tracking server; MLflow itself would retry a dead one for minutes."""


def resolve_uri(tracking_uri: str | StoreUri | None = None) -> StoreUri:
    """Return the given URI, else MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db` in the current directory."""
    if isinstance(tracking_uri, StoreUri):
        return tracking_uri
    return StoreUri(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)


def open_client(tracking_uri: str | StoreUri | None = None) -> MlflowClient:
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
            f"the MLflow store {str(uri)!r} cannot be opened: {path.parent} is not a folder; create it or choose another --tracking-uri"
        )
    with FileLock(path.with_name(f"{path.name}.lock")):
        return _client(StoreUri(f"sqlite:///{path}"))


def open_existing(tracking_uri: str | StoreUri | None = None) -> MlflowClient:
    """Return a client for reading; raise `TrackingError`, and create no empty store, if there is none."""
    uri = resolve_uri(tracking_uri)
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise TrackingError(
            f"there is no MLflow store: {path} does not exist; run a benchmark first, or name the store with --tracking-uri or "
            "MLFLOW_TRACKING_URI"
        )
    return open_client(uri)


def is_server(uri: StoreUri) -> bool:
    """Tell whether the store is a tracking server, which has a UI of its own."""
    return uri.reveal().startswith(("http://", "https://"))


def sqlite_path(uri: StoreUri) -> Path | None:
    """Return the absolute path of a sqlite store; None for every other kind of store."""
    prefix = "sqlite:///"
    return Path(uri.reveal()[len(prefix) :]).absolute() if uri.reveal().startswith(prefix) else None


def experiment_id(client: MlflowClient, name: str) -> str:
    """Return the id of an experiment, and create it if necessary; in a local store, its artifact folder is next to the store."""
    with translated(f"experiment {name!r}"):
        found = client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        path = sqlite_path(StoreUri(client.tracking_uri))
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
    """
    Turn the errors of MLflow, its database and the network into `TrackingError`, which names the `subject` of the access.

    The error does not lead to theirs: the variables in MLflow's frames hold addresses and headers with passwords and tokens.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
        return
    except (MlflowException, SQLAlchemyError, OSError, ImportError) as error:  # ImportError: the driver of the database
        reason = redact_variables(redact(str(error).strip().split("\n[SQL:", maxsplit=1)[0]))  # what follows is the statement
    raise TrackingError(f"the MLflow store could not be used for {subject}: {reason}")


@cache
def _remote_client(uri: StoreUri) -> MlflowClient:
    if uri.has_unescaped(_ENDS_OF_HTTP if is_server(uri) else "@"):
        raise TrackingError(
            f"cannot read the address {str(uri)!r} of the MLflow store: write special characters before the @ percent-encoded "
            "(@ is %40, / is %2F, ? is %3F, # is %23, a blank is %20)"
        )
    if is_server(uri):
        _check_answers(uri)
    return _client(uri)


def _check_answers(uri: StoreUri) -> None:
    """Raise `TrackingError` if nothing answers; any HTTP status is an answer, and so is a certificate, which MLflow checks."""
    try:
        with urllib.request.urlopen(re.sub(r"://[^/?#]*@", "://", uri.reveal()), timeout=ANSWER_LIMIT_S):  # noqa: S310 - http or https
            return
    except urllib.error.HTTPError:
        return
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            return
        problem = uri.scrub(str(getattr(reason, "strerror", None) or reason))
    raise TrackingError(
        f"the MLflow server {str(uri)!r} does not answer: {problem}; check the address, or name another store with --tracking-uri"
    )


@cache
def _client(uri: StoreUri) -> MlflowClient:
    if str(uri) != uri.reveal():
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # MLflow would print the address of each run with its password
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a benchmark contacts only the servers that its user named
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s; with MLflow's own 7 a dead server costs 4 minutes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside MLflow's own imports
        from mlflow import MlflowClient
    for noisy in ("alembic", "mlflow.store.db.utils", "mlflow.tracking.fluent"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    with warnings.catch_warnings(), translated(repr(str(uri))):
        warnings.simplefilter("ignore")
        client = MlflowClient(tracking_uri=uri.reveal())
        client.search_experiments(max_results=1)
    return client
