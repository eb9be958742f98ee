"""
Reading experiments and runs from a local store without MLflow, whose import alone takes seconds.

It reads only the tables of the installed release of MLflow; the client of MLflow reads all other stores, and says what is wrong with them.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pytest_pilotscope.tracking.tracker import moment

T = TypeVar("T")

_REVISION = re.compile(r"^(down_)?revision\s*(?::[^=]+)?=\s*[\"'](\w+)[\"']", re.MULTILINE)
_ACTIVE = "SELECT experiment_id, name FROM experiments WHERE lifecycle_stage = 'active'"
_NEWEST = """
SELECT run_uuid, name, status, start_time, end_time, artifact_uri FROM runs
WHERE experiment_id = ? AND lifecycle_stage = 'active' ORDER BY start_time DESC, run_uuid LIMIT ?
"""


def read_experiments(path: Path, *, limit: int) -> list[tuple[str, int, Mapping[str, Any] | None]] | None:
    """
    Return name, number of runs (counted up to `limit`) and newest run, in the form of `list_runs`, of every experiment.

    Return None if the file is not a store of the installed release of MLflow.
    """
    return _read(path, lambda store: list(_experiments(store, limit)))


def read_runs(path: Path, experiment: str, *, limit: int | None) -> tuple[list[str], list[dict[str, Any]]] | None:
    """
    Return the names of all experiments, and the runs of one (none if it does not exist), newest first, in the form of `list_runs`.

    Return None if the file is not a store of the installed release of MLflow.
    """

    def read(store: sqlite3.Connection) -> tuple[list[str], list[dict[str, Any]]]:
        identifiers = {name: identifier for identifier, name in store.execute(_ACTIVE).fetchall()}
        runs = store.execute(_NEWEST, (identifiers.get(experiment), limit or -1)).fetchall()
        return list(identifiers), [_flat(store, run) for run in runs]

    return _read(path, read)


def _read(path: Path, read: Callable[[sqlite3.Connection], T]) -> T | None:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as store:
            if store.execute("SELECT version_num FROM alembic_version").fetchall() != [(_installed_schema(),)]:
                return None
            return read(store)
    except sqlite3.Error:
        return None


def _experiments(store: sqlite3.Connection, limit: int) -> Iterator[tuple[str, int, Mapping[str, Any] | None]]:
    for identifier, name in store.execute(_ACTIVE).fetchall():
        runs = store.execute(_NEWEST, (identifier, limit)).fetchall()
        yield name, len(runs), _flat(store, runs[0]) if runs else None


def _flat(store: sqlite3.Connection, run: tuple[Any, ...]) -> dict[str, Any]:
    run_id, name, status, start_ms, end_ms, artifact_uri = run
    metrics = store.execute("SELECT key, CASE WHEN is_nan THEN NULL ELSE value END FROM latest_metrics WHERE run_uuid = ?", (run_id,))
    params = store.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run_id,))
    tags = store.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run_id,))
    return {
        "run_id": run_id,
        "run_name": name,
        "status": status,
        "start_time": moment(start_ms),
        "end_time": moment(end_ms),
        "artifact_uri": artifact_uri,
        **{f"metrics.{key}": float("nan") if value is None else value for key, value in metrics},
        **{f"params.{key}": value for key, value in params},
        **{f"tags.{key}": value for key, value in tags},
    }


@cache
def _installed_schema() -> str | None:
    """Return the newest revision of the tables among MLflow's migrations: the one that no other follows."""
    package = find_spec("mlflow")
    folders = package.submodule_search_locations if package else None
    texts = [
        file.read_text(encoding="utf-8") for folder in folders or () for file in Path(folder).glob("store/db_migrations/versions/*.py")
    ]
    found = [(bool(down), revision) for text in texts for down, revision in _REVISION.findall(text)]
    newest = {revision for down, revision in found if not down} - {revision for down, revision in found if down}
    return newest.pop() if len(newest) == 1 else None
