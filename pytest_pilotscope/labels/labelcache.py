"""
The labels of a data set in an SQLite file, written while they are computed.

Each label has a checksum. A damaged label, and all labels of a damaged file, are forgotten, with a warning, and counted again.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias, TypeVar

from pytest_pilotscope.errors import LabelError, counted
from pytest_pilotscope.places.cacheentries import locked, remove, usable_folder
from pytest_pilotscope.places.privatefiles import open_private

LABELS_FILE = "labels.sqlite"
FORMAT = "3"
_LOOKED_UP_AT_ONCE = 500  # below SQLite's limit of parameters
_TABLES = (
    "CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS labels (
        subplan BLOB PRIMARY KEY, rows TEXT, source TEXT NOT NULL, timeout_ms INTEGER NOT NULL, checksum BLOB NOT NULL
    ) WITHOUT ROWID""",
)

_LOOK_UP = "SELECT subplan, rows, source, timeout_ms, checksum FROM labels WHERE subplan IN ({})"

# Another process may have finished a count meanwhile that this one did not.
_STORE = """
    INSERT INTO labels VALUES (?, ?, ?, ?, ?) ON CONFLICT (subplan) DO UPDATE
    SET rows = excluded.rows, source = excluded.source, timeout_ms = excluded.timeout_ms,
        checksum = excluded.checksum WHERE labels.rows IS NULL
"""

# Not the file's fault: its other files, the machine, or another process stand in the way.
_NO_DAMAGE = ("database is locked", "database table is locked", "database or disk is full", "disk I/O error", "out of memory")

T = TypeVar("T")
logger = logging.getLogger(__name__)

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
        self.path = usable_folder(folder) / LABELS_FILE
        self._fingerprint = fingerprint
        self._inode = 0
        try:
            self._connection = self._opened()
        except OSError as error:
            raise LabelError(
                f"the label cache {self.path} cannot be made: {error.strerror}; set PILOTSCOPE_CACHE to a folder that can be written"
            ) from error

    def __enter__(self) -> LabelCache:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._connection.close()

    def _opened(self, damage: sqlite3.DatabaseError | None = None) -> sqlite3.Connection:
        """Open the file; make it again if it is damaged. SQLite does not wait for a process that makes it, so a lock does."""
        with locked(self.path.with_suffix(".lock"), f"opens {self.path}", logger):
            if damage is not None:
                self._discard(damage)
            try:
                try:
                    return self._connected()
                except sqlite3.DatabaseError as error:
                    self._discard(error)
                    return self._connected()
            except sqlite3.DatabaseError as error:
                raise self._unusable(error) from error

    def _discard(self, error: sqlite3.DatabaseError) -> None:
        """Remove a damaged file, unless another process did."""
        self._check_damage(error)
        try:
            if self.path.exists() and self.path.stat().st_ino == self._inode:
                logger.warning("the label cache %s cannot be read (%s): its labels are counted again", self.path, error)
                for suffix in ("", "-wal", "-shm", "-journal"):
                    remove(self.path.with_name(self.path.name + suffix))
        except OSError as failure:
            raise LabelError(f"the label cache {self.path} is damaged ({error}) and cannot be removed: {failure.strerror}") from error

    def _check_damage(self, error: sqlite3.DatabaseError) -> None:
        """Raise `LabelError` if the file is not to blame for an error."""
        if str(error).startswith(_NO_DAMAGE):
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.DatabaseError) -> LabelError:
        return LabelError(
            f"the label cache {self.path} cannot be used ({error}): if another process holds it, end that one; otherwise look at its disk"
        )

    def _connected(self) -> sqlite3.Connection:
        if not self.path.exists():  # SQLite gives its other files the mode of this one
            open_private(self.path, "ab").close()
        self._inode = self.path.stat().st_ino
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        connection.text_factory = lambda text: text.decode(errors="replace")  # of a damaged label
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            with _transaction(connection):
                self._check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        """Make the tables if they are missing; raise for a file of other data or of another version."""
        for table in _TABLES:
            connection.execute(table)
        ours = {"format": FORMAT, "fingerprint": self._fingerprint}
        ours["checksum"] = _checksum(*ours.values()).hex()
        if not connection.execute("SELECT 1 FROM about UNION ALL SELECT 1 FROM labels").fetchone():
            connection.executemany("INSERT INTO about VALUES (?, ?)", ours.items())
        about = dict(connection.execute("SELECT name, value FROM about").fetchall())
        if about == ours:
            return
        if about.get("format") != FORMAT:
            raise sqlite3.DatabaseError(f"its format is {about.get('format')}, this version reads {FORMAT}")
        if about.get("checksum") != _checksum(FORMAT, about.get("fingerprint")).hex():
            raise sqlite3.DatabaseError("its description does not fit its checksum")
        raise LabelError(
            f"the label cache {self.path} belongs to other data: it was made for fingerprint {about['fingerprint']}, "
            f"and the data at hand has {self._fingerprint}; use another folder or remove this one"
        )

    def _tried(self, work: Callable[[], T]) -> T:
        """Use the file; if it turns out to be damaged, make it again and use that one."""
        try:
            return work()
        except sqlite3.DatabaseError as error:
            self._check_damage(error)
            self._connection.close()
            self._connection = self._opened(error)
        try:
            return work()
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def look_up(self, names: Iterable[bytes]) -> dict[bytes, Label]:
        """Return the labels in the file for some names, by name; forget damaged ones."""
        wanted = list(names)
        return self._tried(lambda: self._looked_up(wanted))

    def _looked_up(self, wanted: Sequence[bytes]) -> dict[bytes, Label]:
        found: dict[bytes, Label] = {}
        damaged: list[tuple[bytes]] = []
        with closing(self._connection.cursor()) as cursor:
            for start in range(0, len(wanted), _LOOKED_UP_AT_ONCE):
                part = wanted[start : start + _LOOKED_UP_AT_ONCE]
                marks = ", ".join("?" * len(part))
                cursor.execute(_LOOK_UP.format(marks), part)
                for name, rows, source, timeout_ms, checksum in cursor:
                    if checksum == _checksum(name, rows, source, timeout_ms):
                        found[name] = Label(rows=None if rows is None else int(rows), source=source, timeout_ms=timeout_ms)
                    else:
                        damaged.append((name,))
        if damaged:
            logger.warning("%s in %s: counted again", counted(len(damaged), "damaged label"), self.path)
            with _transaction(self._connection):
                self._connection.executemany("DELETE FROM labels WHERE subplan = ?", damaged)
        return found

    def store(self, labels: Mapping[bytes, Label]) -> None:
        """Write labels, in one transaction; a finished one replaces an unfinished one."""
        rows = [(name, None if label.rows is None else str(label.rows), label.source, label.timeout_ms) for name, label in labels.items()]
        self._tried(lambda: self._stored([(*row, _checksum(*row)) for row in rows]))

    def _stored(self, rows: Iterable[tuple[Any, ...]]) -> None:
        with _transaction(self._connection):
            self._connection.executemany(_STORE, rows)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite may have ended it
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _checksum(*values: Any) -> bytes:
    return hashlib.blake2b(repr(values).encode(), digest_size=8).digest()
