"""The state that a session carries from statement to statement, and putting it back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_pilotscope.postgres.fingerprint import is_small

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
_LAST_TRANSACTION = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text"
_STORED_SETTINGS = "SELECT format('settings of database %s and role %s', setdatabase, setrole), setconfig::text FROM pg_db_role_setting"
_WRITTEN = r"""
    SELECT format('table %s.%s', schemaname, relname),
        format('%s rows inserted, %s updated, %s deleted', n_tup_ins, n_tup_upd, n_tup_del)
    FROM pg_stat_user_tables WHERE schemaname NOT LIKE 'pg\_%'
"""
_IDLE_TRANSACTIONS = """
    SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%' ORDER BY pid
"""
_FLUSHES_STATISTICS = 150_000


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
    found = session.end_transaction()
    found += wanted.differences(state_of(session))
    if found:
        session.reset(wanted.settings)
    return found


def last_transaction(session: Session) -> int:
    """Return a number that grows with each transaction that writes anything to the server."""
    return int(session.scalar(_LAST_TRANSACTION))


def stored_state(session: Session) -> dict[str, str]:
    """
    Return the settings that are stored for databases and roles and, if the rows are too many to read, what was ever written to each table.

    These counts include what was rolled back. Those of other sessions, and before PostgreSQL 15 also those of this one, arrive with a
    delay of up to a second.
    """
    stored: dict[str, str] = dict(session.execute(_STORED_SETTINGS))
    if not is_small(session):
        if session.server_version >= _FLUSHES_STATISTICS:
            session.execute("SELECT pg_stat_force_next_flush()")
        stored |= session.execute(_WRITTEN)
    return stored


def stored_changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Name what was written between two calls of `stored_state`."""
    return [f"{name}: {_shown(later)}" for name, _, later in _different(before, after)]


def end_idle_transactions(session: Session) -> list[str]:
    """End the other sessions in this database that keep a transaction open, and name them."""
    return [f"process {pid} kept a transaction open" for pid, _ in session.execute(_IDLE_TRANSACTIONS)]
