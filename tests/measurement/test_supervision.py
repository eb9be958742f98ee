"""An algorithm decides in time, and leaves the session, the clocks and the database as they were."""

from __future__ import annotations

import logging
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg2
import pytest

from pytest_pilotscope.errors import AlgorithmError, LockHeld, error_text
from pytest_pilotscope.learning.decision import Decision
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.measurement import protocol, sides
from pytest_pilotscope.measurement.clocks import Stopwatch
from pytest_pilotscope.measurement.sides import side_of
from pytest_pilotscope.measurement.supervision import Supervision
from pytest_pilotscope.postgres import steering, timelimit
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.fingerprint import fingerprint
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.timelimit import outside_limit, time_limit, training_limit
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import QueryRun, TrainingReport
from tests.conftest import LibraryOf

QUERY = Query(id="q", sql="SELECT count(*) FROM a JOIN b ON a.id = b.id")
ORIGINAL = time.perf_counter_ns
KEPT = ExitStack()
"""Blocks that an algorithm entered and never left."""
AFTER = "after its decision on query 'q', so the sides would not be independent"


@pytest.fixture
def session(newest_server: EmbeddedServer, newest_scratch: Session, library_of: LibraryOf) -> Iterator[Session]:
    """Give a session with the library and two tables."""
    newest_scratch.execute("CREATE TABLE a AS SELECT generate_series(1, 9) AS id")
    newest_scratch.execute("CREATE TABLE b AS TABLE a; ANALYZE")
    newest_scratch.execute(f"LOAD '{library_of(newest_server)}'")
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


def alter_system(session: Session) -> None:
    """Change a setting of the whole server, and wait until the session has it."""
    session.execute("ALTER SYSTEM SET enable_mergejoin = off")
    session.execute("SELECT pg_reload_conf()")
    while session.scalar("SHOW enable_mergejoin") == "on":
        session.execute("SELECT pg_sleep(0.01)")


def elsewhere(sql: str) -> Callable[[Session], object]:
    """Run a statement in a session of its own."""

    def act(session: Session) -> None:
        other = psycopg2.connect(session.dsn)
        other.autocommit = True
        with closing(other), other.cursor() as cursor:
            cursor.execute(sql)

    return act


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
    "system": (
        lambda s: s.execute("ALTER SYSTEM SET enable_hashjoin = off"),
        "1 change behind {}: ALTER SYSTEM SET enable_hashjoin = off",
    ),
    "reloaded": (alter_system, "1 change behind {}: ALTER SYSTEM SET enable_mergejoin = off"),
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
    assert [session.scalar(f"SHOW enable_{kind}") for kind in ("hashjoin", "mergejoin")] == ["on", "on"]


@pytest.mark.parametrize(
    "sql", ["DROP TABLE b", "INSERT INTO a VALUES (10)", "CREATE INDEX ON a (id)", "ALTER TABLE a ADD c int; ANALYZE a"]
)
def test_a_decision_that_changes_the_database_is_named(session: Session, sql: str) -> None:
    """Tables, rows, indexes and statistics are part of what the sides share."""
    with pytest.raises(AlgorithmError, match=rf"the (data|indexes|statistics) of database '{session.database}' changed"):
        decided(session, lambda s: s.execute(sql))


@pytest.mark.parametrize(
    ("sql", "undo", "named"),
    [
        (
            "ALTER TABLESPACE pg_default SET (random_page_cost = 9)",
            "ALTER TABLESPACE pg_default RESET (random_page_cost)",
            "options of tablespace pg_default: {random_page_cost=9}",
        ),
        ("ALTER FUNCTION int4eq COST 77", "ALTER FUNCTION int4eq COST 1", "functions: "),
        ("ALTER OPERATOR = (int4, int4) SET (RESTRICT = NONE)", "ALTER OPERATOR = (int4, int4) SET (RESTRICT = eqsel)", "operators: "),
        ("CREATE STATISTICS pairs ON id, id2 FROM pairs", "DROP STATISTICS pairs", "statistics object pairs: "),
        ("ALTER TABLE a SET (parallel_workers = 7)", "ALTER TABLE a RESET (parallel_workers)", "options of a: {parallel_workers=7}"),
        ("ALTER TABLE a ALTER id SET (n_distinct = 7)", "ALTER TABLE a ALTER id RESET (n_distinct)", "options of column id of a: "),
    ],
)
@pytest.mark.parametrize("when", ["decision", "training", "measured"])
def test_what_bears_on_plans_is_compared(session: Session, when: str, sql: str, undo: str, named: str) -> None:
    """A change by another connection is named after a decision where nobody else writes, and after training and all queries everywhere."""
    session.execute("CREATE TABLE pairs AS SELECT id, id AS id2 FROM a; ANALYZE")
    checked = Supervision(session=session, exclusive=when == "decision")
    asked = {} if when == "decision" else {when: True}
    checked.check("chooser", "nothing", **asked)
    elsewhere(sql)(session)
    try:
        with pytest.raises(AlgorithmError, match=f"^chooser left 1 change behind after its work, .*: {re.escape(named)}"):
            checked.check("chooser", "its work", **asked)
    finally:
        session.execute(undo)


@pytest.mark.parametrize(
    "act",
    [
        lambda session: session.execute("SET statement_timeout = 1"),
        lambda session: KEPT.enter_context(session.statement_timeout(1)),
    ],
)
def test_a_limit_that_is_left_behind_ends_no_statement_of_the_suite(session: Session, act: Callable[[Session], object]) -> None:
    """It is named and taken away, however short it is, and the limits of later statements are their own."""
    with pytest.raises(AlgorithmError, match=rf"(1|2) changes? behind {AFTER}: .*statement.timeout"):
        decided(session, act)
    assert session.scalar("SHOW statement_timeout") == "0"
    session.execute("SELECT pg_sleep(0.02)")
    with session.statement_timeout(60_000):
        session.execute("SELECT pg_sleep(0.02)")
    assert session.scalar("SHOW statement_timeout") == "0"
    decided(session, lambda session: None)


def test_a_query_that_an_algorithm_changes_is_its_own(session: Session) -> None:
    """The sides run and record the query of the workload."""
    query = Query(id="q", sql="SELECT 1 FROM a")

    class Changes(Chooser):
        def decide(self, query: Query, session: Session) -> Decision:
            for name in ("id", "sql"):
                object.__setattr__(query, name, "other")
            return Decision()

    with side_of("changes", Changes(lambda session: None), session, supervision(session)).steered(query):
        assert query == Query(id="q", sql="SELECT 1 FROM a")


def test_a_setting_of_somebody_elses_server_stays(session: Session) -> None:
    """ALTER SYSTEM may be theirs: it is named, and not undone."""
    checked = Supervision(session=session)
    session.execute("ALTER SYSTEM SET enable_hashjoin = off")
    try:
        with pytest.raises(AlgorithmError, match=r"1 change behind after its work, .*: ALTER SYSTEM SET enable_hashjoin = off; "):
            checked.check("chooser", "its work")
        assert session.scalar("SELECT setting FROM pg_file_settings WHERE name = 'enable_hashjoin'") == "off"
    finally:
        session.execute("ALTER SYSTEM RESET enable_hashjoin")


class Fake(Stopwatch):
    """A stopwatch that stands still."""


REPLACED: Mapping[str, tuple[object, str, object, str]] = {
    "a name of the clock": (sides, "Stopwatch", Fake, "pytest_pilotscope.measurement.sides.Stopwatch"),
    "a private function": (steering, "_timing", lambda *_: None, "pytest_pilotscope.postgres.steering._timing"),
    "a result": (protocol, "QueryRun", lambda **_: None, "pytest_pilotscope.measurement.protocol.QueryRun"),
    "a part of a class": (protocol.QueryMeasurement, "_timed", lambda *_: None, "QueryMeasurement._timed"),
    "a field": (QueryRun, "execution_ms", 0.0, "QueryRun.execution_ms"),
    "a property": (QueryRun, "end_to_end_ms", 0.0, "QueryRun.end_to_end_ms"),
    "the code of a function": (Stopwatch.__exit__, "__code__", (lambda self, *_: None).__code__, "the code of Stopwatch.__exit__"),
    "another clock": (time, "monotonic", lambda: 0.0, "time.monotonic"),
}


@pytest.mark.parametrize("what", REPLACED)
def test_what_measures_cannot_be_replaced(what: str) -> None:
    """Every name by which the measuring modules know a function or class is checked, and put back."""
    holder, name, fake, named = REPLACED[what]
    original = vars(holder)[name] if name != "__code__" else Stopwatch.__exit__.__code__
    checked = Supervision()
    setattr(holder, name, fake)
    with pytest.raises(AlgorithmError, match=f"^chooser left 1 change behind after its work, .*: {re.escape(named)} was replaced; "):
        checked.check("chooser", "its work")
    assert (vars(holder)[name] if name != "__code__" else Stopwatch.__exit__.__code__) is original
    checked.check("chooser", "its work")


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN), "the handler of SIGTERM was replaced"),
        (lambda: logging.disable(logging.CRITICAL), "logging was disabled"),
    ],
)
def test_the_ends_of_a_run_cannot_be_switched_off(act: Callable[[], object], named: str) -> None:
    """A decision that ignores SIGTERM or silences warnings is named, and both work as before."""
    before, checked = signal.getsignal(signal.SIGTERM), Supervision()
    act()
    with pytest.raises(AlgorithmError, match=f"1 change behind after its work, .*: {named}; "):
        checked.check("chooser", "its work")
    assert (signal.getsignal(signal.SIGTERM), logging.root.manager.disable) == (before, logging.NOTSET)


def test_a_method_of_one_session_cannot_be_replaced(session: Session) -> None:
    """The session of all sides is checked, too."""

    def replace_stream(its_session: Session) -> None:
        vars(its_session)["stream"] = lambda sql, take: 0

    with pytest.raises(AlgorithmError, match=r"1 change behind .*: stream of the session was replaced; "):
        decided(session, replace_stream)
    decided(session, lambda s: None)


def test_a_rolled_back_write_is_no_change(session: Session) -> None:
    """A transaction number is used, and the database is the same."""
    decided(session, lambda s: s.execute("BEGIN; INSERT INTO a VALUES (10); ROLLBACK"))


def test_a_failing_decision_is_put_back_too(session: Session) -> None:
    """The error of the algorithm stays, and the next side finds the session as it was."""

    def act(its_session: Session) -> None:
        its_session.execute("SET enable_hashjoin = off; BEGIN")
        raise ValueError("broken")

    with pytest.raises(ValueError, match=r"^broken$") as raised:
        decided(session, act)
    assert error_text(raised.value) == "chooser failed on query 'q': ValueError: broken"
    assert session.scalar("SHOW enable_hashjoin") == "on"
    assert not session.transaction_open


@pytest.mark.parametrize("sql", ["SELECT 1/0", "EXPLAIN ANALYZE SELECT id / 0 FROM a", "BEGIN; SELECT 1/0"])
def test_a_failing_statement_of_the_algorithm_is_its_error(session: Session, sql: str) -> None:
    """Only what PostgreSQL does not plan is left to it; the algorithm is named."""
    message = rf"^chooser failed on query 'q': statement failed: division by zero \[22012\]: {re.escape(sql)}$"
    with pytest.raises(AlgorithmError, match=message):
        decided(session, lambda s: s.execute(sql))
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
        with pytest.raises(TimeoutError, match=r"^in time$"), time_limit(0.01, lambda: TimeoutError("in time")):
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


def test_code_that_tries_again_is_ended() -> None:
    """The error is no `Exception` inside the block."""

    def try_again() -> None:
        while True:
            with suppress(Exception):
                time.sleep(60)

    with pytest.raises(TimeoutError, match=r"^too long$"), time_limit(0.05, lambda: TimeoutError("too long")):
        try_again()


def test_a_block_that_swallows_the_error_fails() -> None:
    """A block that goes on to its end after the limit has failed nevertheless, also with an error of its own."""
    with pytest.raises(TimeoutError, match=r"^too long$"), time_limit(0.01, lambda: TimeoutError("too long")), suppress(BaseException):
        time.sleep(60)

    def answer() -> None:
        try:
            time.sleep(60)
        except BaseException as error:
            raise ValueError("an answer") from error

    with pytest.raises(TimeoutError, match=r"^too long$"), time_limit(0.01, lambda: TimeoutError("too long")):
        answer()


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    with time_limit(seconds, TimeoutError):
        yield


@pytest.mark.slow
def test_no_timer_is_left_at_the_edges() -> None:
    """Of thousands of blocks that end together with their limit, each puts timer and handler back, whichever of both was first."""
    handler, ends = signal.getsignal(signal.SIGALRM), {True: 0, False: 0}
    until_s = time.monotonic() + 2.0
    while time.monotonic() < until_s:
        number = sum(ends.values())
        limit_s = 1e-9 if number % 50 == 0 else 0.001
        busy_s = 0.0007 + number % 31 * 1e-5
        expired = False
        try:
            with _limited(limit_s) if number % 2 else time_limit(limit_s, TimeoutError):
                ends_s = time.perf_counter() + busy_s
                while time.perf_counter() < ends_s:
                    pass
        except TimeoutError:
            expired = True
        ends[expired] += 1
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert signal.getsignal(signal.SIGALRM) is handler
    assert all(ends.values())


def test_the_suite_works_outside_of_a_limit() -> None:
    """Its time is left out of a decision's limit, which goes on after it, and after an error in it. A training's limit counts it."""

    def fail_then_wait() -> None:
        with suppress(KeyError), outside_limit():
            raise KeyError
        time.sleep(60)

    with time_limit(0.2, lambda: TimeoutError("too long"), pausable=True):
        for _ in range(2):
            with outside_limit():
                time.sleep(0.3)
                assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 0.2
    with pytest.raises(TimeoutError, match=r"^too long$"), time_limit(0.2, lambda: TimeoutError("too long"), pausable=True):
        fail_then_wait()
    with pytest.raises(TimeoutError, match=r"^too long$"), time_limit(0.05, lambda: TimeoutError("too long")), outside_limit():
        time.sleep(60)
    with outside_limit():
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_long_training_says_when_it_ends(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the algorithm, its limit and the option."""
    monkeypatch.setattr(timelimit, "TRAINING_NOTICE_S", 0.01)
    with pytest.raises(AlgorithmError, match=r"^mscn has trained for 0\.5 s"), training_limit("mscn", 0.5):
        time.sleep(60)
    assert caplog.messages == ["waiting for mscn, which has trained for 0.01 s; its limit is 0.5 s (--training-timeout-s)"]
