"""Stores that do not answer, are in use, belong to another release, or lie in folders with strange names."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from filelock import FileLock

from pytest_pilotscope.errors import TrackingError, UsageError
from pytest_pilotscope.record.names import file_name
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.runs.header import _free_name
from pytest_pilotscope.tracking import store as stores
from pytest_pilotscope.tracking.store import open_client, open_existing
from pytest_pilotscope.tracking.tracker import MLflowTracker


def _store(folder: Path) -> str:
    """Make a store with one experiment."""
    uri = f"sqlite:///{folder}/mlflow.db"
    MLflowTracker("known", "run", tracking_uri=uri).start().end("FINISHED")
    stores._local_client.cache_clear()
    return uri


def _schema(folder: Path, version: str) -> None:
    with closing(sqlite3.connect(folder / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))


@pytest.fixture(autouse=True)
def _short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SILENT_S", "ANSWER_LIMIT_S", "LOCK_LIMIT_S"):
        monkeypatch.setattr(stores, name, 0.3)


def test_a_server_that_accepts_and_never_answers(caplog: pytest.LogCaptureFixture) -> None:
    """A line says what is waited for; then the error names the server and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        message = f"the MLflow server {url!r} does not answer: timed out; check the address, or name another store with --tracking-uri"
        with pytest.raises(TrackingError, match=f"^{re.escape(message)}$"):
            open_client(url)
    assert caplog.messages == [f"waiting for the MLflow server {url!r}, at most 0 s"]


@pytest.mark.slow
def test_a_lock_that_another_process_holds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line says what is waited for; then the error names the lock and what to do. Reading needs no lock."""
    uri = _store(tmp_path)
    lock = f"{tmp_path}/mlflow.db.lock"
    with FileLock(lock, is_singleton=False):
        message = f"the MLflow store {tmp_path}/mlflow.db is in use: another process has held {lock} for 0 s; end that process"
        with pytest.raises(TrackingError, match=f"^{re.escape(message)}$"):
            open_client(uri)
        assert open_existing(uri).get_experiment_by_name("known") is not None
    assert caplog.messages == [f"waiting for the lock {lock} of the MLflow store, at most 0 s"]


@pytest.mark.parametrize("opened", [open_client, open_existing])
@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("ffffffffffff", "was written by a newer release of MLflow (schema ffffffffffff); install that release"),
        (
            "0584bdc529eb",
            "was written by an older release of MLflow (schema 0584bdc529eb); back it up, then migrate it with `mlflow db upgrade {uri}`",
        ),
    ],
)
def test_a_store_of_another_release_is_not_migrated(opened: type, version: str, message: str, tmp_path: Path) -> None:
    """Neither reading nor writing changes it, and the error says which release wrote it."""
    uri = _store(tmp_path)
    _schema(tmp_path, version)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("DROP TABLE registered_model_aliases")  # a release that lacks a table would be migrated by MLflow
    before = (tmp_path / "mlflow.db").read_bytes()
    with pytest.raises(TrackingError, match=f"^{re.escape(f'the MLflow store {uri} {message.format(uri=uri)}')}$"):
        opened(uri)
    assert (tmp_path / "mlflow.db").read_bytes() == before


def test_the_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """MLflow would add its tables to it."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE mine (id int)")
    before = path.read_bytes()
    message = f"sqlite:///{path} is no MLflow store: it has no table alembic_version; name the store with --tracking-uri"
    for opened in (open_client, open_existing):
        with pytest.raises(TrackingError, match=f"^{re.escape(message)}$"):
            opened(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_missing_driver_is_an_error_of_the_store() -> None:
    """It names the module."""
    with pytest.raises(TrackingError, match=r"^the MLflow store could not be used for 'oracle://host/db': No module named '.*oracle.*'$"):
        open_client("oracle://host/db")


def test_a_deleted_experiment_is_named(tmp_path: Path) -> None:
    """The error says how to get it back, or rid of it."""
    uri = _store(tmp_path)
    client = open_client(uri)
    identifier = client.get_experiment_by_name("known").experiment_id  # type: ignore[union-attr]  # it was just made
    client.delete_experiment(identifier)
    message = (
        f"experiment 'known' was deleted in the MLflow store; restore it (`mlflow experiments restore --experiment-id {identifier}`), or "
        "remove it for good (`mlflow gc`)"
    )
    with pytest.raises(TrackingError, match=f"^{re.escape(message)}$"):
        MLflowTracker("known", "again", tracking_uri=uri).start()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a%2Fb", "a?b", "a#b", "50%", "a b", "ä"])
def test_the_default_store_is_in_the_current_folder_whatever_its_name(name: str, tmp_path: Path) -> None:
    """Run and artifact are there, and nothing is beside the folder."""
    folder = tmp_path / name
    folder.mkdir()
    program = (
        "from pathlib import Path; from pytest_pilotscope.tracking.tracker import MLflowTracker as T; Path('x.txt').touch()\n"
        "t = T('e', 'r').start(); t.log_artifact(Path('x.txt')); t.end('FINISHED'); print(len(T.list_runs('e')))"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    made = subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert made.stdout.strip() == "1", made.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["mlflow.db", "mlflow.db.lock", "mlruns", "x.txt"]
    assert len(list(folder.glob("mlruns/**/x.txt"))) == 1
    assert list(tmp_path.iterdir()) == [folder]


def test_another_folder_with_such_a_name_is_refused(tmp_path: Path) -> None:
    """MLflow would read a part of the path as something else."""
    uri = f"sqlite:///{tmp_path}/a%2Fb/mlflow.db"
    (tmp_path / "a%2Fb").mkdir()
    refused = "cannot be opened: MLflow takes no path with %, ? or #; choose another --tracking-uri"
    message = f"the MLflow store '{tmp_path}/a%2Fb/mlflow.db' {refused}"
    with pytest.raises(TrackingError, match=f"^{re.escape(message)}$"):
        open_client(uri)


@pytest.mark.parametrize("name", ["a/b", "..", "", "a[b", "x" * 300, "ä" * 200, "a\x00b", ".hidden", "../../etc"])
def test_any_name_becomes_a_name_of_a_file(name: str, tmp_path: Path) -> None:
    """It is one file in the folder, and two names stay two."""
    path = tmp_path / f"baseline_{file_name(name)}_20260101_000000.jsonl"
    path.touch()
    assert path.parent.resolve() == tmp_path.resolve()
    assert list(tmp_path.iterdir()) == [path]
    assert file_name(name) != file_name(f"{name}_")


def test_a_plain_name_stays() -> None:
    """Records of databases with ordinary names are called as before."""
    assert file_name("stats_tiny") == "stats_tiny"


@pytest.mark.parametrize("name", ["a[b", "a*", "plain"])
def test_a_taken_name_gets_a_number(name: str, tmp_path: Path) -> None:
    """Also where a glob pattern would not find the file."""
    (tmp_path / f"{name}.jsonl").touch()
    (tmp_path / f"{name}_2.jsonl").symlink_to("nowhere")
    assert _free_name(name, tmp_path) == f"{name}_3"


@pytest.mark.parametrize("name", ["a/b", "..", "", "a[b", "a b", "x" * 61, "-a"])
def test_a_registered_name_is_plain(name: str) -> None:
    """The error names the rule; names are parts of files, experiments and options."""
    message = (
        f"algorithm {name!r} (registered by here): a name has 1 to 60 letters (a-z), digits, _, ., + and -, and does not begin with the "
        "last three; rename it"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        Registry().add_algorithm(name, "module:Class", origin="here")
