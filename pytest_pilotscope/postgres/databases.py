"""Databases that we make on a server: created, copied, marked as ours, dropped. A database without our mark is never dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from psycopg2 import sql

from pytest_pilotscope.errors import DatasetError, ServerError, StatementFailed
from pytest_pilotscope.postgres.session import Session

_FILE_COPY_SINCE = 150000
_OBJECT_IN_USE = "55006"


def mark_of(session: Session, database: str) -> dict[str, str] | None:
    """What we noted about `database`: nothing (an empty mapping) when it is not one of ours, None when it does not exist."""
    rows = session.execute("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (database,))
    return _parsed(rows[0][0]) if rows else None


def write_mark(session: Session, database: str, mark: Mapping[str, str]) -> None:
    """Note in the comment of `database` that it is ours, and what it holds."""
    statement = sql.SQL("COMMENT ON DATABASE {} IS {}")
    session.execute(statement.format(sql.Identifier(database), sql.Literal(json.dumps({"pilotscope": dict(mark)}))))


def create_database(session: Session, database: str, mark: Mapping[str, str]) -> None:
    """An empty, marked database in UTF-8 that sorts by code point, so that plans and statistics do not depend on the server's locale."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'")
    session.execute(statement.format(sql.Identifier(database)))
    write_mark(session, database, mark)


def copy_database(session: Session, source: str, database: str, mark: Mapping[str, str], *, by_file: bool) -> None:
    """
    A marked copy of `source` with its statistics; DatasetError while somebody is connected to `source`.

    `by_file` copies files, which is fastest but makes two checkpoints: for servers that are ours.
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
    write_mark(session, database, mark)


def _users(session: Session, database: str) -> str:
    rows = session.execute(
        "SELECT application_name, pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid() ORDER BY pid", (database,)
    )
    return ", ".join(f"{name or 'an unnamed application'} (process {pid})" for name, pid in rows) or "somebody who has left by now"


def drop_database(session: Session, database: str) -> None:
    """Drop one of our databases and disconnect whoever is in it; DatasetError when it does not bear our mark."""
    mark = mark_of(session, database)
    if mark is None:
        return
    if not mark:
        raise DatasetError(f"database {database!r} was not made by pilotscope, so it is not dropped")
    session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))


@contextmanager
def locked(session: Session, name: str) -> Iterator[None]:
    """Keep other sessions of this server's database that lock the same name out for the length of the block; waits for them."""
    session.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (name,))
    try:
        yield
    except BaseException:
        with suppress(ServerError):  # the session may be what is broken, and then the lock is gone with it
            unlock(session, name)
        raise
    unlock(session, name)


def try_lock(session: Session, name: str) -> bool:
    """Take the lock of `name` until the session ends or `unlock`; False when another session has it."""
    return bool(session.scalar("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (name,)))


def unlock(session: Session, name: str) -> None:
    """Give the lock of `name` back."""
    session.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (name,))


def marked_databases(session: Session) -> dict[str, dict[str, str]]:
    """Every database of the server that we made, with its mark."""
    rows = session.execute("SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database ORDER BY datname")
    return {name: mark for name, comment in rows if (mark := _parsed(comment))}


def _parsed(comment: str | None) -> dict[str, str]:
    try:
        mark = json.loads(comment or "")["pilotscope"]
    except (ValueError, TypeError, KeyError):
        return {}
    return dict(mark) if isinstance(mark, dict) else {}
