"""Scripts that write, on a real PostgreSQL."""

from __future__ import annotations

import re
from threading import Event

import pytest

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.postgres.clients import at_once
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.writing import script_scale, write, writing
from pytest_pilotscope.queries.scripts import ScriptRun


def of(*statements: str) -> ScriptRun:
    """Return a run of `s.sql`."""
    return ScriptRun(script="s.sql", statements=statements)


@pytest.fixture
def accounts(newest_scratch: Session) -> Session:
    """A table of two rows."""
    newest_scratch.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    newest_scratch.execute("INSERT INTO t VALUES (1, 0), (2, 0)")
    return newest_scratch


def test_a_script_is_run_as_it_stands(accounts: Session) -> None:
    """Its transaction is committed, and the limits of the session are those before."""
    before = accounts.execute("SELECT current_setting('statement_timeout')")
    with writing(accounts, 1000) as session:
        assert write(session, of("BEGIN", "UPDATE t SET v = 5 WHERE id = 1", "END")) > 0
        assert session.scalar("SELECT current_setting('statement_timeout')") == "1s"
    assert accounts.execute("SELECT v FROM t ORDER BY id") == [(5,), (0,)]
    assert accounts.execute("SELECT current_setting('statement_timeout')") == before


def test_a_deadlock_is_tried_again(accounts: Session, newest_server: EmbeddedServer) -> None:
    """Of two transactions that wait for each other PostgreSQL ends one: it runs again from its beginning, and nothing before it does."""
    accounts.execute("SELECT pg_advisory_lock(1)")  # both have their first row before either asks for its second
    with newest_server.connect(accounts.database) as one, newest_server.connect(accounts.database) as other:
        sessions = (one, other)

        def work(number: int, stop: Event) -> float:
            first, second = (1, 2) if number == 0 else (2, 1)
            once = f"INSERT INTO t VALUES ({number + 10}, 0)"
            steps = [f"UPDATE t SET v = v + 1 WHERE id = {row}" for row in (first, second)]
            meet = "SELECT pg_advisory_lock_shared(1)"
            return write(sessions[number], of(once, "BEGIN", steps[0], meet, steps[1], "COMMIT"))

        def release(number: int, stop: Event) -> float:
            if number < 2:
                return work(number, stop)
            waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            while accounts.scalar(waiting) < 2:
                pass
            accounts.execute("SELECT pg_advisory_unlock(1)")
            return 0.0

        for session in sessions:
            session.execute("SET deadlock_timeout = '10ms'")
            session.execute("SET lock_timeout = 0")
        at_once(3, release, sessions)
    assert accounts.execute("SELECT id, v FROM t ORDER BY id") == [(1, 2), (2, 2), (10, 0), (11, 0)]


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (
            ("INSERT INTO t VALUES (1, 1)",),
            '--writes s.sql: statement failed: duplicate key value violates unique constraint "t_pkey" (Key (id)=(1) already exists.) '
            "[23505]: INSERT INTO t VALUES (1, 1); all sides need the same writes, so that none may fail: mend the script, or let it take "
            "keys that are free (nextval, ON CONFLICT DO NOTHING)",
        ),
        (("BEGIN", "UPDATE t SET v = 1"), "--writes s.sql: the script leaves a transaction open; end it with COMMIT"),
        (
            ("SELECT pg_sleep(60)",),
            "--writes s.sql: statement cut off after 50 ms: SELECT pg_sleep(60); give it more time with --query-timeout-ms",
        ),
    ],
)
def test_a_failure_names_the_script(accounts: Session, statements: tuple[str, ...], message: str) -> None:
    """Nothing of a transaction that was left open stays."""
    with pytest.raises(ServerError, match=f"^{re.escape(message)}$"), writing(accounts, 50) as session:
        write(session, of(*statements))
    assert not accounts.transaction_open
    assert accounts.execute("SELECT sum(v) FROM t") == [(0,)]


def test_an_error_of_one_client_stops_the_others(accounts: Session) -> None:
    """They end between two statements, and the error is raised."""
    begun = Event()

    def work(number: int, stop: Event) -> None:
        if number == 0:
            assert begun.wait(30)
            raise ServerError("the first one")
        begun.set()
        assert stop.wait(30)

    with pytest.raises(ServerError, match=r"^the first one$"):
        at_once(3, work, [accounts])


def test_the_scale_is_that_of_pgbench(accounts: Session) -> None:
    """It is the number of branches; without pgbench's tables it is 1."""
    assert script_scale(accounts) == 1
    accounts.execute("CREATE TABLE pgbench_branches (bid int)")
    accounts.execute("INSERT INTO pgbench_branches SELECT generate_series(1, 3)")
    assert script_scale(accounts) == 3
