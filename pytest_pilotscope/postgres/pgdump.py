"""Clone a database that one may only read: its schema by pg_dump, its rows by COPY, all of one moment, as one dump in SQL."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable

import psycopg2.extensions
from psycopg2 import sql

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.places.environment import clean_environment
from pytest_pilotscope.postgres.binaries import find_program
from pytest_pilotscope.postgres.connecting import dsn_of
from pytest_pilotscope.postgres.environment import SESSION_VARIABLES
from pytest_pilotscope.postgres.sampling import Rows, places
from pytest_pilotscope.postgres.session import LOCK_LIMIT_MS, Session
from pytest_pilotscope.postgres.tables import Table

Write = Callable[[bytes], object]

# The text of values that is read as the same values again, and no limits: a clone takes its time.
_SETTINGS = """
    SELECT set_config(name, value, true) FROM (VALUES ('DateStyle', 'ISO'), ('IntervalStyle', 'postgres'), ('extra_float_digits', '3'),
        ('bytea_output', 'hex'), ('statement_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), ('transaction_timeout', '0'),
        ('row_security', 'off'), ('synchronize_seqscans', 'off'), ('lock_timeout', %s)) AS wanted (name, value)
    WHERE name IN (SELECT name FROM pg_settings)
"""
_OPTIONS = (
    "--schema-only", "--no-owner", "--no-privileges", "--no-comments", "--no-publications", "--no-subscriptions", "--no-security-labels",
    "--no-tablespaces", "--no-password", "--encoding=UTF8", f"--lock-wait-timeout={LOCK_LIMIT_MS}",
)  # fmt: skip


def begin_reading(session: Session) -> str:
    """Begin a transaction that reads the state of this moment and writes nothing; return the name of its snapshot."""
    session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    session.execute(_SETTINGS, (str(LOCK_LIMIT_MS),))
    return str(session.scalar("SELECT pg_export_snapshot()"))


def schema_of(dsn: Dsn, server_version: int, snapshot: str, hidden: Iterable[Table]) -> tuple[bytes, bytes]:
    """
    Return the SQL that makes everything but the `hidden` tables, before there are rows (tables, types), and after (indexes, constraints).

    Raise MissingServer if there is no pg_dump as new as the server, and ServerError with its message if it fails.
    """
    program = find_program("pg_dump", server_version // 10_000)
    left_out = [f"--exclude-table={_pattern(table)}" for table in hidden]
    keywords = psycopg2.extensions.parse_dsn(dsn.reveal())
    password = keywords.pop("password", None)
    kept = [name for name in os.environ if name.startswith("PG") and name not in SESSION_VARIABLES]
    environment = clean_environment(*kept) | ({"PGPASSWORD": password} if password else {})

    def section(name: str) -> bytes:
        command = [
            str(program),
            *_OPTIONS,
            f"--section={name}",
            f"--snapshot={snapshot}",
            *left_out,
            f"--dbname={dsn_of(**keywords).reveal()}",
        ]
        answer = subprocess.run(command, capture_output=True, check=False, env=environment)
        if answer.returncode != 0:
            told = " ".join(dsn.scrub(answer.stderr.decode(errors="replace")).split())
            raise ServerError(f"{program} cannot read the schema of {dsn}: {told}")
        return answer.stdout

    return section("pre-data"), section("post-data")


def write_rows(session: Session, table: Table, rows: Rows | None, write: Write) -> int:
    """Write all rows of a table, or these, as a COPY statement of a dump; return their number."""
    if not table.columns:
        return 0
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    statement = sql.SQL("SELECT {} FROM {}").format(columns, table.source)
    count = 0

    def counted(piece: bytes) -> None:
        nonlocal count
        count += piece.count(b"\n")
        write(piece)

    write(f"\nCOPY {session.text(table.identifier)} ({session.text(columns)}) FROM stdin;\n".encode())
    conditions = [sql.SQL("")] if rows is None else (sql.SQL(" WHERE {}").format(condition) for condition in places(rows))
    for condition in conditions:
        session.copy_out(statement + condition, counted)
    write(b"\\.\n\n")
    return count


def _pattern(table: Table) -> str:
    """Return a pattern of pg_dump that this table alone matches."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in (table.schema, table.name))
