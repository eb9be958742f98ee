"""Each kind of decision in a measurement: applied, verified on the plan, counted, and put back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from pytest_pilotscope import Decision
from pytest_pilotscope.errors import SteeringError, UnsupportedQuery
from pytest_pilotscope.learning.algorithm import Algorithm
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.measurement.clocks import clock_of
from pytest_pilotscope.measurement.protocol import Line, QueryMeasurement
from pytest_pilotscope.measurement.sides import PlainSide, side_of
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.sessionstate import state_of
from pytest_pilotscope.queries.joins import LeveledSubplan
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import QueryReport, TrainingReport
from tests.conftest import LibraryOf

SQL = "SELECT count(*) FROM a JOIN b ON a.id = b.other JOIN c ON b.id = c.other JOIN a AS d ON c.id = d.other"


@pytest.fixture(scope="module")
def session(newest_server: EmbeddedServer, library_of: LibraryOf) -> Iterator[Session]:
    """Open a session with the library in a database of three tables."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE decided")
        with newest_server.connect("decided") as session:
            session.execute(f"LOAD '{library_of(newest_server)}'")
            for name in "abc":
                session.execute(f"CREATE TABLE {name} AS SELECT g AS id, g % 50 AS other FROM generate_series(1, 900) AS g")
                session.execute(f"CREATE INDEX ON {name} (id); CREATE INDEX ON {name} (other)")
            session.execute("ANALYZE")
            yield session
        administrator.execute("DROP DATABASE decided WITH (FORCE)")


class Fixed:
    """Decides always the same, or raises it."""

    name = "fixed"

    def __init__(self, decided: Decision | Exception) -> None:
        self.decided = decided

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing."""
        return training.report()

    def decide(self, query: Query, session: Session) -> Decision:
        """Return or raise."""
        if isinstance(self.decided, Exception):
            raise self.decided
        return self.decided


def measured(session: Session, decided: Decision | Exception, sql: str = SQL) -> QueryReport:
    """Measure a query without and with the decision, and return the report of the decider."""
    written: list[Line] = []
    before = state_of(session)
    sides = [PlainSide(name="baseline", session=session), side_of("fixed", cast(Algorithm, Fixed(decided)), session)]
    query = Query(id="q", sql=sql)
    QueryMeasurement(query=query, sides=sides, timeout_ms=None, write=written.append, clock=clock_of(session)).run(1)
    assert state_of(session) == before
    own, report = (line for line in written if isinstance(line, QueryReport))
    assert (own.steered_ratio, own.left) == (None, None)
    if isinstance(decided, Exception) or report.steered_ratio in (None, 0, 1):
        assert (report.plan_shape == own.plan_shape) is (report.steered_ratio != 1)
    return report


@pytest.mark.parametrize(
    "decided",
    [
        Decision(rows={frozenset("ab"): 1.0, frozenset("abcd"): 7.0, frozenset("cd"): 90_000.0}),
        Decision(join_order="((d c) (b a))"),
        Decision(join_order="((b c d) a)"),
        Decision(methods={"a b c d": "nestloop"}),
        Decision(join_order="((a b c) d)", methods={frozenset("abcd"): "nestloop", frozenset("a"): "indexscan"}),
        Decision(settings={"enable_hashjoin": "off", "enable_mergejoin": "off"}),
        Decision(settings={"enable_hashjoin": "off"}, join_order="((d c) (b a))", rows={frozenset("abcd"): 7.0}),
    ],
)
def test_a_decision_is_followed_and_put_back(session: Session, decided: Decision) -> None:
    """The plan is another one, all of the decision is found in it, and afterwards the session is as before."""
    report = measured(session, decided)
    assert (report.steered_ratio, report.steering_reasons, report.left) == (1.0, (), None)


@pytest.mark.parametrize(
    ("decided", "sql", "ratio", "reasons"),
    [
        (
            Decision(join_order="(a z)"),
            SQL,
            0.0,
            ('pilotscope.join_order: tree 1 of 1 was not used: it does not fit the relations of this statement, which has no "z"',),
        ),
        (
            Decision(join_order="((((a b) c) d) z)"),
            SQL,
            0.0,
            ('pilotscope.join_order: tree 1 of 1 was not used: it does not fit the relations of this statement, which has no "z"',),
        ),
        (
            Decision(join_order="(a z)", settings={"enable_sort": "off"}),
            SQL,
            0.5,
            ('pilotscope.join_order: tree 1 of 1 was not used: it does not fit the relations of this statement, which has no "z"',),
        ),
        (
            Decision(rows={frozenset("z"): 7.0}),
            SQL,
            0.0,
            ('pilotscope.cardinalities: 1 of 1 keys name no relations of this statement, the first is "z"',),
        ),
        (
            Decision(rows={frozenset("ac"): 7.0}),
            "SELECT count(*) FROM a JOIN b ON a.id = b.other JOIN c ON b.id = c.other",
            0.0,
            ("rows of a c: PostgreSQL considers no such set",),
        ),
        (
            Decision(
                rows={LeveledSubplan(1, "ac"): 7.0, LeveledSubplan(2, "ab"): 7.0, LeveledSubplan(2, "ac"): 7.0},
                settings={"enable_sort": "off"},
            ),
            "SELECT (SELECT count(*) FROM a JOIN b ON a.id = b.other JOIN c ON b.id = c.other) + count(*) FROM a, c WHERE a.id = c.other",
            0.5,
            (
                'pilotscope.cardinalities: 1 of 3 keys name no relations of this statement, the first is "2:a b"',
                "rows of 1:a c: PostgreSQL considers no such set",
            ),
        ),
        (
            Decision(join_order="(a b)", methods={"a": "seqscan"}, rows={frozenset("a"): 3.0}),
            "SELECT 1",
            0.0,
            ("the statement has no relations whose rows, joins or scans can be decided",),
        ),
        (
            Decision(methods={"a": "seqscan", "a_1": "indexscan", "a a_1": "mergejoin"}, rows={frozenset("a"): 3.0}),
            "SELECT count(*) FROM a JOIN a AS a_1 ON a.id = a_1.other WHERE a_1.id < 700",
            1.0,
            (),
        ),
        (
            Decision(methods={"a b": "hashjoin"}),
            "SELECT count(*) FROM a JOIN b ON a.id < b.id",
            0.0,
            ("Nested Loop a b: hashjoin was decided",),
        ),
        (
            Decision(join_order="((a c) b)", settings={"enable_sort": "off"}),
            "SELECT count(*) FROM a LEFT JOIN (b JOIN c ON b.id = c.id) ON a.id = b.other",
            0.25,
            (
                "pilotscope.join_order: a tree is not a legal join order here and was ignored",
                "join of a c: the plan has no join of exactly these",
            ),
        ),
    ],
)
def test_what_postgresql_could_not_do_is_named(
    session: Session, decided: Decision, sql: str, ratio: float, reasons: tuple[str, ...]
) -> None:
    """Nothing that was decided and is not in the plan passes in silence; the query is left if nothing of it was used."""
    report = measured(session, decided, sql)
    assert report.steering_reasons[: len(reasons)] == reasons
    assert report.steered_ratio == pytest.approx(ratio)
    assert report.left == (None if ratio else f"PostgreSQL used nothing of its decision: {reasons[0]}")


def test_postgresqls_own_plan_is_a_decision_that_was_followed(session: Session) -> None:
    """Deciding on nothing leaves nothing to verify, and leaves no query."""
    report = measured(session, Decision())
    assert (report.steered_ratio, report.steering_reasons, report.left) == (None, (), None)


def test_a_query_that_the_algorithm_cannot_decide_on_is_left(session: Session) -> None:
    """It counts as not steered, with the reason."""
    report = measured(session, UnsupportedQuery("it has no features", SQL))
    assert (report.steered_ratio, report.steering_reasons, report.left) == (0.0, ("not steered: it has no features",), "it has no features")


@pytest.mark.parametrize(
    ("decided", "message"),
    [
        (Decision(settings={"enable_hashjoin": "perhaps"}), "PostgreSQL did not take enable_hashjoin: "),
        (Decision(settings={"search_path": "x"}), "a decision cannot set 'search_path' "),
        (Decision(join_order="a b"), "PostgreSQL did not take pilotscope.join_order: a tree starts with a parenthesis"),
        (Decision(join_order="((a b) c"), r".* a closing parenthesis, found \"\"; the join order is '\(\(a b\) c'$"),
        (Decision(methods={"a": "hashjoin"}), "PostgreSQL did not take pilotscope.methods: hashjoin does not fit"),
        (Decision(join_order="(a \0b)"), "PostgreSQL takes no such text for pilotscope.join_order: .* cannot contain NUL"),
        (Decision(settings={"work_mem": "\ud800"}), "PostgreSQL takes no such text for work_mem: .* surrogates not allowed$"),
    ],
)
def test_a_decision_that_cannot_be_read_is_an_error(session: Session, decided: Decision, message: str) -> None:
    """The algorithm is wrong, and its run fails; nothing of the decision stays."""
    before = state_of(session)
    with pytest.raises(SteeringError, match=f"^fixed decided on query 'q': {message}"):
        measured(
            session,
            Decision(
                rows={frozenset("a"): 3.0}, **cast(Any, {name: getattr(decided, name) for name in ("settings", "join_order", "methods")})
            ),
        )
    assert state_of(session) == before


def test_settings_need_no_library(newest_scratch: Session) -> None:
    """A server that loads no library of ours can still be told settings."""
    newest_scratch.execute("CREATE TABLE a AS SELECT generate_series(1, 900) AS id; CREATE TABLE b AS TABLE a; ANALYZE")
    report = measured(newest_scratch, Decision(settings={"enable_hashjoin": "off"}), "SELECT count(*) FROM a JOIN b USING (id)")
    assert (report.steered_ratio, report.steering_reasons) == (1.0, ())
