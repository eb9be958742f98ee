"""
The one class through which this project talks to PostgreSQL.

It uses psycopg2 because that never prepares a statement unasked: every execution is planned, and planning is measured, too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import psycopg2
import psycopg2.extensions
from psycopg2 import sql as composing

from pytest_pilotscope.errors import LeftTransaction, LockHeld, QueryTimeout, ServerError, StatementFailed, shortened
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.copying import Chunks, Sink
from pytest_pilotscope.postgres.interrupts import cancelled_by_interrupt
from pytest_pilotscope.postgres.streaming import StatementError, Take, stream
from pytest_pilotscope.queries.statements import single

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.explain import Plan
    from pytest_pilotscope.postgres.steering import TimedRun

logger = logging.getLogger(__name__)

APPLICATION_NAME = "pilotscope"
_IDLE = psycopg2.extensions.TRANSACTION_STATUS_IDLE
_CONNECTED = 0  # CONNECTION_OK of libpq
_CLOSED_HERE = 1  # of psycopg2; 2 is a broken connection
_LOCK_NOT_AVAILABLE = "55P03"
QUERY_CANCELED = "57014"
"""The SQLSTATE of a statement that a time limit or somebody has ended."""
LOCK_NOTICE_MS, LOCK_LIMIT_MS = 2_000, 60_000
"""A statement that waits for a lock is named after the first time, and ends after the second."""

_LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %s, false)"
_LOCK_PATIENCE = f"SET LOCAL lock_timeout = {LOCK_LIMIT_MS}"

_FORBID_WRITING = "SET default_transaction_read_only = on"
# JIT is noise unless it is being tuned; NOTICEs ("table does not exist, skipping") are not worth reading.
_PREPARE_SESSION = (
    "SELECT set_config('jit', 'off', false), set_config('client_min_messages', 'warning', false), current_setting('statement_timeout'), "
    f"set_config('lock_timeout', '{LOCK_NOTICE_MS}', false), "
    "current_setting('idle_session_timeout', true), current_setting('idle_in_transaction_session_timeout'), "
    "current_setting('transaction_timeout', true)"
)
_LIMITS_OF_SESSIONS = ("idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")
"""The limits of a server after which it ends a session: one waits while a model is trained, or keeps a database of ours for this run."""
# From PostgreSQL 14 on, on platforms that can: the statement of a process that was killed ends, too.
_END_WITH_US = "SET client_connection_check_interval = '1s'"
_CHECKS_CONNECTION = 140_000
_HOLDERS = """
    SELECT DISTINCT l.pid, a.usename, a.application_name, a.state, l.mode, coalesce(l.relation::regclass::text, l.locktype)
    FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
    WHERE l.granted AND l.pid <> pg_backend_pid() AND l.mode IN ('AccessExclusiveLock', 'ExclusiveLock', 'ShareRowExclusiveLock')
    AND l.locktype NOT IN ('virtualxid', 'transactionid')
    AND l.database IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    ORDER BY l.pid LIMIT 3
"""

Row = tuple[Any, ...]
T = TypeVar("T")


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
        self.read_only = self._stays_read_only = False
        self.waiting: LockHeld | None = None
        prepared = self.execute(_PREPARE_SESSION)
        self._timeout_ms = 0
        if prepared[0][2] != "0":
            self._timeout_ms = int(self.scalar("SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"))
        for name, value in zip(_LIMITS_OF_SESSIONS, prepared[0][4:], strict=True):
            if value not in (None, "0"):
                self.execute("SELECT set_config(%s, '0', false)", (name,))
        if self.server_version >= _CHECKS_CONNECTION:
            with suppress(StatementFailed):
                self.execute(_END_WITH_US)

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
    def literals_are_standard(self) -> bool:
        """True if a backslash in a literal is an ordinary character, as in standard SQL; the server reports it after each statement."""
        return self._connection.get_parameter_status("standard_conforming_strings") == "on"

    @property
    def closed(self) -> bool:
        """True after `close()`, or when the server broke the connection."""
        return bool(self._connection.closed) or self._connection.info.status != _CONNECTED

    @property
    def closed_here(self) -> bool:
        """True after `close()`: the server did not break the connection."""
        return bool(self._connection.closed == _CLOSED_HERE)

    def cancel(self) -> None:
        """End the running statement; another thread may call this."""
        self._connection.cancel()

    def close(self) -> None:
        """End the session; closing twice is fine."""
        self._connection.close()

    @property
    def parameters(self) -> dict[str, str]:
        """The keywords that libpq connected with, without the password."""
        return dict(self._connection.get_dsn_parameters())

    def forbid_writing(self) -> None:
        """Make PostgreSQL refuse to write. It does not refuse ALTER SYSTEM: callers must ask `read_only` first."""
        self.refuse_writing()
        self.read_only = True

    def refuse_writing(self) -> None:
        """Make PostgreSQL refuse to write, and raise `LeftTransaction` after a statement that would change that."""
        self.execute(_FORBID_WRITING)
        self._stays_read_only = True

    def execute(self, sql: str | composing.Composable, params: Sequence[Any] | Mapping[str, Any] | None = None) -> list[Row]:
        """
        Run one statement and return its rows, `[]` when it has none. Without `params` a `%` in the text is an ordinary character.

        A statement that waits for a lock is run again with more patience, with a warning that names who holds locks. Within a transaction,
        and after `LOCK_LIMIT_MS`, it raises `LockHeld`.
        """
        return self._patiently(lambda: self._executed(sql, params))

    def _patiently(self, run: Callable[[], T]) -> T:
        """Run a statement; if it waits for a lock, say so, and run it again with a higher limit."""
        try:
            return run()
        except LockHeld as held:
            if self.transaction_open:
                raise
            logger.warning("waiting up to %d s for a lock: %s: %s", LOCK_LIMIT_MS // 1000, held.holders, shortened(held.sql))
            self.waiting = held
        self._executed(_LOCK_TIMEOUT, (str(LOCK_LIMIT_MS),))
        try:
            return run()
        finally:
            self.waiting = None
            if not self.closed:
                self._executed(_LOCK_TIMEOUT, (str(LOCK_NOTICE_MS),))

    def _executed(self, sql: str | composing.Composable, params: Sequence[Any] | Mapping[str, Any] | None) -> list[Row]:
        try:
            with self._connection.cursor() as cursor, cancelled_by_interrupt(self._connection):
                cursor.execute(sql, params)
                rows = cursor.fetchall() if cursor.description is not None else []
        except psycopg2.Error as error:
            self._fail(error, sql)
        if self._stays_read_only:
            self._stay_read_only(sql)
        return rows

    def _stay_read_only(self, sql: str | composing.Composable) -> None:
        """Raise `LeftTransaction` after a statement that allows later ones to write, and forbid it again."""
        shown = self._connection.get_parameter_status("default_transaction_read_only")  # from PostgreSQL 14 on the server reports it
        if shown == "off" or (shown is None and not self.transaction_open and self._setting("default_transaction_read_only") == "off"):
            with suppress(psycopg2.Error), self._connection.cursor() as cursor:
                cursor.execute(_FORBID_WRITING)
            raise LeftTransaction(
                f"a statement made its read-only session able to write; leave it out of the workload: {shortened(self.text(sql))}"
            )

    def _setting(self, name: str) -> str:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT current_setting(%s)", (name,))
            return str(cursor.fetchall()[0][0])

    def scalar(self, sql: str | composing.Composable, params: Sequence[Any] | Mapping[str, Any] | None = None) -> Any:
        """Return the value of a statement that returns one row of one column; raise ServerError when it returns anything else."""
        rows = self.execute(sql, params)
        if len(rows) != 1 or len(rows[0]) != 1:
            raise ServerError(f"one value was expected, found {len(rows)} rows of {len(rows[0]) if rows else 0} columns: {self.text(sql)}")
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
        self.execute(f"SAVEPOINT {savepoint}" if self._depth else f"BEGIN; {_LOCK_PATIENCE}")
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if not self.closed:
                self.execute(f"ROLLBACK TO SAVEPOINT {savepoint}; RELEASE SAVEPOINT {savepoint}" if self._depth else "ROLLBACK")

    @property
    def transaction_open(self) -> bool:
        """True within a transaction, also in one that failed."""
        return bool(self._connection.info.transaction_status not in (_IDLE, psycopg2.extensions.TRANSACTION_STATUS_UNKNOWN))

    def unable_to_write(self, run: Callable[[], T]) -> T:
        """
        Call a function in a read-only transaction that is always rolled back, so that it leaves nothing behind, neither data nor settings.

        Its statements are in a subtransaction: inside a read-only transaction, PostgreSQL lets none be made writable
        (`check_transaction_read_only` in variable.c). Raise `LeftTransaction` if a statement has ended the transaction. Raise `LockHeld` as
        `execute` does.
        """
        return self._patiently(lambda: self._unable_to_write(run))

    def _unable_to_write(self, run: Callable[[], T]) -> T:
        self._executed("BEGIN READ ONLY; SAVEPOINT pilotscope_read_only", None)
        try:
            result = run()
        except LockHeld as held:
            self._end_read_only()
            raise LockHeld(held.sql, holders=self._holders()) from None
        except BaseException:
            self._end_read_only()
            raise
        self._end_read_only()
        return result

    def _end_read_only(self) -> None:
        if self.closed:
            return
        left = not self.transaction_open
        if not left:
            try:
                self._executed("ROLLBACK TO SAVEPOINT pilotscope_read_only", None)
            except StatementFailed:  # a transaction of the statement's own
                left = True
        self._executed("ROLLBACK; DEALLOCATE ALL; SELECT pg_advisory_unlock_all()", None)  # no transaction undoes these two
        if left:
            raise LeftTransaction(
                f"a statement ended the read-only transaction that it ran in, in database {self.database!r}; leave COMMIT, ROLLBACK and "
                "BEGIN out of queries"
            )

    def end_transaction(self) -> list[str]:
        """Roll back an open transaction and return to autocommit; name what was found."""
        found = ["an open transaction"] if self.transaction_open else []
        self._connection.rollback()  # does nothing to a transaction that SQL has begun
        if self.transaction_open:
            self.execute("ROLLBACK")
        self._depth = 0
        if not self._connection.autocommit:
            found.append("a session without autocommit")
            self._connection.autocommit = True
        return found

    def reset(self, settings: Mapping[str, str]) -> None:
        """Discard everything that the session carries (settings, temporary tables, prepared statements, locks, role), then set these."""
        stays, self._stays_read_only = self._stays_read_only, False
        try:
            self.lift_limit()
            self.execute("DISCARD ALL")
            for name, value in settings.items():
                self.execute("SELECT set_config(%s, %s, false)", (name, value))
            self._timeout_ms = int(self.scalar("SELECT setting FROM pg_settings WHERE name = 'statement_timeout'"))
        finally:
            self._stays_read_only = stays

    def lift_limit(self) -> None:
        """Take the statement timeout away, whoever has set it, and however short it is."""
        self._timeout_ms = self._timeout_ms or 1  # so that a statement that it ends is a time-out
        self._lift(0)

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
        return parse_plan(self.scalar(f"EXPLAIN (FORMAT JSON{chosen}) {single(sql)}"))

    def copy_in(self, table: str, columns: Sequence[str], chunks: Iterable[bytes]) -> None:
        """Load rows with COPY: `chunks` are pieces, of any size, of COPY's text format in UTF-8."""
        names = composing.SQL(", ").join(map(composing.Identifier, columns))
        self.copy_from(composing.SQL("COPY {} ({}) FROM STDIN").format(_identifier(table), names), chunks)

    def copy_from(self, statement: str | composing.Composable, chunks: Iterable[bytes]) -> None:
        """Load rows with a `COPY ... FROM STDIN` statement; `chunks` are pieces, of any size, in the format of the statement."""
        self._copy(statement, Chunks(chunks))

    def copy_out(self, sql: str | composing.Composable, write: Callable[[bytes], object]) -> None:
        """Call `write` with piece after piece of the result of `sql` in COPY's text format in UTF-8."""
        query = composing.SQL(sql) if isinstance(sql, str) else sql
        self._copy(composing.SQL("COPY ({}) TO STDOUT").format(query), Sink(write))

    def subplans(self, sql: str) -> dict[frozenset[str], float]:
        """Return the planner's estimated rows of every subplan of `sql` that it considers, by the aliases of the subplan."""
        from pytest_pilotscope.postgres import steering

        return steering.subplans(self, sql)

    def cardinalities(self, rows: Mapping[frozenset[str], float]) -> AbstractContextManager[None]:
        """Make the planner use these numbers of rows in place of its own estimates within the block."""
        from pytest_pilotscope.postgres import steering

        return steering.cardinalities(self, rows)

    def hints(
        self, *, join_order: str | None = None, methods: Mapping[str, str] | Mapping[frozenset[str], str] | None = None
    ) -> AbstractContextManager[None]:
        """Make the planner keep to this join order and these join and scan methods within the block."""
        from pytest_pilotscope.postgres import steering

        return steering.hints(self, join_order=join_order, methods=methods)

    def planner_settings(self, settings: Mapping[str, str]) -> AbstractContextManager[None]:
        """Set these settings of the planner within the block."""
        from pytest_pilotscope.postgres.plannersettings import planner_settings

        return planner_settings(self, settings)

    def hidden_indexes(self, names: Iterable[str]) -> AbstractContextManager[None]:
        """Hide the indexes of these names from the planner within the block."""
        from pytest_pilotscope.postgres import steering

        return steering.hidden_indexes(self, names)

    def timed(self, sql: str) -> TimedRun:
        """Run `sql` and return its rows with the server's own planning and execution time in ms."""
        from pytest_pilotscope.postgres import steering

        return steering.timed(self, sql)

    def timed_stream(self, sql: str, take: Take | None) -> TimedRun:
        """Run `sql` like `stream`, and return its number of rows with the server's own planning and execution time in ms."""
        from pytest_pilotscope.postgres import steering

        return steering.timed_stream(self, sql, take)

    def stream(self, sql: str, take: Take | None) -> int:
        """Run one statement, hand its rows as text to `take` while they arrive, and return their number; without `take` drop them."""
        return self._patiently(lambda: self._streamed(sql, take))

    def _streamed(self, sql: str, take: Take | None) -> int:
        try:
            with cancelled_by_interrupt(self._connection):
                count = stream(self._connection, sql, take)
        except StatementError as error:
            self._raise(error, sql, str(error), sqlstate=error.sqlstate, detail=error.detail)
        if self._stays_read_only:
            self._stay_read_only(sql)
        return count

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

    def _copy(self, statement: str | composing.Composable, file: Any) -> None:
        self._patiently(lambda: self._copied(statement, file))

    def _copied(self, statement: str | composing.Composable, file: Any) -> None:
        try:
            with self._connection.cursor() as cursor, cancelled_by_interrupt(self._connection):
                cursor.copy_expert(statement, file, size=1 << 18)
        except psycopg2.Error as error:
            self._fail(error, statement)

    def _holders(self) -> list[str]:
        """Name the sessions that hold strong locks in this database, as far as this session can ask."""
        if self.transaction_open:
            return []
        with suppress(StatementFailed):
            return [
                f"process {pid} ({name or 'unnamed'} of {user}, {state}) holds {mode} on {what}"
                for pid, user, name, state, mode, what in self._executed(_HOLDERS, None)
            ]
        return []

    def text(self, sql: str | composing.Composable) -> str:
        """Return SQL as the server would get it."""
        return sql if isinstance(sql, str) else sql.as_string(self._connection)

    def _fail(self, error: psycopg2.Error, sql: str | composing.Composable) -> NoReturn:
        """Raise this project's error for the driver's."""
        self._raise(error, sql, error.diag.message_primary or str(error).strip(), sqlstate=error.pgcode, detail=error.diag.message_detail)

    def _raise(
        self, error: Exception, sql: str | composing.Composable, message: str, *, sqlstate: str | None, detail: str | None
    ) -> NoReturn:
        """Raise this project's error for one of the server; a lost connection has no SQLSTATE."""
        if self.closed:
            raise StatementFailed(str(sql), reason="the connection to the server is closed") from error
        if sqlstate == QUERY_CANCELED and self._timeout_ms and "user request" not in message:
            raise QueryTimeout(self.text(sql), timeout_ms=self._timeout_ms) from None
        if sqlstate == _LOCK_NOT_AVAILABLE:
            raise LockHeld(self.text(sql), holders=self._holders()) from None
        more = f" ({detail})" if detail else ""
        raise StatementFailed(self.text(sql), reason=" ".join(message.split()) + more, sqlstate=sqlstate or "") from error


def _identifier(table: str) -> composing.Identifier:
    """Return a table, or schema.table, as a quoted identifier."""
    return composing.Identifier(*table.split(".", 1))
