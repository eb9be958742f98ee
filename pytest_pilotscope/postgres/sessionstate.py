"""The state that a session carries from statement to statement, and putting it back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pytest_pilotscope.errors import QueryTimeout, StatementFailed
from pytest_pilotscope.postgres.fingerprint import is_small
from pytest_pilotscope.postgres.knobs import may_read_entries, put_entries_back, system_entries
from pytest_pilotscope.postgres.session import QUERY_CANCELED

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

T = TypeVar("T")

# Nobody can set an internal setting, which includes the results of the library; `enumerate` and its like are off after each report.
_STATE = """
    SELECT (SELECT json_object_agg(name, json_build_array(setting, source = 'session' AND setting IS DISTINCT FROM reset_val))
            FROM pg_settings WHERE context <> 'internal'),
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
# What the planner reads beside the statistics: a hash where there are many rows. Extensions that the suite uses are no change.
_STORED = """
    SELECT format('settings of database %s and role %s', setdatabase, setrole), setconfig::text FROM pg_db_role_setting
    UNION ALL SELECT format('options of tablespace %s', spcname), spcoptions::text FROM pg_tablespace
    UNION ALL SELECT format('options of %s', oid::regclass), concat_ws(' ', reloptions, 'row security', relrowsecurity)
        FROM pg_class WHERE relpersistence <> 't' AND oid >= 16384 AND (reloptions IS NOT NULL OR relrowsecurity)
    UNION ALL SELECT format('options of column %s of %s', attname, attrelid::regclass), attoptions::text
        FROM pg_attribute WHERE attoptions IS NOT NULL
    UNION ALL SELECT format('statistics object %s', stxname), stxkind::text FROM pg_statistic_ext
    UNION ALL SELECT 'functions', md5(sum(hashtextextended(p::text, 0)::numeric)::text) FROM pg_proc AS p
        WHERE NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'e')
    UNION ALL SELECT 'operators', md5(sum(hashtextextended(o::text, 0)::numeric)::text) FROM pg_operator AS o
        WHERE NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_operator'::regclass AND objid = o.oid AND deptype = 'e')
    UNION ALL SELECT format('constraint %s of %s', conname, conrelid::regclass), md5(pg_get_constraintdef(oid))
        FROM pg_constraint WHERE oid >= 16384 AND contype IN ('c', 'f', 'p', 'u', 'x')
    UNION ALL SELECT format('trigger %s of %s', tgname, tgrelid::regclass), tgenabled::text
        FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT format('policy %s of %s', polname, polrelid::regclass), md5(p::text) FROM pg_policy AS p
    UNION ALL SELECT format('view %s', ev_class::regclass), md5(string_agg(ev_action::text, ',' ORDER BY rulename))
        FROM pg_rewrite WHERE oid >= 16384 GROUP BY ev_class
"""
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
    """
    All settings in a session, those that it has set itself, and what else it has: role, prepared statements, cursors, locks, ...

    `entries` are the settings made by ALTER SYSTEM, which a session has some time after a reload; None if its role may not see them.
    """

    values: Mapping[str, str]
    own: Mapping[str, str]
    entries: Mapping[str, str] | None
    objects: Mapping[str, object]

    def differences(self, later: SessionState) -> list[str]:
        """Name what a later state has that this one does not, and the other way around."""
        entries = {
            name: f"ALTER SYSTEM RESET {name}" if after is None else f"ALTER SYSTEM SET {name} = {_shown(after)}"
            for name, _, after in _different(self.entries or {}, later.entries or {})
        }
        own = {
            name: f"setting {name} is no longer {_shown(before)}" if after is None else f"setting {name} = {_shown(after)}"
            for name, before, after in _different(self.own, later.own)
        }
        server = {
            name: f"setting {name} = {_shown(after)} on the server"
            for name, before, after in _different(self.values, later.values)
            if None not in (before, after) and name not in entries and name not in own  # a library that is loaded has new ones
        }
        objects = [f"{name}: {_shown(after)}" for name, _, after in _different(self.objects, later.objects)]
        return [*entries.values(), *own.values(), *server.values(), *objects]


def _different(before: Mapping[str, T], after: Mapping[str, T]) -> Iterator[tuple[str, T | None, T | None]]:
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)


def _shown(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def state_of(session: Session) -> SessionState:
    """Read the state of a session that is in no transaction."""
    settings, objects = session.execute(_STATE)[0]
    return SessionState(
        values={name: value for name, (value, _) in settings.items()},
        own={name: value for name, (value, is_own) in settings.items() if is_own},
        entries=system_entries(session) if may_read_entries(session) else None,
        objects=objects,
    )


def left_behind(session: Session, wanted: SessionState, *, exclusive: bool) -> list[str]:
    """
    Name what differs from a wanted state, an open transaction included, and put the state back.

    What ALTER SYSTEM has changed is put back on an `exclusive` server only; elsewhere it may be somebody else's.
    """
    found = session.end_transaction()
    try:
        later = state_of(session)
    except (QueryTimeout, StatementFailed) as error:
        if session.closed or (isinstance(error, StatementFailed) and error.sqlstate != QUERY_CANCELED):
            raise
        found.append("a statement timeout that ends the statements of the suite")
        session.lift_limit()
        later = state_of(session)
    found += wanted.differences(later)
    if found:
        session.reset(wanted.own)
    changed = {name: before for name, before, _ in _different(wanted.entries or {}, later.entries or {})}
    if changed and exclusive:
        put_entries_back(session, changed, {name: wanted.values[name] for name in changed if name in wanted.values})
    return found


def last_transaction(session: Session) -> int:
    """Return a number that grows with each transaction that writes anything to the server."""
    return int(session.scalar(_LAST_TRANSACTION))


def stored_state(session: Session) -> dict[str, str]:
    """
    Return what is stored and bears on plans beside rows, statistics and indexes: settings of databases and roles, options, costs of
    functions and the like; and, if the rows are too many to read, what was ever written to each table.

    These counts include what was rolled back. Those of other sessions, and before PostgreSQL 15 also those of this one, arrive with a
    delay of up to a second.
    """
    stored: dict[str, str] = dict(session.execute(_STORED))
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
