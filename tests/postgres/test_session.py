"""A session: statements, errors, transactions, timeouts, COPY, Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from pytest_pilotscope.errors import LeftTransaction, LockHeld, QueryTimeout, ServerError, StatementFailed
from pytest_pilotscope.postgres import session as session_module
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.interrupts import cancelled_by_interrupt
from pytest_pilotscope.postgres.session import Session


def test_execute_returns_rows_and_leaves_percent_signs_alone(newest_scratch: Session) -> None:
    """Without parameters a % is a character; with them it is a placeholder."""
    assert newest_scratch.execute("SELECT 'a' LIKE '%a', 7 % 4") == [(True, 3)]
    assert newest_scratch.execute("SELECT %s::int + 1", (1,)) == [(2,)]
    assert newest_scratch.execute("CREATE TABLE t (i int)") == []


def test_scalar_wants_exactly_one_value(newest_scratch: Session) -> None:
    """Two rows are not a value."""
    expected = "one value was expected, found 2 rows of 1 columns: SELECT generate_series(1, 2)"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        newest_scratch.scalar("SELECT generate_series(1, 2)")


def test_a_failed_statement_names_reason_code_and_statement(scratch: Session) -> None:
    """PostgreSQL's message, its SQLSTATE and the statement are in the error."""
    expected = 'statement failed: relation "nowhere" does not exist [42P01]: SELECT * FROM nowhere'
    with pytest.raises(StatementFailed, match=f"^{re.escape(expected)}$") as caught:
        scratch.execute("SELECT *\n  FROM nowhere")
    assert caught.value.sqlstate == "42P01"
    assert scratch.scalar("SELECT 1") == 1


def test_a_long_statement_is_shortened(newest_scratch: Session) -> None:
    """An error shows at most 200 characters of the statement."""
    with pytest.raises(
        StatementFailed, match=r"^statement failed: division by zero \[22012\]: SELECT 1/0, 1,( 1,){60} \.\.\.$|\.\.\.$"
    ) as caught:
        newest_scratch.execute("SELECT 1/0" + ", 1" * 1000)
    assert len(str(caught.value).split("]: ")[1]) == 200


def test_session_settings(scratch: Session) -> None:
    """JIT is off, the application name says who we are, autocommit is on."""
    assert scratch.execute("SELECT current_setting('jit'), current_setting('application_name')") == [("off", "pilotscope")]
    assert scratch.scalar("SELECT pg_current_xact_id_if_assigned()") is None


def test_nothing_is_prepared(newest_scratch: Session) -> None:
    """The same statement ten times is planned ten times."""
    for _ in range(10):
        newest_scratch.execute("SELECT %s::int", (1,))
    assert newest_scratch.scalar("SELECT count(*) FROM pg_prepared_statements") == 0


def test_rolled_back_undoes_rows_and_settings(newest_scratch: Session) -> None:
    """PostgreSQL undoes the changes of the block, in nested blocks too."""
    newest_scratch.execute("CREATE TABLE t (i int)")
    with newest_scratch.rolled_back():
        newest_scratch.execute("INSERT INTO t VALUES (1)")
        with newest_scratch.rolled_back():
            newest_scratch.execute("INSERT INTO t VALUES (2)")
            newest_scratch.execute("SET LOCAL enable_hashjoin = off")
        assert newest_scratch.execute("SELECT i, current_setting('enable_hashjoin') FROM t") == [(1, "on")]
    assert newest_scratch.scalar("SELECT count(*) FROM t") == 0


def test_rolled_back_after_a_failed_statement(newest_scratch: Session) -> None:
    """A failure inside the block reaches the caller and the session is usable afterwards; an inner block can fail alone."""
    with newest_scratch.rolled_back():
        with (
            pytest.raises(StatementFailed, match=r"^statement failed: division by zero \[22012\]: SELECT 1/0$"),
            newest_scratch.rolled_back(),
        ):
            newest_scratch.execute("SELECT 1/0")
        assert newest_scratch.scalar("SELECT 1") == 1
    with pytest.raises(ValueError, match=r"^mine$"), newest_scratch.rolled_back():
        raise ValueError("mine")
    assert newest_scratch.scalar("SELECT 1") == 1


def test_a_timeout_is_its_own_error_and_ends_with_the_block(scratch: Session) -> None:
    """The limit holds inside the block, nested limits come back, and none is left."""
    with scratch.statement_timeout(1000):
        expected = "statement cut off after 20 ms: SELECT pg_sleep(5)"
        with pytest.raises(QueryTimeout, match=f"^{re.escape(expected)}$") as caught, scratch.statement_timeout(20):
            scratch.execute("SELECT pg_sleep(5)")
        assert caught.value.timeout_ms == 20
        assert scratch.scalar("SHOW statement_timeout") == "1s"
    assert scratch.scalar("SHOW statement_timeout") == "0"


def test_a_timeout_inside_a_transaction_leaves_the_session_usable(newest_scratch: Session) -> None:
    """A limit set inside a transaction goes with it when the statement was cut off."""
    with (
        newest_scratch.rolled_back(),
        pytest.raises(QueryTimeout, match=r"^statement cut off after 20 ms: "),
        newest_scratch.statement_timeout(20),
    ):
        newest_scratch.execute("SELECT pg_sleep(5)")
    assert newest_scratch.scalar("SHOW statement_timeout") == "0"


def test_a_timeout_of_the_server_is_a_timeout_too(newest_server: EmbeddedServer, newest_scratch: Session) -> None:
    """A limit that the database sets for everybody is noticed and named."""
    newest_scratch.execute(f"ALTER DATABASE {newest_scratch.database} SET statement_timeout = '30ms'")
    with newest_server.connect(newest_scratch.database) as session, pytest.raises(QueryTimeout, match=r"^statement cut off after 30 ms: "):
        session.execute("SELECT pg_sleep(5)")


def test_another_session_cancelling_is_a_failure(newest_server: EmbeddedServer, newest_scratch: Session) -> None:
    """A statement cancelled by somebody else is not counted as a timeout, even with a limit in force."""

    def cancel() -> None:
        sleeping = "pid = %s AND state = 'active' AND query LIKE 'SELECT pg_sleep%%'"
        with newest_server.connect() as other:
            while not other.execute(f"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE {sleeping}", (newest_scratch.backend_pid,)):
                pass

    thread = threading.Thread(target=cancel)
    expected = r"^statement failed: canceling statement due to user request \[57014\]: SELECT pg_sleep\(20\)$"
    with newest_scratch.statement_timeout(60_000), pytest.raises(StatementFailed, match=expected):
        _execute_beside(thread, newest_scratch, "SELECT pg_sleep(20)")
    thread.join()


def test_copy_in_and_out(scratch: Session) -> None:
    """Chunks of any size go in; COPY gives back what went in."""
    scratch.execute('CREATE TABLE "T" (i int, "B" text)')
    scratch.copy_in("T", ["i", "B"], [b"1\ta", b"\n2\t", b"", b"\\N\n"])
    pieces: list[bytes] = []
    scratch.copy_out('SELECT * FROM "T" ORDER BY i', pieces.append)
    assert b"".join(pieces) == b"1\ta\n2\t\\N\n"
    scratch.copy_in("public.T", ["i", "B"], pieces)
    assert scratch.scalar('SELECT count(*) FROM "T"') == 4


def test_a_failed_copy_is_reported_and_an_error_of_the_source_passes_through(newest_scratch: Session) -> None:
    """COPY's own errors are StatementFailed and leave nothing; an exception of the generator of chunks is not swallowed."""
    newest_scratch.execute("CREATE TABLE t (i int)")
    expected = 'statement failed: invalid input syntax for type integer: "x" [22P02]: COPY "t" ("i") FROM STDIN'
    with pytest.raises(StatementFailed, match=f"^{re.escape(expected)}$"):
        newest_scratch.copy_in("t", ["i"], [b"1\nx\n"])
    with pytest.raises(StatementFailed, match="broken generator"):
        newest_scratch.copy_in("t", ["i"], (_fail() for _ in range(1)))
    assert newest_scratch.scalar("SELECT count(*) FROM t") == 0


def _execute_beside(thread: threading.Thread, session: Session, sql: str, *, streamed: bool = False) -> None:
    """Run `sql` while `thread` works against it."""
    thread.start()
    if streamed:
        session.stream(sql, None)
    else:
        session.execute(sql)


def _fail() -> bytes:
    raise ValueError("broken generator")


def test_a_limit_does_not_keep_itself_in_force(newest_scratch: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine so busy that lifting the limit takes longer than the limit, it is tried until it is lifted."""
    original, slow = Session.execute, iter([True, True])

    def execute(self: Session, sql: Any, params: Any = None) -> Any:
        late = str(sql).startswith("SELECT set_config") and params == ("0",) and next(slow, False)
        return original(self, f"SELECT pg_sleep(0.05); {sql}" if late else sql, params)

    monkeypatch.setattr(Session, "execute", execute)
    with newest_scratch.statement_timeout(10):
        pass
    assert next(slow, None) is None
    assert newest_scratch.scalar("SHOW statement_timeout") == "0"


def test_warnings_can_be_taken(newest_scratch: Session) -> None:
    """WARNINGs are kept until they are asked for; NOTICEs are not sent."""
    newest_scratch.execute("DROP TABLE IF EXISTS nowhere")
    newest_scratch.execute("DO $$ BEGIN RAISE WARNING 'look'; END $$")
    assert newest_scratch.take_notices() == ["WARNING:  look"]
    assert newest_scratch.take_notices() == []


@pytest.mark.parametrize("streamed", [True, False])
def test_ctrl_c_cancels_the_running_statement(newest_server: EmbeddedServer, newest_scratch: Session, streamed: bool) -> None:
    """SIGINT while the server is busy raises KeyboardInterrupt at once, the statement ends on the server and the session lives on."""

    def interrupt() -> None:
        with newest_server.connect() as other:
            while other.scalar("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(21)%'") == 0:
                pass
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        _execute_beside(thread, newest_scratch, "SELECT pg_sleep(21)", streamed=streamed)
    thread.join()
    assert newest_scratch.scalar("SELECT 1") == 1  # the session answers, so its statement has ended
    with newest_server.connect() as other:
        assert other.scalar("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'SELECT pg_sleep(21)%'") == 0


def test_a_cancel_that_fails_is_not_the_last(newest_server: EmbeddedServer, newest_scratch: Session) -> None:
    """If the server cannot be told, the thread that tells it lives on, and the next Ctrl-C is told again."""
    told = threading.Semaphore(0)

    class Unreachable:
        def cancel(self) -> None:
            told.release()
            raise OSError("no route to host")

    def interrupt() -> None:
        with newest_server.connect() as other:
            while other.scalar("SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(1.5)'") == 0:
                pass
        os.kill(os.getpid(), signal.SIGINT)

    def interrupted() -> None:
        with cancelled_by_interrupt(Unreachable()), newest_scratch._connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(1.5)")

    for _ in range(2):
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        thread.join()
        assert told.acquire(timeout=10)


def test_signals_outside_a_statement_are_pythons_own(newest_scratch: Session) -> None:
    """When no statement runs, the wakeup descriptor is as it was and Ctrl-C is an ordinary KeyboardInterrupt."""
    assert newest_scratch.scalar("SELECT 1") == 1
    assert signal.set_wakeup_fd(-1) == -1
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        signal.raise_signal(signal.SIGINT)


def test_a_lost_connection_is_a_failure(newest_server: EmbeddedServer, newest_scratch: Session) -> None:
    """When the server ends a session, the next statement fails with a message and leaving a block does not hide it."""
    with newest_server.connect() as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (newest_scratch.backend_pid,))
    with (
        pytest.raises(
            StatementFailed, match=r"^statement failed: the connection to the server is closed: BEGIN; SET LOCAL lock_timeout = 60000$"
        ),
        newest_scratch.rolled_back(),
    ):
        pass
    assert newest_scratch.closed


@pytest.mark.parametrize("name", ["idle_session_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"])
def test_no_limit_of_the_server_ends_a_session(newest_server: EmbeddedServer, newest_scratch: Session, name: str) -> None:
    """A session that waits for a training must be there after it; its settings stay what they were for everybody else."""
    if newest_scratch.scalar("SELECT count(*) FROM pg_settings WHERE name = %s", (name,)) == 0:
        pytest.skip(f"this PostgreSQL has no {name}")
    newest_scratch.execute(f"ALTER DATABASE {newest_scratch.database} SET {name} = 100")
    with newest_server.connect(newest_scratch.database) as session:
        if name != "idle_session_timeout":
            session.execute("BEGIN")
        time.sleep(0.5)
        assert session.scalar(f"SHOW {name}") == "0"
        assert session.scalar("SELECT reset_val FROM pg_settings WHERE name = %s", (name,)) == "100"


def test_repr_shows_where_it_is_connected(newest_server: EmbeddedServer) -> None:
    """The text form of a session names the database."""
    with newest_server.connect() as session:
        assert "dbname=postgres" in repr(session)
        assert session.database == "postgres"


def test_a_closed_session_says_so(newest_server: EmbeddedServer) -> None:
    """Statements and COPY after `close` fail like those after a lost connection."""
    session = newest_server.connect()
    session.close()
    session.close()
    with pytest.raises(StatementFailed, match=r"^statement failed: the connection to the server is closed: SELECT 1$"):
        session.execute("SELECT 1")
    with pytest.raises(StatementFailed, match=r"^statement failed: the connection to the server is closed: .*COPY"):
        session.copy_in("t", ["i"], [b"1\n"])


@pytest.mark.slow
def test_a_lock_of_somebody_else_is_named_and_waited_for(
    newest_server: EmbeddedServer, newest_scratch: Session, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a short wait a warning says who holds which lock; the statement goes on when the lock is free, else it ends with an error."""
    newest_scratch.execute("CREATE TABLE t (i int)")
    with newest_server.connect(newest_scratch.database) as other:
        other.execute("BEGIN; LOCK TABLE t")
        holder = rf"process {other.backend_pid} \(pilotscope of postgres, idle in transaction\) holds AccessExclusiveLock on t"
        threading.Timer(session_module.LOCK_NOTICE_MS / 1e3 + 0.5, other.execute, ["COMMIT"]).start()
        assert newest_scratch.execute("SELECT * FROM t") == []
        assert re.fullmatch(rf"waiting up to 60 s for a lock: {holder}: SELECT \* FROM t", caplog.messages[-1])
        monkeypatch.setattr(session_module, "LOCK_LIMIT_MS", 100)
        other.execute("BEGIN; LOCK TABLE t")
        expected = (
            rf"^a statement waited too long for a lock: {holder}; end that session, or run again when it has ended; "
            r"the statement: EXPLAIN \(FORMAT JSON\) SELECT \* FROM t$"
        )
        with pytest.raises(LockHeld, match=expected):
            newest_scratch.explain("SELECT * FROM t")
        with pytest.raises(LockHeld, match=f"^a statement waited too long for a lock: {holder}"):
            newest_scratch.unable_to_write(lambda: newest_scratch.execute("SELECT * FROM t"))
        other.execute("COMMIT")
    assert newest_scratch.scalar("SHOW lock_timeout") == "2s"


ESCAPES = [
    "SELECT set_config('transaction_read_only', 'off', false)",
    "SET TRANSACTION READ WRITE",
    "INSERT INTO t VALUES (1)",
    "SELECT set_config('default_transaction_read_only', 'off', false); INSERT INTO t VALUES (1)",
    "ROLLBACK TO SAVEPOINT pilotscope_read_only; SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1)",
    "DO $$ BEGIN COMMIT; INSERT INTO t VALUES (1); END $$",
    "CREATE TABLE u (i int)",
    "ALTER SYSTEM SET work_mem = '5MB'",
    "SELECT nextval('s')",
]


@pytest.mark.parametrize("sql", ESCAPES)
def test_a_read_only_transaction_cannot_be_made_writable(scratch: Session, sql: str) -> None:
    """PostgreSQL refuses the statement, and nothing is written."""
    scratch.execute("CREATE TABLE t (i int); CREATE SEQUENCE s")
    with pytest.raises(StatementFailed):
        scratch.unable_to_write(lambda: scratch.execute(sql))
    assert scratch.scalar("SELECT count(*) FROM t") == 0
    assert not scratch.transaction_open


@pytest.mark.parametrize("sql", ["COMMIT", "ROLLBACK; SELECT 1", "COMMIT; BEGIN", "RELEASE SAVEPOINT pilotscope_read_only"])
def test_leaving_a_read_only_transaction_is_an_error(scratch: Session, sql: str) -> None:
    """The error says what the statement did, whether or not it began another transaction."""
    expected = (
        f"a statement ended the read-only transaction that it ran in, in database '{scratch.database}'; leave COMMIT, ROLLBACK and "
        "BEGIN out of queries"
    )
    with pytest.raises(LeftTransaction, match=f"^{re.escape(expected)}$"):
        scratch.unable_to_write(lambda: scratch.execute(sql))
    assert not scratch.transaction_open


def test_a_read_only_transaction_leaves_no_setting_behind(scratch: Session) -> None:
    """PostgreSQL undoes the settings of a query together with its transaction."""
    scratch.unable_to_write(lambda: scratch.execute("SELECT set_config('enable_hashjoin', 'off', false)"))
    assert scratch.scalar("SHOW enable_hashjoin") == "on"


def test_the_statement_of_a_process_that_was_killed_ends(newest_server: EmbeddedServer, newest_scratch: Session) -> None:
    """PostgreSQL notices that nobody waits for the answer, and ends the statement."""
    code = (
        "import sys; from pytest_pilotscope.places.dsn import Dsn; from pytest_pilotscope.postgres.connecting import connect\n"
        "session = connect(Dsn(sys.argv[1])); print(session.backend_pid, flush=True); session.execute('SELECT pg_sleep(600)')"
    )
    child = subprocess.Popen([sys.executable, "-c", code, newest_server.dsn.reveal()], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child, child.stdout:
        pid = int(child.stdout.readline())
        running = ("SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND query LIKE '%%pg_sleep(600)%%'", (pid,))
        until(lambda: newest_scratch.scalar(*running) == 1)
        child.kill()
    until(lambda: newest_scratch.scalar("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", (pid,)) == 0)


def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds, for half a minute at most."""
    limit_s = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < limit_s
        time.sleep(0.05)
