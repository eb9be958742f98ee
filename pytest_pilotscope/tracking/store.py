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
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_pilotscope.errors import TrackingError
from pytest_pilotscope.places.secret import StoreUri, redact, redact_variables
from pytest_pilotscope.record.names import file_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.store.entities import PagedList

T = TypeVar("T")
logger = logging.getLogger(__name__)

DEFAULT_URI = "sqlite:///mlflow.db"
"""MLflow's own default; MLflow 3 no longer accepts its file store."""

KIND, TRAINING = "mlflow.experimentKind", "custom_model_development"
"""The tag by which MLflow's UI shows an experiment as training of models, and not as that of agents, whose pages lack our runs."""

_ENDS_OF_HTTP = "/?# \t\r\n"  # of the host in an address, so that they cannot be in its password

ANSWER_LIMIT_S = 5.0
"""The time limit for the first answer of a tracking server; MLflow itself would retry a dead one for minutes."""

LOCK_LIMIT_S = 30.0
"""The time limit for the lock of a local store, which another process holds while it makes the tables."""

SILENT_S = 2.0
"""The time before a line says what is waited for."""

_SCHEMA = "SELECT version_num FROM alembic_version"
_CONNECT_LIMITS = {"sqlite": "timeout", "postgresql": "connect_timeout", "mysql": "connect_timeout"}
"""The option of each kind of database that limits, in seconds, how long opening it takes."""


def resolve_uri(tracking_uri: str | StoreUri | None = None) -> StoreUri:
    """Return the given URI, else MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db` in the current directory."""
    if isinstance(tracking_uri, StoreUri):
        return tracking_uri
    return StoreUri(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI)


def open_client(tracking_uri: str | StoreUri | None = None) -> MlflowClient:
    """
    Return a client of the store; initialise a new sqlite store under a lock, because MLflow fails if two processes do it at once.

    Raise `TrackingError` if the store does not answer, or belongs to another release of MLflow: nobody asked us to migrate it.
    """
    uri = resolve_uri(tracking_uri)
    path = sqlite_path(uri)
    if path is None:
        return _remote_client(uri, new=True)
    if not path.parent.is_dir():
        raise TrackingError(
            f"the MLflow store {str(uri)!r} cannot be opened: {path.parent} is not a folder; create it or choose another --tracking-uri"
        )
    with _locked(path):
        return _local_client(uri, path, new=True)


def open_existing(tracking_uri: str | StoreUri | None = None) -> MlflowClient:
    """Return a client for reading; raise `TrackingError`, and create no empty store, if there is none."""
    if (missing := missing_store(tracking_uri)) is not None:
        raise TrackingError(
            f"there is no MLflow store: {missing} does not exist; run a benchmark first, or name the store with --tracking-uri or "
            "MLFLOW_TRACKING_URI"
        )
    uri = resolve_uri(tracking_uri)
    path = sqlite_path(uri)
    return _remote_client(uri, new=False) if path is None else _local_client(uri, path, new=False)


def missing_store(tracking_uri: str | StoreUri | None = None) -> Path | None:
    """Return the path of a sqlite store that is not there; None for every other store."""
    path = sqlite_path(resolve_uri(tracking_uri))
    return path if path is not None and not path.is_file() else None


def is_server(uri: StoreUri) -> bool:
    """Tell whether the store is a tracking server, which has a UI of its own."""
    return uri.reveal().startswith(("http://", "https://"))


def sqlite_path(uri: StoreUri) -> Path | None:
    """Return the absolute path of a sqlite store; None for every other kind of store."""
    prefix = "sqlite:///"
    return Path(uri.reveal()[len(prefix) :].partition("?")[0]).absolute() if uri.reveal().startswith(prefix) else None


def experiment_id(client: MlflowClient, name: str) -> str:
    """
    Return the id of an experiment, and create it if necessary; in a local store, its artifact folder is next to the store.

    MLflow's UI shows it as training of models, unless somebody has chosen another kind.
    """
    with translated(f"experiment {name!r}"):
        found = client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            raise TrackingError(
                f"experiment {name!r} was deleted in the MLflow store; restore it (`mlflow experiments restore --experiment-id "
                f"{found.experiment_id}`), or remove it for good (`mlflow gc`)"
            )
        if found is not None:
            if KIND not in found.tags:
                client.set_experiment_tag(found.experiment_id, KIND, TRAINING)
            return str(found.experiment_id)
        path = sqlite_path(StoreUri(client.tracking_uri))
        location = (path.parent / "mlruns" / file_name(name)).as_uri() if path else None
        return str(client.create_experiment(name, artifact_location=location, tags={KIND: TRAINING}))


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


def check_not_silent(client: MlflowClient) -> None:
    """Raise `TrackingError` if a tracking server accepts connections and does not answer; MLflow would ask it again and again."""
    uri = StoreUri(client.tracking_uri)
    if is_server(uri) and isinstance(problem := _no_answer(uri), TimeoutError):
        raise _silent(uri, problem)


@cache
def _remote_client(uri: StoreUri, *, new: bool) -> MlflowClient:
    if uri.has_unescaped(_ENDS_OF_HTTP if is_server(uri) else "@"):
        raise TrackingError(
            f"cannot read the address {str(uri)!r} of the MLflow store: write special characters before the @ percent-encoded "
            "(@ is %40, / is %2F, ? is %3F, # is %23, a blank is %20)"
        )
    if not is_server(uri):
        _check_schema(uri, new=new)
    elif (problem := _no_answer(uri)) is not None:
        raise _silent(uri, problem)
    return _client(uri)


def _silent(uri: StoreUri, problem: object) -> TrackingError:
    reason = uri.scrub(str(getattr(problem, "strerror", None) or problem))
    return TrackingError(
        f"the MLflow server {str(uri)!r} does not answer: {reason}; check the address, or name another store with --tracking-uri"
    )


def _no_answer(uri: StoreUri) -> object:
    """Return the reason why a server does not answer; any HTTP status is an answer, and so is a certificate, which MLflow checks."""
    address = re.sub(r"://[^/?#]*@", "://", uri.reveal())

    def ask(limit_s: float) -> None:
        try:
            urllib.request.urlopen(address, timeout=limit_s).close()  # noqa: S310 - is_server() lets only http and https through
        except urllib.error.HTTPError:
            return
        except urllib.error.URLError as error:  # hides a timeout
            raise error.reason if isinstance(error.reason, OSError) else error from error

    try:
        _patiently(ask, TimeoutError, f"the MLflow server {str(uri)!r}", ANSWER_LIMIT_S)
    except ssl.SSLCertVerificationError:
        return None
    except (OSError, ValueError, HTTPException) as error:
        return error
    return None


def _patiently(attempt: Callable[[float], T], late: type[Exception], what: str, limit_s: float) -> T:
    """Attempt something for a moment, and, if that is too `late`, say what is waited for and attempt it until the limit."""
    try:
        return attempt(SILENT_S)
    except late:
        logger.warning("waiting for %s, at most %.0f s", what, limit_s)
        return attempt(limit_s)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of a local store; raise `TrackingError` if another process keeps it, or it cannot be made."""
    from filelock import FileLock, Timeout

    lock = FileLock(path.with_name(f"{path.name}.lock"))
    try:
        _patiently(lambda limit_s: lock.acquire(timeout=limit_s), Timeout, f"the lock {lock.lock_file} of the MLflow store", LOCK_LIMIT_S)
    except Timeout:
        raise TrackingError(
            f"the MLflow store {path} is in use: another process has held {lock.lock_file} for {LOCK_LIMIT_S:.0f} s; end that process"
        ) from None
    except OSError as error:
        raise TrackingError(
            f"the MLflow store {path} cannot be opened: {lock.lock_file}: {error.strerror}; choose another --tracking-uri"
        ) from error
    try:
        yield
    finally:
        lock.release()


@cache
def _local_client(uri: StoreUri, path: Path, *, new: bool) -> MlflowClient:
    """
    Return the client of a sqlite store. SQLAlchemy and MLflow read `%`, `?` and `#` in a path as parts of a URI.

    A store below the current directory has a path without the names of the folders around it.
    """
    inside = path.relative_to(Path.cwd()) if set("%?#") & set(str(path)) and path.is_relative_to(Path.cwd()) else path
    if set("%?#") & set(str(inside)):
        raise TrackingError(
            f"the MLflow store {str(path)!r} cannot be opened: MLflow takes no path with %, ? or #; choose another --tracking-uri"
        )
    if (path.is_file() and path.stat().st_size) or not new:
        url = f"sqlite:///file:{path.as_uri().removeprefix('file://')}?mode=ro&uri=true"
        _check_schema(StoreUri(url), new=new, shown=f"sqlite:///{path}")
    query = uri.reveal().partition("?")[2]
    return _client(StoreUri(f"sqlite:///{inside}{f'?{query}' if query else ''}"))


def _check_schema(uri: StoreUri, *, new: bool, shown: str | None = None) -> None:
    """Raise `TrackingError` unless a database is a store of this release of MLflow, or empty where a `new` store may be made."""
    from mlflow.store.db import utils
    from sqlalchemy import create_engine, inspect, text
    from sqlalchemy.exc import OperationalError
    from sqlalchemy.pool import NullPool

    shown = shown or str(uri)
    limit = next((name for name in _CONNECT_LIMITS if uri.reveal().startswith(name)), None)

    def read(limit_s: float) -> str | None:
        limited = {_CONNECT_LIMITS[limit]: round(limit_s)} if limit else {}
        with create_engine(uri.reveal(), connect_args=limited, poolclass=NullPool).connect() as connection:
            tables = inspect(connection).get_table_names()
            return str(connection.scalar(text(_SCHEMA))) if "alembic_version" in tables else None if tables or not new else ""

    with translated(repr(shown)):
        found = _patiently(read, OperationalError, f"the MLflow store {shown!r}", ANSWER_LIMIT_S)
        head = utils._get_latest_schema_revision()  # type: ignore[no-untyped-call]  # MLflow has no type information
    if found is None:
        raise TrackingError(f"{shown} is no MLflow store: it has no table alembic_version; name the store with --tracking-uri")
    if found in ("", head):
        return
    known = any((Path(utils.__file__).parents[1] / "db_migrations" / "versions").glob(f"{found}_*"))
    if not known:
        raise TrackingError(f"the MLflow store {shown} was written by a newer release of MLflow (schema {found}); install that release")
    raise TrackingError(
        f"the MLflow store {shown} was written by an older release of MLflow (schema {found}); back it up, then migrate it with "
        f"`mlflow db upgrade {shown}`"
    )


@cache
def _client(uri: StoreUri) -> MlflowClient:
    if str(uri) != uri.reveal():
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"  # MLflow would print the address of each run with its password
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a benchmark contacts only the servers that its user named
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")  # 14 s; with MLflow's own 7 a dead server costs 4 minutes
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # of each attempt; MLflow's own are 2 minutes
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
