"""The paired protocol, with a clock that is set by the test: order, limits, failures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import pytest

from pytest_pilotscope.errors import LeftTransaction, QueryTimeout
from pytest_pilotscope.learning.algorithm import Cardinalities, PartialCardinalities
from pytest_pilotscope.measurement.clocks import Clock, clock_of
from pytest_pilotscope.measurement.protocol import Line, QueryMeasurement
from pytest_pilotscope.measurement.sides import PlainSide, Side, Steering
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.sessionstate import state_of
from pytest_pilotscope.postgres.steering import TimedRun
from pytest_pilotscope.postgres.streaming import Take
from pytest_pilotscope.queries.joins import LeveledSubplan
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import PlanNode, QueryDecision, QueryReport, QueryRun
from tests.conftest import LibraryOf

QUERY = Query(id="q", sql="SELECT 1")


def _measured(session: Session, clock: Clock, *, rounds: int, sides: int = 2) -> list[QueryRun]:
    written: list[Line] = []
    made = [PlainSide(name=f"s{number}", session=session) for number in range(sides)]
    QueryMeasurement(query=QUERY, sides=made, timeout_ms=None, write=written.append, clock=clock).run(rounds)
    return [entry for entry in written if isinstance(entry, QueryRun)]


@pytest.fixture
def limits_ms(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the limits of the statements, in order."""
    seen: list[int] = []

    def limit(self: Session, timeout_ms: int) -> AbstractContextManager[None]:
        return _noted(seen, timeout_ms)

    monkeypatch.setattr(Session, "statement_timeout", limit)
    return seen


@contextmanager
def _noted(seen: list[int], timeout_ms: int) -> Iterator[None]:
    seen.append(timeout_ms)
    yield


def test_no_side_is_always_first(newest_scratch: Session) -> None:
    """Two sides take turns forwards and backwards; every round has both."""
    runs = _measured(newest_scratch, lambda *_: TimedRun(planning_ms=1.0, execution_ms=1.0, row_count=1), rounds=4)
    order = [[run.side for run in runs if run.repetition == repetition] for repetition in range(5)]
    assert order == [["s0", "s1"], ["s0", "s1"], ["s1", "s0"], ["s1", "s0"], ["s0", "s1"]]


def test_further_rounds_go_on_where_the_others_ended(newest_scratch: Session) -> None:
    """More rounds continue numbers and turns, on the sides that are left, after a warm-up of each that nothing records."""
    written: list[Line] = []
    executed: list[str] = []

    def clock(session: Session, sql: str, take: Take | None) -> TimedRun:
        executed.append(sql)
        return TimedRun(planning_ms=1.0, execution_ms=1.0, row_count=1)

    sides = [PlainSide(name=f"s{number}", session=newest_scratch) for number in range(3)]
    measurement = QueryMeasurement(query=QUERY, sides=sides, timeout_ms=None, write=written.append, clock=clock)
    measurement.run(2)
    further: list[Line] = []
    executed.clear()
    runs = measurement.more(3, sides[:2], further.append)
    assert [(run.repetition, run.side) for run in runs] == [(3, "s1"), (3, "s0"), (4, "s0"), (4, "s1"), (5, "s0"), (5, "s1")]
    assert further == list(runs)
    assert len(executed) == 2 + 6


def test_the_limit_follows_the_slowest_baseline_and_is_the_same_within_a_round(newest_scratch: Session, limits_ms: list[int]) -> None:
    """The limit is ten times the slowest baseline repetition, at least a second, and ten minutes for the first run."""
    times_ms = iter([50.0, 1.0, 200.0, 1.0, 1.0, 90.0, 1.0, 1.0])  # warm-up, then rounds of s0/s1, s1/s0, s1/s0
    _measured(newest_scratch, lambda *_: TimedRun(planning_ms=0.0, execution_ms=next(times_ms), row_count=1), rounds=3)
    warm_ups, counting = [600_000, 1_000], [1_000, 1_000]
    assert limits_ms == [*warm_ups, *counting, 1_000, 1_000, 2_000, 2_000, 2_000, 2_000]


def test_rows_are_counted_where_no_cardinalities_are_known(newest_scratch: Session) -> None:
    """The plan in the record has the rows of its nodes, unless the statement ended in a time-out; the times have nothing of it."""

    def plans(sql: str, clock: Clock) -> list[PlanNode | None]:
        written: list[Line] = []
        side, query = PlainSide(name="s", session=newest_scratch), Query(id="q", sql=sql)
        QueryMeasurement(query=query, sides=[side], timeout_ms=2_000, write=written.append, clock=clock).run(1)
        return [entry.plan for entry in written if isinstance(entry, QueryReport)]

    def known(session: Session, sql: str, take: Take | None) -> TimedRun:
        return TimedRun(planning_ms=1.0, execution_ms=1.0, row_count=session.stream(sql, take))

    def cut_off(session: Session, sql: str, take: Take | None) -> TimedRun:
        raise QueryTimeout(sql, timeout_ms=2_000)

    sql = "SELECT * FROM generate_series(1, 7) AS g WHERE g > 2"
    (counted,) = plans(sql, known)
    assert counted is not None
    assert (counted.actual_rows, counted.loops) == (5, 1)
    (planned,) = plans(sql, cut_off)
    assert planned is not None
    assert (planned.actual_rows, planned.loops) == (None, None)


def test_a_baseline_that_was_cut_off_moves_no_limit(newest_scratch: Session, limits_ms: list[int]) -> None:
    """The limit does not grow after a time-out, whose time is not known."""

    def never_ends(session: Session, sql: str, take: Take | None) -> TimedRun:
        raise QueryTimeout("cut off", timeout_ms=limits_ms[-1])

    runs = _measured(newest_scratch, never_ends, rounds=3)
    assert set(limits_ms) == {600_000}
    assert all(run.timed_out and run.execution_ms == 600_000 for run in runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ExplainedSide:
    """PostgreSQL left alone, with a reason."""

    name: str
    session: Session

    @contextmanager
    def steered(self, query: Query) -> Iterator[Steering]:
        """Decide nothing, and say so."""
        yield Steering(inference_ms=0.0, facts={"looked": False})


def test_a_decision_is_explained_once(newest_scratch: Session) -> None:
    """The facts of a side's decision are recorded once per query; a side without facts has no line."""
    written: list[Line] = []
    sides: list[Side] = [PlainSide(name="baseline", session=newest_scratch), _ExplainedSide(name="lero", session=newest_scratch)]
    QueryMeasurement(query=QUERY, sides=sides, timeout_ms=None, write=written.append, clock=_one_ms).run(2)
    decisions = [entry for entry in written if isinstance(entry, QueryDecision)]
    assert decisions == [QueryDecision(query_id="q", side="lero", facts={"looked": False})]


@dataclass(frozen=True, slots=True, kw_only=True)
class _InjectingSide:
    """An algorithm that found the subplans by itself, without the planner's list."""

    name: str
    session: Session
    found: Cardinalities

    @contextmanager
    def steered(self, query: Query) -> Iterator[Steering]:
        """Inject them."""
        with self.session.cardinalities(self.found):
            yield Steering(inference_ms=0.0, estimates=self.found)


def test_a_subplan_too_many_does_no_harm(tables: Session) -> None:
    """Rows for relations that the statement does not have are no estimates."""
    found = {frozenset("a"): 9.0, frozenset("b"): 9.0, frozenset("ab"): 9.0, frozenset("ac"): 1.0}
    truth = {frozenset("a"): 9, frozenset("b"): 9, frozenset("ab"): 9}
    report = _report(_InjectingSide(name="mscn", session=tables, found=found), "SELECT 1 FROM a JOIN b ON a.x = b.x", truth)
    assert {estimate.aliases for estimate in report.estimates or ()} == {("a",), ("b",), ("a", "b")}


@pytest.fixture
def tables(newest_server: EmbeddedServer, newest_scratch: Session, library_of: LibraryOf) -> Session:
    """Return a session with the library and two tables, one of which is larger than PostgreSQL thinks."""
    newest_scratch.execute(f"LOAD '{library_of(newest_server)}'")
    newest_scratch.execute("CREATE TABLE a AS SELECT g AS x FROM generate_series(1, 9) AS g; CREATE TABLE b AS TABLE a; ANALYZE")
    return newest_scratch


def _report(side: Side, sql: str, truth: Cardinalities | None = None) -> QueryReport:
    """Measure a query on one side and return its report."""
    written: list[Line] = []
    query = Query(id="q", sql=sql)
    QueryMeasurement(query=query, sides=[side], timeout_ms=None, write=written.append, clock=_one_ms, truth=truth).run(1)
    (report,) = (entry for entry in written if isinstance(entry, QueryReport))
    return report


def test_what_is_not_known_counts_as_not_steered(tables: Session) -> None:
    """A plan has the reason for each of its nodes that has PostgreSQL's own rows, and no p-error, which says so."""
    rows = PartialCardinalities({frozenset("a"): 5.0, frozenset("ab"): 6.0}, {frozenset("b"): "it has a LIMIT"})
    report = _report(_InjectingSide(name="oracle", session=tables, found=rows), "SELECT 1 FROM a JOIN b ON a.x = b.x", rows)
    assert report.steered_ratio == pytest.approx(2 / 3)
    assert report.steering_reasons == ("Seq Scan b: not known: it has a LIMIT",)
    assert [estimate.aliases for estimate in report.estimates or ()] == [("a",), ("a", "b")]
    assert report.p_error is None
    assert report.p_error_reason == "the true rows of 1 of 3 sets are not known, those of b because: it has a LIMIT"


def test_a_set_that_is_left_to_postgresql_is_judged_by_the_rows_that_it_planned_with(tables: Session) -> None:
    """Every side is judged on the same sets, whatever it knows: else one that knows the easy sets only would look better."""
    sql = "SELECT 1 FROM a JOIN b ON a.x = b.x"
    own = tables.subplans(sql)
    truth = {subplan: 2 * rows for subplan, rows in own.items()}
    given = {frozenset("a"): 7 * own[frozenset("a")]}
    with tables.cardinalities(given):
        planned = tables.subplans(sql)
    assert planned[frozenset("ab")] > own[frozenset("ab")]
    partial = PartialCardinalities(given, {frozenset("b"): "unknown", frozenset("ab"): "unknown"})
    report = _report(_InjectingSide(name="partial", session=tables, found=partial), sql, truth)
    assert {frozenset(one.aliases): one.estimated for one in report.estimates or ()} == planned


def test_a_side_with_other_sets_has_no_q_errors(tables: Session, newest_server: EmbeddedServer, library_of: LibraryOf) -> None:
    """Settings of a session let PostgreSQL consider fewer sets, or more: these say nothing beside those of the baseline."""
    sql = "SELECT 1 FROM a JOIN b ON a.x = b.x JOIN a AS c ON c.x = b.x"
    with newest_server.connect(tables.database) as other:
        other.execute(f"LOAD '{library_of(newest_server)}'; SET join_collapse_limit = 1")
        every, fewer = tables.subplans(sql), other.subplans(sql)
        assert fewer.keys() < every.keys()
        found = []
        for sessions in ((tables, other), (other, tables)):
            written: list[Line] = []
            sides = [PlainSide(name=f"s{number}", session=session) for number, session in enumerate(sessions)]
            query = Query(id="q", sql=sql)
            QueryMeasurement(query=query, sides=sides, timeout_ms=None, write=written.append, clock=_one_ms, truth=every).run(1)
            reports = [entry for entry in written if isinstance(entry, QueryReport)]
            found.append([report.estimates and {frozenset(one.aliases) for one in report.estimates} for report in reports])
    assert found == [[every.keys(), None], [fewer.keys(), fewer.keys()]]


def test_true_rows_are_injected_at_their_level(tables: Session) -> None:
    """The same alias in a subquery is another relation: each level has a truth, an estimate and a place in the p-error."""
    sql = "SELECT 1 FROM a JOIN (SELECT a.x FROM a JOIN b ON a.x = b.x LIMIT 3) AS s ON a.x = s.x"
    own = tables.subplans(sql)
    assert {subplan.level for subplan in own if isinstance(subplan, LeveledSubplan)} == {1, 2}
    report = _report(PlainSide(name="baseline", session=tables), sql, own)
    assert (report.p_error, report.p_error_reason) == (1.0, None)
    assert sorted(estimate.aliases for estimate in report.estimates or ()) == sorted(tuple(sorted(subplan)) for subplan in own)
    some = {subplan: rows for subplan, rows in own.items() if subplan != LeveledSubplan(1, "a")}
    lacking = _report(PlainSide(name="baseline", session=tables), sql, some)
    assert lacking.p_error is None
    assert lacking.p_error_reason == (
        "the true rows of 1 of 6 sets are not known, those of a because: PostgreSQL did not consider them together when true rows were "
        "counted"
    )


def test_a_query_without_any_true_rows_says_why(tables: Session) -> None:
    """The reason is recorded in place of a p-error."""
    truth = PartialCardinalities({}, {frozenset(): "it has no relations"})
    report = _report(PlainSide(name="baseline", session=tables), "SELECT 1", truth)
    assert (report.p_error, report.p_error_reason) == (None, "it has no relations")


def test_a_command_that_cannot_be_explained_is_measured(tables: Session) -> None:
    """It has no plan; a side that was to steer it did not, with the reason, and what comes after it is measured."""
    assert _report(PlainSide(name="baseline", session=tables), "SHOW work_mem").plan is None
    report = _report(_InjectingSide(name="fixed", session=tables, found={frozenset("a"): 5.0}), "SHOW work_mem")
    assert (report.steered_ratio, report.plan) == (0.0, None)
    assert report.steering_reasons == ('its plan is not known: syntax error at or near "SHOW"',)


def _one_ms(session: Session, sql: str, take: Take | None) -> TimedRun:
    return TimedRun(planning_ms=1.0, execution_ms=1.0, row_count=1)


def test_only_warm_ups_read_their_answers(newest_scratch: Session) -> None:
    """The rounds drop their rows, so that reading them is in no time that counts; their number is known all the same."""
    read: list[bool] = []

    def clock(session: Session, sql: str, take: Take | None) -> TimedRun:
        read.append(take is not None)
        return TimedRun(planning_ms=1.0, execution_ms=1.0, row_count=session.stream(sql, take))

    runs = _measured(newest_scratch, clock, rounds=2)
    assert read == [True, True, False, False, False, False]
    assert [run.row_count for run in runs] == [1] * 6
    assert [run.answer_hash is None for run in runs] == [False, False, True, True, True, True]


def _cut_off(session: Session, sql: str, take: Take | None) -> TimedRun:
    raise QueryTimeout(sql, timeout_ms=1)


def test_a_query_that_is_cut_off_twice_is_timed_out_on_every_side(
    newest_scratch: Session, limits_ms: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """With the default limit it runs twice for ten minutes, and not twelve times; the warning says why."""
    runs = _measured(newest_scratch, _cut_off, rounds=5, sides=4)
    assert sorted((run.side, run.repetition) for run in runs) == [(f"s{side}", number) for side in range(4) for number in range(6)]
    assert all(run.timed_out and run.execution_ms == 600_000 for run in runs)
    assert limits_ms == [600_000, 600_000]
    assert caplog.messages == [
        "query q was cut off after 600 s on 's0' and 's1', so it counts as timed out on every side and is not run again; give a limit "
        "with --query-timeout-ms"
    ]


def test_a_query_that_was_given_up_is_not_run_in_further_rounds(newest_scratch: Session, limits_ms: list[int]) -> None:
    """It counts as timed out in them, too, so that it has as many rounds as the other queries."""
    written: list[Line] = []
    sides = [PlainSide(name=f"s{number}", session=newest_scratch) for number in range(2)]
    measurement = QueryMeasurement(query=QUERY, sides=sides, timeout_ms=None, write=written.append, clock=_cut_off)
    measurement.run(2)
    runs = measurement.more(2, sides, written.append)
    assert [(run.repetition, run.side, run.timed_out) for run in runs] == [
        *((3, "s1", True), (3, "s0", True)),
        *((4, "s0", True), (4, "s1", True)),
    ]
    assert limits_ms == [600_000, 600_000]


def test_a_baseline_that_was_cut_off_is_waited_for_as_long_as_the_others_need(newest_scratch: Session, limits_ms: list[int]) -> None:
    """Its later limits are ten times the slowest run of a side that ended; its times stay lower bounds."""

    def clock(session: Session, sql: str, take: Take | None) -> TimedRun:
        if len(limits_ms) % 2 == 1:  # s0, s1, then rounds of s0/s1
            return _cut_off(session, sql, take)
        return TimedRun(planning_ms=0.0, execution_ms=700.0, row_count=1)

    runs = _measured(newest_scratch, clock, rounds=1)
    assert [(run.side, run.timed_out, run.execution_ms) for run in runs if run.repetition == 1] == [
        ("s0", True, 7_000),
        ("s1", False, 700.0),
    ]
    assert limits_ms[0] == limits_ms[1] == 600_000
    assert set(limits_ms[2:]) == {7_000}


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        (
            "SELECT set_config('default_transaction_read_only', 'off', false); COMMIT; CREATE TABLE written (i int)",
            "statement failed: it is not one statement; make a query of each [42601]: SELECT set_config(",
        ),
        ("CREATE TABLE written (i int)", "statement failed: cannot execute CREATE TABLE in a read-only transaction [25006]: "),
        ("COMMIT", "a statement ended the read-only transaction that it ran in, in database "),
    ],
)
def test_a_query_that_leaves_its_transaction_fails_and_writes_nothing(newest_scratch: Session, sql: str, error: str) -> None:
    """It is an error of every side, for that query only."""
    written: list[Line] = []
    sides = [PlainSide(name=name, session=newest_scratch) for name in ("baseline", "other")]
    query = Query(id="q", sql=sql)
    clock = clock_of(newest_scratch)
    if sql == "COMMIT":  # EXPLAIN would refuse it
        clock = lambda session, text, take: TimedRun(planning_ms=0.0, execution_ms=0.0, row_count=session.stream(text, take))  # noqa: E731
    QueryMeasurement(query=query, sides=sides, timeout_ms=None, write=written.append, clock=clock).run(3)
    runs = [entry for entry in written if isinstance(entry, QueryRun)]
    assert [run.side for run in runs] == ["baseline", "other"]
    assert all(run.error is not None and run.error.startswith(error) for run in runs)
    assert newest_scratch.scalar("SELECT to_regclass('written')") is None


def test_what_a_query_sets_is_gone_with_it(newest_scratch: Session) -> None:
    """A SELECT that switches read-only off for the session is measured, and the next query finds it on."""
    newest_scratch.execute("SET default_transaction_read_only = on")
    query = Query(id="q", sql="SELECT set_config('default_transaction_read_only', 'off', false)")
    side = PlainSide(name="baseline", session=newest_scratch)
    QueryMeasurement(query=query, sides=[side], timeout_ms=None, write=lambda line: None, clock=clock_of(newest_scratch)).run(1)
    assert newest_scratch.scalar("SHOW default_transaction_read_only") == "on"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET default_transaction_read_only = off",
    ],
)
def test_a_session_that_cannot_write_stays_so(newest_scratch: Session, sql: str) -> None:
    """A statement that would change it, in training too, is an error; so is a query, and the next one cannot write."""
    newest_scratch.execute("CREATE TABLE t (i int)")
    newest_scratch.refuse_writing()
    expected = f"a statement made its read-only session able to write; leave it out of the workload: {sql}"
    with pytest.raises(LeftTransaction, match=f"^{re.escape(expected)}$"):
        newest_scratch.execute(sql)
    written: list[Line] = []
    side = PlainSide(name="baseline", session=newest_scratch)
    for text in (sql, "WITH w AS (INSERT INTO t VALUES (1) RETURNING i) SELECT i FROM w"):
        clock: Clock = lambda session, sql, take: TimedRun(planning_ms=0.0, execution_ms=0.0, row_count=session.stream(sql, take))  # noqa: E731
        QueryMeasurement(query=Query(id="q", sql=text), sides=[side], timeout_ms=None, write=written.append, clock=clock).run(1)
    first, second = (run.error for run in written if isinstance(run, QueryRun))
    assert first == expected
    assert second is not None
    assert second.startswith("statement failed: cannot execute SELECT in a read-only transaction [25006]")
    assert newest_scratch.scalar("SELECT count(*) FROM t") == 0


def test_what_no_transaction_undoes_ends_with_a_query(newest_scratch: Session) -> None:
    """Locks and prepared statements of a query are no trace of the algorithm that decides next."""
    side = PlainSide(name="baseline", session=newest_scratch)
    before = state_of(newest_scratch)
    for text in ("SELECT pg_advisory_lock(7)", "PREPARE p AS SELECT 1"):
        clock: Clock = lambda session, sql, take: TimedRun(planning_ms=0.0, execution_ms=0.0, row_count=session.stream(sql, take))  # noqa: E731
        QueryMeasurement(query=Query(id="q", sql=text), sides=[side], timeout_ms=None, write=lambda line: None, clock=clock).run(1)
    assert state_of(newest_scratch) == before
