"""The labels of a data set in an SQLite file, written while they are computed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, TypeAlias

from pytest_pilotscope.errors import LabelError
from pytest_pilotscope.places.privatefiles import open_private, private_folder

LABELS_FILE = "labels.sqlite"
_FORMAT = "2"
_LOOKED_UP_AT_ONCE = 500  # below SQLite's limit of parameters
_TABLES = """
    CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS labels (
        subplan BLOB PRIMARY KEY, rows TEXT, source TEXT NOT NULL, timeout_ms INTEGER NOT NULL
    ) WITHOUT ROWID;
"""

# Another process may have finished a count meanwhile that this one did not.
_STORE = """
    INSERT INTO labels VALUES (?, ?, ?, ?) ON CONFLICT (subplan) DO UPDATE
    SET rows = excluded.rows, source = excluded.source, timeout_ms = excluded.timeout_ms WHERE labels.rows IS NULL
"""

Source: TypeAlias = Literal["memory", "postgres"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """
    The true cardinality of a subplan.

    `rows` is None when PostgreSQL did not finish counting within `timeout_ms`; it may exceed 64 bits. `source` says who counted.
    """

    rows: int | None
    source: Source
    timeout_ms: int = 0

    @property
    def finished(self) -> bool:
        """True unless PostgreSQL was stopped while it counted."""
        return self.rows is not None

    def answers(self, timeout_ms: int) -> bool:
        """Tell whether counting again with this limit (0: none) is useless."""
        return self.finished or (self.timeout_ms >= timeout_ms > 0)


class LabelCache:
    """
    Labels of one data set by the canonical name of their subplan; a context manager.

    Labels that were written survive a kill of the process. Processes may share the file.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.path = private_folder(folder) / LABELS_FILE
        if not self.path.exists():  # SQLite gives its other files the mode of this one
            open_private(self.path, "ab").close()
        try:
            self._connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            try:
                self._open(fingerprint)
            except BaseException:
                self._connection.close()
                raise
        except sqlite3.DatabaseError as error:
            raise LabelError(
                f"the label cache {self.path} cannot be read ({error}): remove it, and the labels are computed again"
            ) from error

    def __enter__(self) -> LabelCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._connection.close()

    def _open(self, fingerprint: str) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_TABLES)
        for name, value in (("format", _FORMAT), ("fingerprint", fingerprint)):
            self._connection.execute("INSERT OR IGNORE INTO about VALUES (?, ?)", (name, value))
        about = dict(self._connection.execute("SELECT name, value FROM about").fetchall())
        if about["fingerprint"] != fingerprint:
            raise LabelError(
                f"the label cache {self.path} belongs to other data: it was made for fingerprint {about['fingerprint']}, "
                f"and the data at hand has {fingerprint}; use another folder or remove this one"
            )
        if about["format"] != _FORMAT:
            raise LabelError(
                f"the label cache {self.path} has format {about['format']}, and this version reads format {_FORMAT}: remove it"
            )

    def look_up(self, names: Iterable[bytes]) -> dict[bytes, Label]:
        """Return the labels in the file for some names, by name."""
        wanted = list(names)
        found: dict[bytes, Label] = {}
        with closing(self._connection.cursor()) as cursor:
            for start in range(0, len(wanted), _LOOKED_UP_AT_ONCE):
                part = wanted[start : start + _LOOKED_UP_AT_ONCE]
                marks = ", ".join("?" * len(part))
                cursor.execute(f"SELECT subplan, rows, source, timeout_ms FROM labels WHERE subplan IN ({marks})", part)  # noqa: S608  # marks only
                for name, rows, source, timeout_ms in cursor:
                    found[name] = Label(rows=None if rows is None else int(rows), source=source, timeout_ms=timeout_ms)
        return found

    def store(self, labels: Mapping[bytes, Label]) -> None:
        """Write labels, in one transaction; a finished one replaces an unfinished one."""
        values = [(name, None if label.rows is None else str(label.rows), label.source, label.timeout_ms) for name, label in labels.items()]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(_STORE, values)
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")
