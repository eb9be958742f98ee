"""All that a measurement must leave as it was: processes, files and the user's server."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from tests.postgres.children import wait_for_end

_PR_SET_CHILD_SUBREAPER = 36
END_LIMIT_S = 30.0

_SERVER = {
    "settings": "SELECT name, setting FROM pg_settings WHERE name NOT LIKE 'pilotscope.%'",
    "databases": "SELECT datname, datdba::regrole::text, datallowconn, shobj_description(oid, 'pg_database') FROM pg_database",
    "roles": "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole, rolcanlogin FROM pg_roles",
    "settings of roles": "SELECT setdatabase, setrole, setconfig::text FROM pg_db_role_setting",
    "ALTER SYSTEM": "SELECT pg_read_file('postgresql.auto.conf')",
    "prepared transactions": "SELECT gid FROM pg_prepared_xacts",
    "replication slots": "SELECT slot_name FROM pg_replication_slots",
}
_DATABASE = {
    "relations": "SELECT relnamespace::regnamespace::text, relname, relkind::text, relfilenode, relowner::regrole::text, reloptions::text "
    "FROM pg_class WHERE relnamespace NOT IN ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)",
    "indexes": "SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index JOIN pg_class AS c ON c.oid = indrelid "
    "WHERE relnamespace <> 'pg_catalog'::regnamespace",
    "extensions": "SELECT extname FROM pg_extension",
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace <> 'pg_catalog'::regnamespace",
}


def state_of(server: EmbeddedServer) -> dict[str, list[Any]]:
    """Return everything of a server that others could notice: its settings, roles, databases, and the relations of each database."""
    with server.connect() as session:
        state = {what: _rows(session, sql) for what, sql in _SERVER.items()}
        names = [name for (name,) in session.execute("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname")]
    for name in names:
        with server.connect(name) as session:
            state |= {f"{what} of {name}": _rows(session, sql) for what, sql in _DATABASE.items()}
    return state


def _rows(session: Session, sql: str) -> list[Any]:
    return sorted(session.execute(sql), key=repr)


def sessions_end(server: EmbeddedServer) -> bool:
    """Tell whether the server process of every session of a measurement ends."""
    with server.connect() as session:
        ours = "SELECT pid FROM pg_stat_activity WHERE application_name = 'pilotscope' AND pid <> pg_backend_pid()"
        return all(wait_for_end(pid) for (pid,) in session.execute(ours))


def files_below(folder: Path) -> list[str]:
    """Return the relative paths of everything below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@contextmanager
def adopting() -> Iterator[set[int]]:
    """
    Make this process the parent of orphans within the block (Linux), and give the children that it had before.

    So a process that outlives the program that started it cannot hide.
    """
    if sys.platform != "linux":
        pytest.skip("finding the processes that a program leaves needs PR_SET_CHILD_SUBREAPER (Linux)")
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield children()
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def children() -> set[int]:
    """Return the process ids of our children, dead ones included."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = status.read_text(errors="replace").rpartition(")")[2].split()
            if int(fields[1]) == os.getpid():
                found.add(int(status.parent.name))
    return found


def left_processes(before: set[int]) -> list[str]:
    """Wait for the end of all new children; kill and return the command lines of those that stay."""
    stayed = []
    while new := children() - before:
        for pid in new:
            if not wait_for_end(pid, limit_s=END_LIMIT_S):
                stayed.append(Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
                os.kill(pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)
    return stayed


def restarted(server: EmbeddedServer) -> None:
    """Start a server again that a fault has ended."""
    try:
        server.connect().close()
    except ServerError:
        server.restart(server._settings)
