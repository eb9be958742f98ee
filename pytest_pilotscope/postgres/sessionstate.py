"""The state that a session carries from statement to statement, and putting it back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

# The results of the library have no session source: nobody can set them. `enumerate` and its like are off after each report.
_STATE = """
    SELECT (SELECT coalesce(json_object_agg(name, setting), '{}'::json) FROM pg_settings
            WHERE source = 'session' AND setting IS DISTINCT FROM reset_val),
           json_build_object(
               'role', current_user || ' of ' || session_user,
               'prepared statements', (SELECT string_agg(name, ', ' ORDER BY name) FROM pg_prepared_statements),
               'cursors', (SELECT string_agg(name, ', ' ORDER BY name) FROM pg_cursors WHERE is_holdable),
               'channels', (SELECT string_agg(name, ', ' ORDER BY name) FROM pg_listening_channels() AS name),
               'advisory locks', (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
               'temporary objects', (SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class
                                     WHERE relnamespace = pg_my_temp_schema()))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionState:
    """Settings of a session that differ from its start, and what else it has: role, prepared statements, cursors, locks, ..."""

    settings: Mapping[str, str]
    objects: Mapping[str, object]

    def differences(self, later: SessionState) -> list[str]:
        """Name what a later state has that this one does not, and the other way around."""
        settings = [
            f"setting {name} is no longer {_shown(before)}" if after is None else f"setting {name} = {_shown(after)}"
            for name, before, after in _different(self.settings, later.settings)
        ]
        return [*settings, *(f"{name}: {_shown(after)}" for name, _, after in _different(self.objects, later.objects))]


def _different(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[tuple[str, object, object]]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def state_of(session: Session) -> SessionState:
    """Read the state of a session that is in no transaction."""
    settings, objects = session.execute(_STATE)[0]
    return SessionState(settings=settings, objects=objects)


def left_behind(session: Session, wanted: SessionState) -> list[str]:
    """Name what differs from a wanted state, an open transaction included, and put the state back."""
    found = []
    if session.transaction_open:
        found.append("an open transaction")
        session.execute("ROLLBACK")
    found += wanted.differences(state_of(session))
    if found:
        put_back(session, wanted)
    return found


def put_back(session: Session, wanted: SessionState) -> None:
    """Discard everything that the session carries, and set the wanted settings again."""
    session.execute("DISCARD ALL")
    for name, value in wanted.settings.items():
        session.execute("SELECT set_config(%s, %s, false)", (name, value))
