"""
The one class through which this project talks to PostgreSQL.

It uses psycopg2 because that never prepares a statement unasked: every execution is planned, and planning is measured, too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg2
import psycopg2.extensions
from psycopg2 import sql as composing

from pytest_pilotscope.errors import CannotConnect, QueryTimeout, ServerError, StatementFailed
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.environment import hidden_variables
from pytest_pilotscope.postgres.interrupts import cancelled_by_interrupt

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.explain import Plan
    from pytest_pilotscope.postgres.steering import TimedRun

APPLICATION_NAME = "pilotscope"
IDENTITY = "pilotscope_server.token"
"""The setting by which a server that was started here is known: each has another value, in its data directory."""

_MAY_HEAL = re.compile(
    "Is the server running|Connection (refused|reset|timed out)|closed the connection|timeout expired|No route to host|unreachable|"
    "temporarily unavailable|could not translate host name|starting up|shutting down|not yet accepting|in recovery mode|too many clients|"
    "slots are reserved"
)
# A server of ours has no password file, TLS or Kerberos. The file must not exist: libpq warns about any other kind than a plain file.
_OWN = {"passfile": "/dev/null/none", "sslmode": "disable", "gssencmode": "disable"}
_QUERY_CANCELED = "57014"
# JIT is noise unless it is being tuned; NOTICEs ("table does not exist, skipping") are not worth reading.
_PREPARE_SESSION = (
    "SELECT set_config('jit', 'off', false), set_config('client_min_messages', 'warning', false), current_setting('statement_timeout')"
)

Row = tuple[Any, ...]


class Session:
    """
    One psycopg2 connection in autocommit, application_name `pilotscope`, with JIT off.

    Failures are `StatementFailed` (PostgreSQL's message, SQLSTATE, the statement shortened) and `QueryTimeout`. Ctrl-C cancels the running
    statement on the server. A session belongs to one thread at a time. Its `repr` and `dsn` never show a password.
    """

    def __init__(self, connection: psycopg2.extensions.connection) -> None:
        self._connection = connection
        connection.autocommit = True
        self._depth = 0
        self.read_only = False
        prepared = self.execute(_PREPARE_SESSION)
        self._timeout_ms = 0 if prepared[0][2] == "0" else int(self._timeout_setting())

    def __repr__(self) -> str:
        return f"Session({self.dsn!r})"

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def dsn(self) -> str:
        """The connection string, without its password."""
        return str(Dsn(self._connection.dsn))

    @property
    def database(self) -> str:
        """Name of the database this session is in."""
        return str(self._connection.info.dbname)

    @property
    def server_version(self) -> int:
        """PostgreSQL's version as one number, 160014 for 16.14."""
        return int(self._connection.info.server_version)

    @property
    def backend_pid(self) -> int:
        """Process id of this session's server process, on the server's machine."""
        return int(self._connection.info.backend_pid)

    @property
    def closed(self) -> bool:
        """True after `close()`, or when the server broke the connection."""
        return bool(self._connection.closed)

    def close(self) -> None:
        """End the session; closing twice is fine."""
        self._connection.close()

    def forbid_writing(self) -> None:
        """Make PostgreSQL refuse to write. It does not refuse ALTER SYSTEM: callers must ask `read_only` first."""
        self.execute("SET default_transaction_read_only = on")
        self.read_only = True

    def execute(self, sql: str | composing.Composable, params: Sequence[Any] | Mapping[str, Any] | None = None) -> list[Row]:
        """Run one statement and return its rows, `[]` when it has none. Without `params` a `%` in the text is an ordinary character."""
        try:
            with self._connection.cursor() as cursor, cancelled_by_interrupt(self._connection):
                cursor.execute(sql, params)
                return cursor.fetchall() if cursor.description is not None else []
        except psycopg2.Error as error:
            self._fail(error, sql)

    def scalar(self, sql: str | composing.Composable, params: Sequence[Any] | Mapping[str, Any] | None = None) -> Any:
        """Return the value of a statement that returns one row of one column; raise ServerError when it returns anything else."""
        rows = self.execute(sql, params)
        if len(rows) != 1 or len(rows[0]) != 1:
            raise ServerError(f"one value was expected, found {len(rows)} rows of {len(rows[0]) if rows else 0} columns: {self._text(sql)}")
        return rows[0][0]

    def take_notices(self) -> list[str]:
        """Return the WARNINGs that PostgreSQL sent since the last call, oldest first, at most the last 50."""
        notices = [notice.strip() for notice in self._connection.notices]
        del self._connection.notices[:]
        return notices

    @contextmanager
    def rolled_back(self) -> Iterator[None]:
        """
        Run the block in a transaction that is always rolled back, so that PostgreSQL itself undoes its changes and settings.

        Blocks nest: an inner one is a savepoint.
        """
        savepoint = f"pilotscope_{self._depth}"
        self.execute(f"SAVEPOINT {savepoint}" if self._depth else "BEGIN")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self.closed:
                self.execute(f"ROLLBACK TO SAVEPOINT {savepoint}; RELEASE SAVEPOINT {savepoint}" if self._depth else "ROLLBACK")

    @contextmanager
    def statement_timeout(self, timeout_ms: int) -> Iterator[None]:
        """End statements of the block that run for more than `timeout_ms` with QueryTimeout; 0 is no limit."""
        before_ms = self._timeout_ms
        self._limit(timeout_ms)
        try:
            yield
        finally:
            self._lift(before_ms)
            self._timeout_ms = before_ms

    def explain(self, sql: str, **options: bool | str) -> Plan:
        """Return the plan of `sql`; `options` are EXPLAIN's own, `analyze=True` for instance (which runs the statement)."""
        from pytest_pilotscope.postgres.explain import parse_plan

        chosen = "".join(f", {name.upper()} {value if isinstance(value, str) else str(value).upper()}" for name, value in options.items())
        return parse_plan(self.scalar(f"EXPLAIN (FORMAT JSON{chosen}) {sql}"))

    def copy_in(self, table: str, columns: Sequence[str], chunks: Iterable[bytes], *, binary: bool = False) -> None:
        """Load rows with COPY: `chunks` are pieces, of any size, of COPY's text format in UTF-8, or of its binary format."""
        statement = composing.SQL("COPY {} ({}) FROM STDIN{}").format(
            _identifier(table),
            composing.SQL(", ").join(map(composing.Identifier, columns)),
            composing.SQL(" (FORMAT binary)" if binary else ""),
        )
        self.copy_from(statement, chunks)

    def copy_from(self, statement: str | composing.Composable, chunks: Iterable[bytes]) -> None:
        """Load rows with a `COPY ... FROM STDIN` statement; `chunks` are pieces, of any size, in the format of the statement."""
        self._copy(statement, io.BufferedReader(_Chunks(chunks), buffer_size=1 << 20))

    def copy_out(self, sql: str, write: Callable[[bytes], object], *, binary: bool = False) -> None:
        """Call `write` with piece after piece of the result of `sql` in COPY's text (UTF-8) or binary format."""
        statement = composing.SQL("COPY ({}) TO STDOUT{}").format(composing.SQL(sql), composing.SQL(" (FORMAT binary)" if binary else ""))
        self._copy(statement, _Sink(write))

    def subplans(self, sql: str) -> dict[frozenset[str], float]:
        """Return the planner's estimated rows of every subplan of `sql` that it considers, by the aliases of the subplan."""
        from pytest_pilotscope.postgres import steering

        return steering.subplans(self, sql)

    def cardinalities(self, rows: Mapping[frozenset[str], float]) -> AbstractContextManager[None]:
        """Make the planner use these numbers of rows in place of its own estimates within the block."""
        from pytest_pilotscope.postgres import steering

        return steering.cardinalities(self, rows)

    def hints(self, *, join_order: str | None = None, methods: Mapping[str, str] | None = None) -> AbstractContextManager[None]:
        """Make the planner keep to this join order and these join and scan methods within the block."""
        from pytest_pilotscope.postgres import steering

        return steering.hints(self, join_order=join_order, methods=methods)

    def hidden_indexes(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Hide the indexes of these names from the planner within the block."""
        from pytest_pilotscope.postgres import steering

        return steering.hidden_indexes(self, names)

    def timed(self, sql: str) -> TimedRun:
        """Run `sql` and return its rows with the server's own planning and execution time in ms."""
        from pytest_pilotscope.postgres import steering

        return steering.timed(self, sql)

    def _limit(self, timeout_ms: int) -> None:
        self.execute("SELECT set_config('statement_timeout', %s, false)", (str(timeout_ms),))
        self._timeout_ms = timeout_ms

    def _lift(self, timeout_ms: int) -> None:
        """Put a limit back, trying again if the old limit cuts that off; a failed or lost transaction takes its limit with it."""
        while not self.closed and self._connection.info.transaction_status != psycopg2.extensions.TRANSACTION_STATUS_INERROR:
            try:
                self._limit(timeout_ms)
            except QueryTimeout:
                continue
            return

    def _timeout_setting(self) -> str:
        return str(self.scalar("SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"))

    def _copy(self, statement: str | composing.Composable, file: Any) -> None:
        try:
            with self._connection.cursor() as cursor, cancelled_by_interrupt(self._connection):
                cursor.copy_expert(statement, file, size=1 << 18)
        except psycopg2.Error as error:
            self._fail(error, statement)

    def _text(self, sql: str | composing.Composable) -> str:
        return sql if isinstance(sql, str) else sql.as_string(self._connection)

    def _fail(self, error: psycopg2.Error, sql: str | composing.Composable) -> NoReturn:
        """Raise this project's error for the driver's; a lost connection has no SQLSTATE."""
        if self.closed:
            raise StatementFailed(str(sql), reason="the connection to the server is closed") from error
        message = error.diag.message_primary or str(error).strip()
        if error.pgcode == _QUERY_CANCELED and self._timeout_ms and "user request" not in message:
            raise QueryTimeout(self._text(sql), timeout_ms=self._timeout_ms) from None
        detail = f" ({error.diag.message_detail})" if error.diag.message_detail else ""
        raise StatementFailed(self._text(sql), reason=" ".join(message.split()) + detail, sqlstate=error.pgcode or "") from error


class _Chunks(io.RawIOBase):
    """A sequence of byte strings of any size, read as a file."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


class _Sink:
    """An object with a `write`, as psycopg2's COPY TO wants."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write


def _identifier(table: str) -> composing.Identifier:
    """Return a table, or schema.table, as a quoted identifier."""
    return composing.Identifier(*table.split(".", 1))


def dsn_of(**keywords: str | int) -> Dsn:
    """Return a connection string of libpq's keywords, quoted as needed."""
    return Dsn(psycopg2.extensions.make_dsn(None, **keywords))


def connect(dsn: Dsn, *, token: str | None = None, **overrides: Any) -> Session:
    """
    Open a session; `overrides` are libpq's keywords, such as `dbname`, and win over the DSN.

    A server that was started here has a `token`. Then no environment variable, service or password file has a say, and another server that
    answers is refused. For other servers, the variables that set something in a session have none.
    Raise ServerError when nothing answers, or only not yet, and CannotConnect for all else; the text names the DSN without the password.
    """
    _check(dsn)
    keywords = overrides if token is None else {**_OWN, **overrides}
    try:
        with hidden_variables(everything=token is not None):
            connection = psycopg2.connect(dsn.reveal(), application_name=APPLICATION_NAME, client_encoding="utf8", **keywords)
    except (psycopg2.Error, UnicodeError) as error:
        reason = " ".join(dsn.scrub(str(error)).split())
        kind = ServerError if _MAY_HEAL.search(reason) else CannotConnect
        raise kind(f"cannot connect to {dsn}: {reason}") from None  # the driver's frames would show the password
    try:
        session = Session(connection)
        if token is not None and session.scalar("SELECT current_setting(%s, true)", (IDENTITY,)) != token:
            raise CannotConnect(f"another server than the one that was started here answers at {dsn}: it does not have the token of ours")
        return session
    except BaseException:
        connection.close()
        raise


def _check(dsn: Dsn) -> None:
    """Raise ServerError for a string that libpq would misread: its own message would quote a piece of the password."""
    try:
        psycopg2.extensions.parse_dsn(dsn.reveal())
    except psycopg2.Error:
        readable = False
    else:
        readable = not dsn.ambiguous
    if not readable:
        raise ServerError(
            f"cannot read the connection string {dsn}: expected postgresql://user:password@host:port/database or key=value pairs; "
            "in a URL, write special characters of the password percent-encoded (@ is %40, / is %2F, : is %3A, % is %25)"
        )
