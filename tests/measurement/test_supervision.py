"""An algorithm decides in time, and leaves the session, the clocks and the database as they were."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

from pytest_pilotscope.errors import AlgorithmError, LockHeld
from pytest_pilotscope.learning.decision import Decision
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.measurement.sides import side_of
from pytest_pilotscope.measurement.supervision import Supervision
from pytest_pilotscope.postgres import timelimit
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.extension.build import build_library
from pytest_pilotscope.postgres.fingerprint import fingerprint
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.timelimit import time_limit, training_limit
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import TrainingReport

QUERY = Query(id="q", sql="SELECT count(*) FROM a JOIN b ON a.id = b.id")
ORIGINAL = time.perf_counter_ns
AFTER = "after its decision on query 'q', so the sides would not be independent"


@pytest.fixture
def session(newest_server: EmbeddedServer, newest_scratch: Session) -> Iterator[Session]:
    """Give a session with the library and two tables."""
    newest_scratch.execute("CREATE TABLE a AS SELECT generate_series(1, 9) AS id")
    newest_scratch.execute("CREATE TABLE b AS TABLE a; ANALYZE")
    newest_scratch.execute(f"LOAD '{build_library(newest_server.binaries.bindir)}'")
    yield newest_scratch
    newest_scratch.execute("RESET ALL")


@dataclass
class Chooser:
    """Leaves PostgreSQL's plan, after doing something else."""

    act: Callable[[Session], object]
    name: str = "chooser"

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing."""
        return training.report()

    def decide(self, query: Query, session: Session) -> Decision:
        """Act, and decide on PostgreSQL's own plan."""
        self.act(session)
        return Decision()


def supervision(session: Session, **options: Any) -> Supervision:
    """Supervise a session of a server that nobody else writes to."""
    return Supervision(session=session, fingerprint=fingerprint(session), exclusive=True, **options)


def decided(session: Session, act: Callable[[Session], object], **options: Any) -> None:
    """Let an algorithm decide once."""
    side = side_of("chooser", Chooser(act), session, supervision(session, **options))
    with side.steered(QUERY):
        pass


def replace_clock(session: Session) -> None:
    """Make time stand still."""
    time.perf_counter_ns = lambda: 0


LEFT: Mapping[str, tuple[Callable[[Session], object], str]] = {
    "setting": (lambda s: s.execute("SET enable_hashjoin = off"), "1 change behind {}: setting enable_hashjoin = off"),
    "steering": (
        lambda s: s.execute("""SET pilotscope.cardinalities = '{"a": 7}'"""),
        '1 change behind {}: setting pilotscope.cardinalities = {{"a": 7}}',
    ),
    "transaction": (lambda s: s.execute("BEGIN; SELECT 1"), "1 change behind {}: an open transaction"),
    "failed transaction": (lambda s: _suppressed(s, "BEGIN; SELECT 1/0"), "1 change behind {}: an open transaction"),
    "temporary table": (lambda s: s.execute("CREATE TEMP TABLE x (i int)"), "temporary objects: x"),
    "prepared": (lambda s: s.execute("PREPARE p AS SELECT 1"), "1 change behind {}: prepared statements: p"),
    "lock": (lambda s: s.execute("SELECT pg_advisory_lock(7)"), "1 change behind {}: advisory locks: 1"),
    "several": (
        lambda s: s.execute("SET jit = on; LISTEN news"),
        "2 changes behind {}: setting jit = on; channels: news",
    ),
    "clock": (replace_clock, "1 change behind {}: time.perf_counter_ns was replaced"),
}


def _suppressed(session: Session, sql: str) -> None:
    with pytest.raises(Exception, match="division by zero"):
        session.execute(sql)


@pytest.mark.parametrize("what", LEFT)
def test_what_a_decision_leaves_behind_is_named_and_put_back(session: Session, what: str) -> None:
    """The error counts and names it, and the session is as before, so that other sides can go on."""
    act, expected = LEFT[what]
    session.execute("SET jit = off")
    with pytest.raises(AlgorithmError, match=re.escape(expected.format(AFTER))):
        decided(session, act)
    decided(session, lambda s: None)
    assert time.perf_counter_ns is ORIGINAL


@pytest.mark.parametrize(
    "sql", ["DROP TABLE b", "INSERT INTO a VALUES (10)", "CREATE INDEX ON a (id)", "ALTER TABLE a ADD c int; ANALYZE a"]
)
def test_a_decision_that_changes_the_database_is_named(session: Session, sql: str) -> None:
    """Tables, rows, indexes and statistics are part of what the sides share."""
    with pytest.raises(AlgorithmError, match=rf"the (data|indexes|statistics) of database '{session.database}' changed"):
        decided(session, lambda s: s.execute(sql))


def test_a_rolled_back_write_is_no_change(session: Session) -> None:
    """A transaction number is used, and the database is the same."""
    decided(session, lambda s: s.execute("BEGIN; INSERT INTO a VALUES (10); ROLLBACK"))


def test_a_failing_decision_is_put_back_too(session: Session) -> None:
    """The error of the algorithm stays, and the next side finds the session as it was."""

    def act(its_session: Session) -> None:
        its_session.execute("SET enable_hashjoin = off; BEGIN")
        raise ValueError("broken")

    with pytest.raises(ValueError, match=r"^broken$"):
        decided(session, act)
    assert session.scalar("SHOW enable_hashjoin") == "on"
    assert not session.transaction_open


@pytest.mark.parametrize("act", [lambda s: time.sleep(60), lambda s: s.execute("SELECT pg_sleep(60)")], ids=["python", "statement"])
def test_a_decision_that_hangs_is_ended(session: Session, act: Callable[[Session], object]) -> None:
    """The limit ends Python code, and a statement that it waits for; the error says which query and what to do."""
    started_s = time.monotonic()
    message = "chooser has not decided on query 'q' after 200 ms; give it more time with --steer-timeout-ms, or make it faster"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"):
        decided(session, act, timeout_ms=200.0)
    assert time.monotonic() - started_s < 30
    assert session.scalar("SELECT 1") == 1


def test_a_timer_of_somebody_else_goes_on() -> None:
    """A limit of the test itself fires when it ends first, and is still there after a block that ends in time."""
    fired: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, frame: fired.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with time_limit(60, lambda: AssertionError("the wrong timer")):
            while not fired:
                time.sleep(0.01)
        signal.setitimer(signal.ITIMER_REAL, 50)
        with time_limit(0.01, lambda: TimeoutError("in time")), pytest.raises(TimeoutError, match=r"^in time$"):
            time.sleep(10)
        assert 40 < signal.getitimer(signal.ITIMER_REAL)[0] <= 50
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_a_decision_that_waits_for_a_lock_says_who_holds_it(newest_server: EmbeddedServer, session: Session) -> None:
    """The limit of the decision ends the wait, and the lock is the reason, not the algorithm."""
    session.execute("SET lock_timeout = 100")
    with newest_server.connect(session.database) as other:
        limited = side_of("chooser", Chooser(lambda s: s.subplans(QUERY.sql)), session, supervision(session, timeout_ms=1000.0))
        other.execute("BEGIN; LOCK TABLE a")
        holder = rf"process {other.backend_pid} \(pilotscope of postgres, idle in transaction\)"
        with pytest.raises(LockHeld, match=f"^a statement waited too long for a lock: {holder} holds "), limited.steered(QUERY):
            pass
        other.execute("COMMIT")


class Learner(Chooser):
    """Learns between queries for as long as `act` takes."""

    def learn_on(self, query: Query) -> None:
        """Act on nothing."""
        time.sleep(60)


def test_training_between_queries_has_the_limit_of_training(session: Session) -> None:
    """It is no decision, so the limit of a decision does not end it."""
    side = side_of("chooser", Learner(lambda s: None), session, supervision(session, timeout_ms=10.0, training_timeout_s=0.2))
    message = "chooser has trained for 0.2 s; give it more time with --training-timeout-s, or less data"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"), side.steered(QUERY):
        pass


def test_an_error_that_is_swallowed_is_raised_again() -> None:
    """Code that goes on after the first error meets a second one."""

    def swallow() -> None:
        with suppress(TimeoutError):
            time.sleep(60)
        time.sleep(60)

    with pytest.raises(TimeoutError, match=r"^too long$"), time_limit(0.1, lambda: TimeoutError("too long")):
        swallow()


def test_long_training_says_when_it_ends(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the algorithm, its limit and the option."""
    monkeypatch.setattr(timelimit, "TRAINING_NOTICE_S", 0.01)
    with pytest.raises(AlgorithmError, match=r"^mscn has trained for 0\.5 s"), training_limit("mscn", 0.5):
        time.sleep(60)
    assert caplog.messages == ["waiting for mscn, which has trained for 0.01 s; its limit is 0.5 s (--training-timeout-s)"]
