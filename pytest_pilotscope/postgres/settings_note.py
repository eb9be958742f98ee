"""
The note of the settings that a run changes with ALTER SYSTEM: it is on disk before the server is changed, and outlives a killed run.

    settings/<system identifier>-<hash>.json    {"server": {...}, "before": {name: entry or null}, "ours": {name: [entries that we made]}}
    settings/<system identifier>-<hash>.lock    locked by the process that changes settings of that server

A note belongs to one server. Physical copies and replicas have the same system identifier, so the address, the data directory and the start
of the postmaster tell them apart. After a restart it is still the same server if the files of the data directory are the same ones: no copy
keeps the time at which a file's inode was changed, and nobody changes PG_VERSION.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.folders import cache_subfolder
from pytest_pilotscope.places.privatefiles import open_private, private_folder
from pytest_pilotscope.postgres.session import Session

_IDENTITY = """
    SELECT system_identifier::text, host(inet_server_addr()), current_setting('port'),
        (SELECT setting FROM pg_settings WHERE name = 'data_directory'),
        to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US'),
        has_function_privilege('pg_stat_file(text)', 'EXECUTE')
    FROM pg_control_system()
"""
_MADE = "SELECT to_char(change AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM pg_stat_file('PG_VERSION')"
_THIS_MACHINE = (None, "127.0.0.1", "::1")
"""The address of a server that is reached by a socket is None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """
    One start of one server.

    `address` is host and port, with this machine's name for its own sockets. `data_directory`, and `made`, the time at which its files were
    made, are empty where the role may not read them. Times are in UTC.
    """

    system: str
    address: str
    data_directory: str
    started: str
    made: str

    def __str__(self) -> str:
        return f"{self.address}, data directory {self.data_directory or 'unknown'}, started {self.started} UTC"

    def is_same(self, other: ServerIdentity) -> bool:
        """Tell whether this is the other server, perhaps restarted. A data directory that is unknown is no difference."""
        unknown = not (self.data_directory and other.data_directory)
        place = (self.system, self.address) == (other.system, other.address) and (unknown or self.data_directory == other.data_directory)
        return place and (self.started == other.started or bool(self.made and self.made == other.made))

    def may_be(self, other: ServerIdentity) -> bool:
        """Tell whether this is perhaps the other server, with new files or reached by another address."""
        return self.data_directory == other.data_directory and (self.address == other.address or self.started == other.started)


def identity(session: Session) -> ServerIdentity:
    """Return the identity of the server behind a session."""
    system, host, port, data_directory, started, may_look = session.execute(_IDENTITY)[0]
    address = f"{socket.gethostname() if host in _THIS_MACHINE else host}:{port}"
    made = session.scalar(_MADE) if may_look else None
    return ServerIdentity(system=system, address=address, data_directory=data_directory or "", started=started, made=made or "")


@dataclass(slots=True, kw_only=True)
class SettingsNote:
    """The entries that a server had before, None for no entry, and those that we made; `path` is the file."""

    path: Path
    server: ServerIdentity
    before: dict[str, str | None]
    ours: dict[str, list[str]]

    def add(self, session: Session, knobs: Mapping[str, str]) -> None:
        """Note entries that are about to be made by `session`; raise ServerError if it leads to another server by now."""
        found = identity(session)
        if not found.is_same(self.server):
            raise ServerError(f"settings of another server would be changed: the note {self.path} is of {self.server}, found {found}")
        for name, value in knobs.items():
            if value not in self.ours[name]:
                self.ours[name].append(value)
        self.write()

    def write(self) -> None:
        """Write the whole note or nothing, even when the machine stops."""
        half = self.path.with_suffix(".half")
        with open_private(half, "w") as file:
            json.dump({"server": asdict(self.server), "before": self.before, "ours": self.ours}, file)
            file.flush()
            os.fsync(file.fileno())
        half.rename(self.path)


def note_path(server: ServerIdentity) -> Path:
    """Return the file of a server's note."""
    digest = hashlib.sha256("\0".join((server.address, server.data_directory, server.made or server.started)).encode()).hexdigest()[:12]
    return _folder() / f"{server.system}-{digest}.json"


def notes_of(system: str) -> list[Path]:
    """Return the notes of a server and of its copies."""
    return sorted(_folder().glob(f"{system}*.json"))


def any_notes() -> bool:
    """Tell whether there are notes at all; most servers are never asked."""
    return any(_folder().glob("*.json"))


def read_note(path: Path) -> SettingsNote:
    """Read a note; raise ServerError, with the file, when it cannot be read."""
    try:
        content = json.loads(path.read_text())
        return SettingsNote(
            path=path,
            server=ServerIdentity(**{str(name): str(value) for name, value in content["server"].items()}),
            before={str(name): None if value is None else str(value) for name, value in content["before"].items()},
            ours={str(name): [str(value) for value in values] for name, values in content["ours"].items()},
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ServerError(
            f"the note of a server's old settings {path} cannot be read ({type(error).__name__}: {error}); put them back by hand and "
            "delete it"
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Lock a note and yield True, or False when another process has it; the lock ends with the process, even a killed one."""
    private_folder(path.parent)
    with open_private(path.with_suffix(".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _folder() -> Path:
    return cache_subfolder("settings")
