"""Clients that run the workload at once, on a real PostgreSQL."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.learning.decision import Decision
from pytest_pilotscope.measurement.clients import Clients, DecidedQuery, decided
from pytest_pilotscope.measurement.clocks import explain_timed
from pytest_pilotscope.measurement.sides import PlainSide
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.queries.scripts import Writes, parse_script

SQL = {
    "a": "SELECT 1",
    "b": "SELECT count(*) FROM generate_series(1, 100)",
    "c": "SELECT current_setting('enable_seqscan')",
    "d": "SELECT 4",
}


@pytest.fixture
def sessions(newest_server: EmbeddedServer) -> Iterator[list[Session]]:
    """Open three sessions that cannot write."""
    opened = [newest_server.connect() for _ in range(3)]
    for session in opened:
        session.refuse_writing()
    yield opened
    for session in opened:
        session.close()


def clients(sessions: list[Session], side: str, queries: dict[str, str], limit_ms: int = 60_000) -> Clients:
    """Return clients of a side that decided on sequential scans for query c."""
    planned = [
        DecidedQuery(
            query=Query(id=name, sql=sql),
            inference_ms=2.5,
            inference_processor_ms=1.5,
            decision=Decision(settings={"enable_seqscan": "off"}) if name == "c" else None,
            limit_ms=limit_ms,
        )
        for name, sql in queries.items()
    ]
    return Clients(side=side, sessions=sessions, queries=planned, clock=explain_timed, seed=7)


def test_each_client_runs_every_query_once(sessions: list[Session]) -> None:
    """The orders of clients differ, those of a client in one round are the same on every side, and a slice counts what ended."""
    runs, _, found = clients(sessions, "one", SQL).run(2, 1)
    assert sorted((run.client, run.query_id) for run in runs) == [(client, name) for client in (1, 2, 3) for name in SQL]
    of_runs = {(run.side, run.repetition, run.order, run.inference_ms, run.inference_processor_ms) for run in runs}
    assert of_runs == {("one", 2, 1, 2.5, 1.5)}
    assert (found.side, found.repetition, found.order, found.executions) == ("one", 2, 1, 12)
    assert found.duration_s > 0
    orders = [[run.query_id for run in runs if run.client == client] for client in (1, 2, 3)]
    assert orders[0] != orders[1] or orders[1] != orders[2]
    others, _, _ = clients(sessions, "other", SQL).run(2, 0)
    assert [[run.query_id for run in others if run.client == client] for client in (1, 2, 3)] == orders


def test_what_fails_is_a_result(sessions: list[Session]) -> None:
    """A statement that fails and one that runs into its limit are executions that did not end; the decision is put back after each."""
    runs, _, found = clients(sessions, "one", {"x": "SELECT 1 / 0", "y": "SELECT pg_sleep(60)", "c": SQL["c"]}, limit_ms=50).run(1, 0)
    by_query = {run.query_id: run for run in runs if run.client == 1}
    assert "division by zero" in (by_query["x"].error or "")
    assert (by_query["y"].timed_out, by_query["y"].execution_ms) == (True, 50)
    assert found.executions == 3
    assert {session.scalar(SQL["c"]) for session in sessions} == {"on"}


def test_an_interrupt_ends_the_statements_of_all_clients(sessions: list[Session], newest_server: EmbeddedServer) -> None:
    """Nobody waits for statements that nobody wants any more, and no further one begins."""

    def interrupt() -> None:
        with newest_server.connect() as observer:
            asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            while observer.scalar(asleep) < len(sessions):
                pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        clients(sessions, "one", {"x": "SELECT pg_sleep(600)", "y": "SELECT pg_sleep(601)"}, limit_ms=0).run(1, 0)
    thread.join()
    assert not any(session.closed for session in sessions)


def test_a_side_decides_once(sessions: list[Session]) -> None:
    """PostgreSQL left alone has no decision; the limit is the one given."""
    found = decided(PlainSide(name="baseline", session=sessions[0]), Query(id="a", sql="SELECT 1"), 40)
    assert (found.inference_ms, found.decision, found.limit_ms) == (0.0, None, 40)


def test_scripts_are_among_the_queries(sessions: list[Session], newest_scratch: Session, newest_server: EmbeddedServer) -> None:
    """All sides write the same values in the same order, each client its own, and other ones in the next round."""
    newest_scratch.execute("CREATE TABLE t (side text, client int, v int, n serial)")
    script = parse_script("\\set v random(1, 1000000)\nINSERT INTO t VALUES (current_setting('my.side'), :client_id, :v * :scale)", "s.sql")
    with ExitStack() as stack:
        writers = [stack.enter_context(newest_server.connect(newest_scratch.database)) for _ in sessions]
        for repetition, side in ((1, "one"), (1, "other"), (2, "next")):
            for writer in writers:
                writer.execute("SELECT set_config('my.side', %s, false)", (side,))
            writing = replace(clients(sessions, side, SQL), writers=writers, writes=Writes(scripts=(script,), per_query=2.0))
            writing.variables = {"scale": 10}
            runs, writes, found = writing.run(repetition, 0)
            assert (len(runs), len(writes), found.executions, found.writes) == (12, 24, 12, 24)
            assert sorted({(write.side, write.script, write.repetition, write.client) for write in writes}) == [
                (side, "s.sql", repetition, client) for client in (1, 2, 3)
            ]
            assert all(write.latency_ms > 0 for write in writes)
    values = {
        side: newest_scratch.execute("SELECT array_agg(v ORDER BY n) FROM t WHERE side = %s GROUP BY client ORDER BY client", (side,))
        for side in ("one", "other", "next")
    }
    assert values["one"] == values["other"]
    assert len({tuple(row[0]) for row in (*values["one"], *values["next"])}) == 6
    assert {len(row[0]) for row in values["one"]} == {8}
    assert newest_scratch.scalar("SELECT bool_and(v % 10 = 0) FROM t")


def test_every_session_that_writes_is_warm(sessions: list[Session], newest_scratch: Session, newest_server: EmbeddedServer) -> None:
    """Each ran each script with a weight before the clock starts, with the same values on all sides."""
    newest_scratch.execute("CREATE TABLE w (side text, client int, script text, v int)")
    scripts = [
        parse_script(
            f"\\set v random(1, 1000000)\nINSERT INTO w VALUES (current_setting('my.side'), :client_id, '{name}', :v)", name, weight
        )
        for name, weight in (("often", 9), ("once", 1), ("never", 0))
    ]
    with ExitStack() as stack:
        writers = [stack.enter_context(newest_server.connect(newest_scratch.database)) for _ in sessions]
        for side in ("one", "other"):
            for writer in writers:
                writer.execute("SELECT set_config('my.side', %s, false)", (side,))
            replace(clients(sessions, side, SQL), writers=writers, writes=Writes(scripts=tuple(scripts), per_query=2.0)).warm_up()
    one, other = (newest_scratch.execute("SELECT client, script, v FROM w WHERE side = %s", (side,)) for side in ("one", "other"))
    assert one == other
    assert [row[:2] for row in one] == [(client, name) for client in range(3) for name in ("often", "once")]
    assert len({row[2] for row in one}) == 6


def test_a_script_that_fails_ends_the_slice(sessions: list[Session], newest_scratch: Session) -> None:
    """Sides need the same writes, so that a slice with fewer of them is no result."""
    script = parse_script("INSERT INTO missing VALUES (1)", "s.sql")
    failing = replace(clients(sessions[:1], "one", SQL), writers=[newest_scratch], writes=Writes(scripts=(script,), per_query=1.0))
    with pytest.raises(ServerError, match=r'^--writes s\.sql: statement failed: relation "missing" does not exist'):
        failing.run(1, 0)
