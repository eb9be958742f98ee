"""
Create, copy, mark and drop databases on a server. A database without pilotscope's mark is never dropped.

A process killed between CREATE DATABASE and the mark leaves a database without one. So each new database gets a name that only pilotscope
makes, and a session of its maker locks that name: a database with such a name that nobody has locked is a leftover.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from psycopg2 import sql

from pytest_pilotscope.errors import DatasetError, ServerError, StatementFailed
from pytest_pilotscope.postgres.server import Capability, Server
from pytest_pilotscope.postgres.session import Session

RESTORER = "pilotscope_restorer"
"""The role that owns the tables of a restored dump (`unprivileged`); it goes with the last database in which it owns something."""

_FILE_COPY_SINCE = 150000
_OBJECT_IN_USE = "55006"
_PREFIX = "pilotscope_"
_NAME_LIMIT_BYTES = 63
_TOKEN_BYTES = 8
_TRIES_UNSAID = 20
"""About three seconds of waiting for another process, after which a warning says so."""
_UNIQUE = re.compile(rf"{_PREFIX}.+_[0-9a-f]{{{2 * _TOKEN_BYTES}}}")
_MADE = """
    SELECT datname, shobj_description(oid, 'pg_database'), pg_has_role(datdba, 'USAGE'), pg_get_userbyid(datdba) = current_user
    FROM pg_database ORDER BY datname
"""
_SETTINGS = """
    SELECT split_part(setting, '=', 1), substr(setting, strpos(setting, '=') + 1)
    FROM pg_db_role_setting AS s JOIN pg_database AS d ON d.oid = s.setdatabase, unnest(setconfig) AS setting
    WHERE datname = %s AND setrole = 0 ORDER BY 1
"""
# Advisory locks belong to one database, but these names to the whole server; pg_locks shows the locks of all databases.
_HELD_BY_OTHERS = """
    SELECT count(*) > 0 FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND pid <> pg_backend_pid()
    AND classid::bigint << 32 | objid::bigint = hashtextextended(%s, 0)
"""

logger = logging.getLogger(__name__)


def our_name(source: str, ending: str = "") -> str:
    """Return the name of a database of ours: `pilotscope_`, as much of `source` as PostgreSQL has room for, and the ending."""
    room = _NAME_LIMIT_BYTES - len(ending)
    return f"{_PREFIX}{source.removeprefix(_PREFIX)}".encode()[:room].decode(errors="ignore") + ending


def unique_name(source: str) -> str:
    """Return a name of ours that nobody else gives: it ends in a random token."""
    return our_name(source, f"_{secrets.token_hex(_TOKEN_BYTES)}")


def mark_of(session: Session, database: str) -> dict[str, str] | None:
    """Return the mark of `database`: an empty mapping when pilotscope did not make it, None when it does not exist."""
    rows = session.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (database,))
    return _parsed(rows[0][0]) if rows else None


def write_mark(session: Session, database: str, mark: Mapping[str, str]) -> None:
    """Write pilotscope's mark, with the content, into the comment of `database`, so that a crash of the server does not undo it."""
    statement = sql.SQL("COMMENT ON DATABASE {} IS {}")
    with _set_locally(session, "synchronous_commit", "local"):  # with "off", a commit reaches the log a moment later only
        session.execute(statement.format(sql.Identifier(database), sql.Literal(json.dumps({"pilotscope": dict(mark)}))))


def create_database(session: Session, database: str, mark: Mapping[str, str]) -> None:
    """Create an empty, marked UTF-8 database that sorts by code point: plans and statistics do not depend on the server's locale."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
    session.execute(statement.format(sql.Identifier(database)))
    write_mark(session, database, mark)


def copy_database(session: Session, source: str, database: str, mark: Mapping[str, str], *, by_file: bool) -> None:
    """
    Copy `source` with its statistics and settings, and mark the copy; raise DatasetError while somebody is connected to `source`.

    A setting that this role may not give to a database is left out, with a warning.

    `by_file` copies files, which is fastest but makes two checkpoints: use it on servers started here only.
    """
    strategy = sql.SQL(" STRATEGY FILE_COPY" if by_file and session.server_version >= _FILE_COPY_SINCE else "")
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}{}").format(sql.Identifier(database), sql.Identifier(source), strategy)
    try:
        session.execute(statement)
    except StatementFailed as error:
        if error.sqlstate != _OBJECT_IN_USE:
            raise
        raise DatasetError(
            f"database {source!r} cannot be copied while it is in use, by {_users(session, source)}; PostgreSQL copies idle databases only"
        ) from error
    try:
        _copy_settings(session, source, database)
        write_mark(session, database, mark)
    except BaseException:
        with suppress(ServerError):
            _drop(session, database)
        raise


def _copy_settings(session: Session, source: str, database: str) -> None:
    for name, value in session.execute(_SETTINGS, (source,)):
        statement = sql.SQL("ALTER DATABASE {} SET {} FROM CURRENT").format(sql.Identifier(database), sql.Identifier(*name.split(".")))
        try:
            with _set_locally(session, name, value):
                session.execute(statement)
        except StatementFailed as error:
            logger.warning("the copy %s of database %s is without its setting %s: %s", database, source, name, error.reason)


@contextmanager
def _set_locally(session: Session, name: str, value: str) -> Iterator[None]:
    """Set a setting for the length of the block, which is a transaction."""
    session.execute("BEGIN")
    try:
        session.execute("SELECT set_config(%s, %s, true)", (name, value))
        yield
        session.execute("COMMIT")
    except BaseException:
        session.execute("ROLLBACK")
        raise


def _users(session: Session, database: str) -> str:
    rows = session.execute(
        "SELECT application_name, pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid() ORDER BY pid", (database,)
    )
    return ", ".join(f"{name or 'an unnamed application'} (process {pid})" for name, pid in rows) or "somebody who has left by now"


def rename_database(session: Session, database: str, name: str) -> None:
    """Rename a marked database that nobody is connected to; it keeps its mark."""
    session.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(sql.Identifier(database), sql.Identifier(name)))


def drop_database(session: Session, database: str) -> None:
    """Drop a marked database and disconnect its sessions; raise DatasetError when it has no mark."""
    mark = mark_of(session, database)
    if mark is None:
        return
    if not mark:
        raise DatasetError(f"database {database!r} was not made by pilotscope, so it is not dropped")
    _drop(session, database)


def drop_leftovers(session: Session) -> None:
    """
    Drop the databases whose maker has ended, if this role may: marked ones, and unmarked ones that this role owns.

    Log a leftover that cannot be dropped: it takes room, but stops no run.
    """
    for name, comment, may_drop, own in session.execute(_MADE):
        if _UNIQUE.fullmatch(name) and (may_drop if _parsed(comment) else own) and try_lock(session, _in_use(name)):
            try:
                _drop(session, name)
            except StatementFailed as error:
                logger.warning("the database %s, left behind by a run that is gone, could not be dropped: %s", name, error)
            unlock(session, _in_use(name))


def _drop(session: Session, database: str) -> None:
    session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))
    if session.scalar("SELECT count(*) FROM pg_roles WHERE rolname = %s", (RESTORER,)) and try_lock(session, RESTORER):
        with suppress(StatementFailed):  # it owns tables in another database, or this role may not drop it
            session.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(RESTORER)))
        unlock(session, RESTORER)


def hold(session: Session, database: str) -> None:
    """Lock the name of a database about to be made until the session ends; raise DatasetError when another session has the lock."""
    if not try_lock(session, _in_use(database)):
        raise DatasetError(f"database {database!r} is in use by another run on this server; wait until that has ended")


def _in_use(database: str) -> str:
    """Return the name of the lock of a database in use; the lock of the bare name is held while somebody loads it."""
    return f"{database} in use"


@contextmanager
def locked(session: Session, name: str) -> Iterator[None]:
    """Wait for other sessions of this server that lock the same name, then lock it for the length of the block; say so after a while."""
    tries = 0
    while not try_lock(session, name):
        tries += 1
        if tries == _TRIES_UNSAID:
            logger.warning("waiting for another process that prepares database %s on this server; stop that one to go on", name)
        session.execute("SELECT pg_sleep(0.1 + random() / 10)")  # two that try at once both give way, and come back one after the other
    try:
        yield
    except BaseException:
        with suppress(ServerError):  # when the session broke, its lock is gone
            unlock(session, name)
        raise
    unlock(session, name)


def try_lock(session: Session, name: str) -> bool:
    """Take the lock of `name` until the session ends or `unlock`; return False when another session, in any database, has it."""
    if not session.scalar("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (name,)):
        return False
    if session.scalar(_HELD_BY_OTHERS, (name,)):
        unlock(session, name)
        return False
    return True


def unlock(session: Session, name: str) -> None:
    """Release the lock of `name`."""
    session.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))


def _parsed(comment: str | None) -> dict[str, str]:
    try:
        mark = json.loads(comment or "")["pilotscope"]
    except (ValueError, TypeError, KeyError):
        return {}
    return dict(mark) if isinstance(mark, dict) else {}


def require_databases(server: Server, purpose: str, name: str) -> None:
    """Raise DatasetError unless databases may be made on `server`; the text says what for, under which name, and what to do."""
    if refusal := server.refusal(Capability.CREATE_DATABASE):
        raise DatasetError(f"{purpose} would make the database {name!r} on this server: {refusal}; or use --server embedded")


@contextmanager
def temporary_copy(server: Server, source: str) -> Iterator[str]:
    """
    Copy the idle database `source`, give the name of the copy, and at the end drop it, disconnecting its sessions.

    Raise DatasetError when databases may not be made here, or while somebody is connected to `source`.
    """
    name = unique_name(source)
    with server.connect() as keeper:
        make_copy(server, keeper, source, name)
        try:
            yield name
        except BaseException:
            _drop_if_possible(server, name)
            raise
        with server.connect() as administrator:  # a restart of the server has ended the keeper
            drop_database(administrator, name)


def make_copy(server: Server, keeper: Session, source: str, name: str) -> None:
    """
    Copy `source` to `name` for good; the session `keeper` marks the copy as in use until it ends.

    Raise DatasetError, and drop the copy, if `source` are the loaded data, and they were changed.
    """
    require_databases(server, f"copying database {source!r}", name)
    if server.provider == "given":  # nobody else makes databases on a server started here
        drop_leftovers(keeper)
    hold(keeper, name)
    mark = mark_of(keeper, source) or {}
    copy_database(keeper, source, name, {**mark, "state": "copy", "of": source}, by_file=server.provider != "given")
    if mark.get("state") == "complete" and (changed := server.changed_data()):  # copying has written all changes to disk
        drop_database(keeper, name)
        raise DatasetError(f"database {source!r} cannot be copied as it was loaded: {changed}; change a copy of it (`database.copy()`)")


def _drop_if_possible(server: Server, name: str) -> None:
    """Drop a database after an error, and only warn when that fails: the server may be the reason of both."""
    try:
        with server.connect() as administrator:
            drop_database(administrator, name)
    except ServerError as error:
        logger.warning("the database %s could not be dropped: %s", name, error)
