"""
Read settings of a server with their limits, apply each at the level it needs, and put them back.

A setting for sessions is set in this session only. One that the server re-reads is set with ALTER SYSTEM; its old value is noted on disk
first, so that it comes back even when this process is killed. `Server.restart` applies those that need a restart.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from psycopg2 import sql

from pytest_pilotscope.errors import ServerError, UsageError
from pytest_pilotscope.postgres.server import Capability, Server
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.settings_note import (
    ServerIdentity,
    SettingsNote,
    any_notes,
    identity,
    locked,
    note_path,
    notes_of,
    read_note,
)

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
_MAY_READ_ENTRIES = """
    SELECT has_table_privilege('pg_catalog.pg_file_settings', 'select')
        AND has_function_privilege('pg_catalog.pg_show_all_file_settings()', 'execute')
"""
_ENTRIES = "SELECT name, setting FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf' ORDER BY seqno"

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


def setting_levels(session: Session) -> dict[str, Level | None]:
    """Return the level of every setting of this server, by its name in lower case; None for those that nobody can change."""
    return {name: _CONTEXTS.get(context) for name, context in session.execute("SELECT lower(name), context FROM pg_settings")}


def set_session_knobs(session: Session, knobs: Mapping[str, str]) -> None:
    """Set settings for the rest of the session, in their own units; raise StatementFailed for a value that PostgreSQL rejects."""
    if knobs:
        calls = ", ".join("set_config(%s, %s, false)" for _ in knobs)
        session.execute(f"SELECT {calls}", [part for pair in knobs.items() for part in pair])


class SystemKnobs:
    """
    Settings of the whole server, changed with ALTER SYSTEM; made by `system_knobs`.

    Only names that were announced can be set: their old entries are in the note. A server of ours needs no note.
    """

    def __init__(self, names: Collection[str], note: SettingsNote | None = None) -> None:
        self._names = frozenset(names)
        self._note = note

    def set(self, session: Session, knobs: Mapping[str, str]) -> None:
        """Set them, in their own units, and return when `session` has them; raise ServerError when they do not take effect."""
        unknown = sorted(knobs.keys() - self._names)
        if unknown:
            raise ServerError(f"{', '.join(unknown)} cannot be changed: the old values were not noted")
        if self._note is not None:
            self._note.add(session, knobs)
        for name, value in knobs.items():
            _alter(session, name, value)
        _reload(session, knobs)


@contextmanager
def system_knobs(server: Server, names: Sequence[str]) -> Iterator[SystemKnobs]:
    """
    Change settings of the whole server within the block; put their entries in postgresql.auto.conf back at its end.

    A note has the entries before anything is changed. When this process is killed, or the server does not answer at the end (a warning),
    `restore_left_over` of a later run puts them back. Raise UsageError where settings may not be changed.
    """
    if refusal := server.refusal(Capability.ALTER_SYSTEM):
        raise UsageError(f"{', '.join(names)} would be changed for the whole server with ALTER SYSTEM: {refusal}")
    with ExitStack() as stack:
        with server.connect() as session:
            here = identity(session)
            path = note_path(here)
            if not stack.enter_context(locked(path)):
                raise ServerError(f"another run is changing the settings of this server; its note of the old ones is {path}")
            if path.exists():
                _restore_from(session, read_note(path))
            entries = system_entries(session)
        note = SettingsNote(path=path, server=here, before={name: entries.get(name) for name in names}, ours={name: [] for name in names})
        note.write()
        try:
            yield SystemKnobs(names, note)
        finally:
            _leave(server, note)


def _leave(server: Server, note: SettingsNote) -> None:
    """Put settings back in a new session: the server may have ended the old ones."""
    try:
        with server.connect() as session:
            if not (found := identity(session)).is_same(note.server):
                raise ServerError(f"another server answers there: {found}")
            _, kept = _put_back(session, note)
    except ServerError as error:
        logger.warning(
            "not put back: %s (%s); the next run on this server that may do so does it, with the note %s",
            ", ".join(sorted(note.before)),
            error,
            note.path,
        )
        return
    note.path.unlink()
    if kept:
        logger.warning("settings of the server: %s", _told({}, kept))


def restore_left_over(server: Server) -> bool:
    """
    Put back the settings that a killed process changed with ALTER SYSTEM on this server; tell whether there were any.

    Warn where they may not be put back, and where a note is perhaps of this server but that is not certain. Raise ServerError, with the
    file, when the note of this server cannot be read.
    """
    if not any_notes():
        return False
    with server.connect() as session:
        here = identity(session)
        settled = [_settled(server, session, here, path) for path in notes_of(here.system)]
        return any(settled)


def _settled(server: Server, session: Session, here: ServerIdentity, path: Path) -> bool:
    """Restore from one note, or say why not; tell whether settings were put back."""
    with locked(path) as free:
        note = _note(path, here) if free and path.exists() else None  # whoever locks it is alive
        if note is None:
            return False
        refusal, changed = server.refusal(Capability.ALTER_SYSTEM), ", ".join(sorted(note.before))
        if here.is_same(note.server):
            if not refusal:
                return _restore_from(session, note)
            logger.warning(
                "a run that was killed had changed %s on this server, and this run does not put the old values back, which are in %s: %s",
                changed,
                path,
                refusal,
            )
        elif here.may_be(note.server):
            logger.warning(
                "a run that was killed had changed %s on a server that is perhaps this one (then: %s; now: %s); nothing is put back, "
                "compare with the note %s and delete it",
                changed,
                note.server,
                here,
                path,
            )
        return False


def _note(path: Path, here: ServerIdentity) -> SettingsNote | None:
    """Read a note. None, with a warning, for one that cannot be read, unless it is that of this very server."""
    try:
        return read_note(path)
    except ServerError as error:
        if path == note_path(here):
            raise
        logger.warning("%s", error)
        return None


def _restore_from(session: Session, note: SettingsNote) -> bool:
    back, kept = _put_back(session, note)
    note.path.unlink()
    logger.warning("a run that was killed had changed settings of this server: %s", _told(back, kept))
    return bool(back)


def _told(back: Mapping[str, str], kept: Mapping[str, str]) -> str:
    """Return a sentence about settings that were put back and that were left alone."""
    parts = [
        f"{what}: {', '.join(f'{name} ({how})' for name, how in sorted(settings.items()))}"
        for what, settings in (("put back", back), ("left alone, because somebody else has changed them since", kept))
        if settings
    ]
    return "; ".join(parts) or "they have their old values already"


def _put_back(session: Session, note: SettingsNote) -> tuple[dict[str, str], dict[str, str]]:
    """Put back the entries that are still ours; return them and the entries that somebody else has changed since, each with the change."""
    present = system_entries(session)
    back, kept = {}, {}
    for name, before in note.before.items():
        found = present.get(name)
        if found == before:
            continue
        if found in note.ours[name]:
            _alter(session, name, before)
            back[name] = f"{found} -> {before or 'no entry'}"
        else:
            kept[name] = f"{before or 'no entry'} before, {found or 'no entry'} now"
    if back:
        _reload(session, {})
    return back, kept


def may_read_entries(session: Session) -> bool:
    """Tell whether the session's role may read `system_entries`."""
    return bool(session.scalar(_MAY_READ_ENTRIES))


def system_entries(session: Session) -> dict[str, str]:
    """Return the settings made by ALTER SYSTEM; the last entry of a name counts."""
    return dict(session.execute(_ENTRIES))


def put_entries_back(session: Session, entries: Mapping[str, str | None], expected: Mapping[str, str]) -> None:
    """Set these entries with ALTER SYSTEM, remove those that are None, and return when the session has the `expected` settings."""
    for name, value in entries.items():
        _alter(session, name, value)
    _reload(session, expected)


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
