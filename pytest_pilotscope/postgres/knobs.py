"""
Read settings of a server with their limits, apply each at the level it needs, and put them back.

A setting for sessions is set in this session only. One that the server re-reads is set with ALTER SYSTEM; its old value is noted on disk
first, so that it comes back even when this process is killed. `Server.restart` applies those that need a restart.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from psycopg2 import sql

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.folders import cache_subfolder
from pytest_pilotscope.places.privatefiles import open_private, private_folder
from pytest_pilotscope.postgres.session import Session

Level = Literal["session", "reload", "restart"]
LEVELS: tuple[Level, ...] = ("session", "reload", "restart")
"""The levels at which a change takes effect, cheapest first."""

RELOAD_LIMIT_S = 10.0
"""Time limit for a server to re-read its configuration; it needs a few ms."""

_POLL_S = 0.005
_CONTEXTS: Mapping[str, Level] = {
    "user": "session",
    "superuser": "session",
    "backend": "session",
    "superuser-backend": "session",
    "sighup": "reload",
    "postmaster": "restart",
}
_UNIT_BYTES = {"B": 1, "kB": 1 << 10, "8kB": 8 << 10, "16kB": 16 << 10, "32kB": 32 << 10, "MB": 1 << 20, "16MB": 16 << 20, "GB": 1 << 30}
_KNOBS = """
    SELECT name, reset_val, unit, vartype, context, min_val, max_val, enumvals FROM pg_settings
    WHERE name = ANY (%s) ORDER BY name
"""
_ENTRIES = "SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf' ORDER BY seqno"
_MAY_ALTER_SYSTEM = """
    SELECT rolsuper AND coalesce(current_setting('allow_alter_system', true), 'on') = 'on' FROM pg_roles WHERE rolname = current_user
"""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobRow:
    """
    A setting as `pg_settings` has it. `value` is that of a new session, in the setting's own unit.

    `low` and `high` are PostgreSQL's own limits, None for anything but numbers; `choices` are the values of an enum, and on and off.
    """

    name: str
    value: str
    unit: str | None
    kind: Literal["bool", "integer", "real", "string", "enum"]
    level: Level
    low: float | None
    high: float | None
    choices: tuple[str, ...]

    @property
    def unit_bytes(self) -> int | None:
        """Bytes in one of its unit; None when it is no amount of memory."""
        return _UNIT_BYTES.get(self.unit or "")


def read_knobs(session: Session, names: Sequence[str]) -> dict[str, KnobRow]:
    """Return those of the named settings that this server has, by name, without internal ones, which nobody can change."""
    return {
        name: KnobRow(
            name=name,
            value=value,
            unit=unit,
            kind=kind,
            level=_CONTEXTS[context],
            low=float(low) if low is not None else None,
            high=float(high) if high is not None else None,
            choices=("on", "off") if kind == "bool" else tuple(choices or ()),
        )
        for name, value, unit, kind, context, low, high, choices in session.execute(_KNOBS, (list(names),))
        if context in _CONTEXTS
    }


def set_session_knobs(session: Session, knobs: Mapping[str, str]) -> None:
    """Set settings for the rest of the session, in their own units; raise StatementFailed for a value that PostgreSQL rejects."""
    if knobs:
        calls = ", ".join("set_config(%s, %s, false)" for _ in knobs)
        session.execute(f"SELECT {calls}", [part for pair in knobs.items() for part in pair])


def may_alter_system(session: Session) -> bool:
    """Tell whether this role may use ALTER SYSTEM on this server, and the user did not forbid writing there."""
    return not session.read_only and bool(session.scalar(_MAY_ALTER_SYSTEM))


class SystemKnobs:
    """
    Settings of the whole server, changed with ALTER SYSTEM; made by `system_knobs`.

    Only names that were announced can be set: their old entries are noted on disk.
    """

    def __init__(self, before: Mapping[str, str | None]) -> None:
        self._before = before

    def set(self, session: Session, knobs: Mapping[str, str]) -> None:
        """Set them, in their own units, and return when `session` has them; raise ServerError when they do not take effect."""
        unknown = sorted(knobs.keys() - self._before.keys())
        if unknown:
            raise ServerError(f"{', '.join(unknown)} cannot be changed: the old values were not noted")
        for name, value in knobs.items():
            _alter(session, name, value)
        _reload(session, knobs)


@contextmanager
def system_knobs(connect: Callable[[], Session], names: Sequence[str]) -> Iterator[SystemKnobs]:
    """
    Change settings of the whole server within the block; put their entries in postgresql.auto.conf back at its end.

    The entries are noted on disk before anything is changed. When this process is killed, or the server does not answer at the end (a
    warning), `restore_left_over` of a later run puts them back.
    """
    with ExitStack() as stack:
        with connect() as session:
            note = note_path(session)
            if not stack.enter_context(_locked(note)):
                raise ServerError(f"another run is changing the settings of this server; its note of the old ones is {note}")
            _restore_from(session, note)
            entries = _entries(session)
        before = {name: entries.get(name) for name in names}
        _write_note(note, before)
        try:
            yield SystemKnobs(before)
        finally:
            _leave(connect, before, note)


def _leave(connect: Callable[[], Session], before: Mapping[str, str | None], note: Path) -> None:
    """Put settings back in a new session: the server may have ended the old ones."""
    try:
        session = connect()
    except ServerError as error:
        logger.warning(
            "not put back: %s (%s); the next run on this server does that, with the note %s", ", ".join(sorted(before)), error, note
        )
        return
    with session:
        _restore(session, before)
    note.unlink()


def note_path(session: Session) -> Path:
    """Return the file that notes the old settings of this server: one per cluster in the cache folder."""
    identifier = session.scalar("SELECT system_identifier FROM pg_control_system()")
    return _notes() / f"{identifier}.json"


def _notes() -> Path:
    return cache_subfolder("settings")


def restore_left_over(session: Session) -> bool:
    """
    Put back the settings that a killed process changed with ALTER SYSTEM on this server; tell whether there were any.

    Warn with their names where this role may not. Raise ServerError, with the file, when the note cannot be read.
    """
    if not any(_notes().glob("*.json")):  # most servers are never asked
        return False
    note = note_path(session)
    with _locked(note) as ours:
        if not ours:  # whoever wrote it is alive
            return False
        if may_alter_system(session):
            return _restore_from(session, note)
        if note.exists():
            logger.warning(
                "a run that was killed had changed %s on this server, and this run may not put the old values back; one of a superuser, "
                "without --read-only, does (they are in %s)",
                ", ".join(sorted(_read_note(note))),
                note,
            )
        return False


def _read_note(note: Path) -> dict[str, str | None]:
    try:
        return {str(name): None if value is None else str(value) for name, value in json.loads(note.read_text()).items()}
    except (ValueError, AttributeError) as error:
        raise ServerError(
            f"the note of the server's old settings {note} cannot be read: {error}; put them back by hand and delete it"
        ) from error


def _restore_from(session: Session, note: Path) -> bool:
    if not note.exists():
        return False
    before = _read_note(note)
    _restore(session, before)
    note.unlink()
    logger.warning("a run that was killed had changed %s on this server; the old values are back", ", ".join(sorted(before)))
    return True


@contextmanager
def _locked(note: Path) -> Iterator[bool]:
    """Lock a note and yield True, or False when another process has it; the lock ends with the process, even a killed one."""
    private_folder(note.parent)
    with open_private(note.with_suffix(".lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _entries(session: Session) -> dict[str, str]:
    """Return the settings made by ALTER SYSTEM; the last entry of a name counts."""
    return dict(session.execute(_ENTRIES))


def _write_note(path: Path, before: Mapping[str, str | None]) -> None:
    """Write the whole note or nothing, even when the machine stops."""
    half = path.with_suffix(".half")
    with open_private(half, "w") as file:
        json.dump(dict(before), file)
        file.flush()
        os.fsync(file.fileno())
    half.rename(path)


def _restore(session: Session, before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        _alter(session, name, value)
    _reload(session, {})


def _alter(session: Session, name: str, value: str | None) -> None:
    if value is None:
        session.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name)))
    else:
        session.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value)))


def _reload(session: Session, expected: Mapping[str, str]) -> None:
    """Make the server re-read its configuration and wait until this session has the new one."""
    loaded = session.scalar("SELECT pg_conf_load_time()")
    session.execute("SELECT pg_reload_conf()")
    deadline_s = time.monotonic() + RELOAD_LIMIT_S
    while session.scalar("SELECT pg_conf_load_time()") == loaded or _different(session, expected):
        if time.monotonic() > deadline_s:
            different = ", ".join(
                f"{name} (wanted {expected[name]}, found {found})" for name, found in _different(session, expected).items()
            )
            raise ServerError(
                f"settings did not come into force within {RELOAD_LIMIT_S:.0f} s of a reload: {different or 'no reload was seen'}"
            )
        time.sleep(_POLL_S)


def _different(session: Session, expected: Mapping[str, str]) -> dict[str, str]:
    rows = session.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(expected),)) if expected else []
    return {name: found for name, found in rows if found != expected[name]}
