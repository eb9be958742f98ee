"""Sides decide on a query and steer the session. No server: the session only notes the calls."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from unittest import SkipTest

import numpy
import pytest

from pytest_pilotscope.errors import AlgorithmError, InvalidEstimate, QueryTimeout, StatementFailed, UnsupportedQuery, error_text
from pytest_pilotscope.learning.algorithm import Algorithm, Cardinalities, PartialCardinalities
from pytest_pilotscope.learning.decision import Decision, check_rows
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.measurement.sides import EstimatorSide, ObservingSide, check_facts, missed, side_of
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import LeveledSubplan
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import TrainingReport

KEEP = "; return {**subplans, ...} to keep PostgreSQL's own rows of the others"
LISTED = {frozenset("a"): 1.0, frozenset("ab"): 2.0}
BY_TEXT = {frozenset("a"): 10.0, frozenset("ab"): 20.0}
FAILURES = {
    "unplanned": StatementFailed("unplanned", reason="syntax error", sqlstate="42601"),
    "slow": QueryTimeout("slow", timeout_ms=7),
    "lost": StatementFailed("lost", reason="the connection to the server is closed"),
}


class Remembering:
    """Stands in for a session."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.injected: list[Cardinalities] = []

    def subplans(self, sql: str) -> Cardinalities:
        """Return the planner's list."""
        self.asked.append(sql)
        if sql in FAILURES:
            raise FAILURES[sql]
        return LISTED

    closed = transaction_open = False

    def explain(self, sql: str) -> None:
        """Plan a statement."""
        if sql in FAILURES:
            raise FAILURES[sql]

    @contextmanager
    def cardinalities(self, rows: Cardinalities) -> Iterator[None]:
        """Note what is injected."""
        self.injected.append(rows)
        yield


class Doubler:
    """Doubles PostgreSQL's estimates; a query whose text it understands it answers by itself."""

    name = "doubler"

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing."""
        return training.report()

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Twice as many."""
        return {subplan: 2 * rows for subplan, rows in subplans.items()}

    def steer_by_text(self, query: Query) -> Cardinalities | None:
        """Return rows for two texts, nothing for others."""
        if query.sql == "refused":
            raise UnsupportedQuery("it is refused", query.sql)
        return {"plain": BY_TEXT, "broken": {frozenset("a"): float("nan")}}.get(query.sql)


def steered(sql: str) -> tuple[Remembering, str | None]:
    """Return the session after steering, and why the query was left alone."""
    session = Remembering()
    side = side_of("doubler", cast(Algorithm, Doubler()), cast(Session, session))
    with side.steered(Query(id="q", sql=sql)) as steering:
        assert 0 < steering.inference_processor_ms <= 1.5 * steering.inference_ms + 1
        assert [steering.estimates] == [*(session.injected or (None,))]
    return session, steering.unsupported


def test_the_planner_is_asked_only_for_what_the_text_does_not_tell() -> None:
    """Listing the subplans costs a planning, which a decision by the text is spared from the second time on."""
    session = Remembering()
    side = side_of("doubler", cast(Algorithm, Doubler()), cast(Session, session))
    for _ in range(3):
        with side.steered(Query(id="q", sql="plain")):
            pass
    assert (session.asked, session.injected) == (["plain"], [BY_TEXT] * 3)
    session, _ = steered("difficult")
    assert (session.asked, session.injected) == (["difficult"], [{frozenset("a"): 2.0, frozenset("ab"): 4.0}])


def test_an_answer_by_the_text_is_held_to_the_same() -> None:
    """A NaN fails the run, and a query that is refused is left to PostgreSQL with the reason."""
    with pytest.raises(InvalidEstimate, match="doubler"):
        steered("broken")
    session, reason = steered("refused")
    assert (session.asked, session.injected, reason) == ([], [], "it is refused")


@pytest.mark.parametrize(
    ("sql", "reason"),
    [("unplanned", "PostgreSQL does not plan it: syntax error"), ("slow", "planning it takes more than 7 ms")],
)
def test_what_cannot_be_planned_is_left_to_postgresql(sql: str, reason: str) -> None:
    """PostgreSQL is left alone with an estimator's query and a chooser's, with the reason; a lost connection stays an error."""

    class Chooser:
        name = "chooser"

        def decide(self, query: Query, session: Session) -> Decision:
            return Decision(rows=session.subplans(query.sql))

    session, unsupported = steered(sql)
    assert (session.injected, unsupported) == ([], reason)
    side = side_of("chooser", cast(Algorithm, Chooser()), cast(Session, Remembering()))
    with side.steered(Query(id="q", sql=sql)) as steering:
        assert (steering.unsupported, steering.decision) == (reason, None)
    with pytest.raises(StatementFailed, match="the connection to the server is closed"):
        steered("lost")
    with pytest.raises(StatementFailed, match="the connection to the server is closed"), side.steered(Query(id="q", sql="lost")):
        pass


def test_what_the_algorithm_does_to_its_list_changes_nothing() -> None:
    """Estimates that are the emptied list of the planner miss every subplan."""

    class Emptying(Doubler):
        def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
            cast(dict[Any, float], subplans).clear()
            return subplans

    side = side_of("emptying", cast(Algorithm, Emptying()), cast(Session, Remembering()))
    with side.steered(Query(id="q", sql="listed")) as steering:
        assert steering.unsupported is not None
        assert steering.unsupported.startswith("it has no rows for 2 of 2 subplans, among them a; ")


@pytest.mark.parametrize(
    "error", [SystemExit(0), GeneratorExit("no"), pytest.skip.Exception("no"), pytest.exit.Exception("no"), SkipTest("no")]
)
def test_an_algorithm_ends_nothing_but_itself(error: BaseException) -> None:
    """Whatever it raises to end or skip the test, the session or the process is its failure, by name."""

    class Ending(Doubler):
        def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
            raise error

    side = side_of("ending", cast(Algorithm, Ending()), cast(Session, Remembering()))
    message = f"ending raised {type(error).__name__}: {error}; an algorithm cannot end or skip a test or the process"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"), side.steered(Query(id="q", sql="listed")):
        pass


def test_a_statement_of_the_algorithms_own_that_fails_is_its_error() -> None:
    """Only a query that PostgreSQL cannot plan is left; whatever else goes wrong in `decide` fails the side."""

    class Careless:
        name = "careless"

        def decide(self, query: Query, session: Session) -> Decision:
            raise StatementFailed("SELECT from nowhere", reason="syntax error", sqlstate="42601")

    side = side_of("careless", cast(Algorithm, Careless()), cast(Session, Remembering()))
    message = r"^careless failed on query 'q': statement failed: syntax error \[42601\]: SELECT from nowhere$"
    with pytest.raises(AlgorithmError, match=message), side.steered(Query(id="q", sql="SELECT 1;")):
        pass


@pytest.mark.parametrize("by_text", [True, False])
def test_a_query_of_which_a_subplan_is_missed_is_left_to_postgresql(by_text: bool) -> None:
    """Nothing is injected, the reason has what was missed, and deciding counts as inference all the same."""

    class Forgetful(Doubler):
        def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
            return {frozenset("a"): 1.0}

        def steer_by_text(self, query: Query) -> Cardinalities | None:
            return {frozenset("a"): 1.0} if by_text else None

    session = Remembering()
    side = side_of("forgetful", cast(Algorithm, Forgetful()), cast(Session, session))
    for _ in range(2):
        with side.steered(Query(id="q", sql="any")) as steering:
            assert steering.unsupported == f"it has no rows for 1 of 2 subplans, among them a b{KEEP}"
            assert steering.estimates is None
            assert steering.inference_ms > 0
    assert session.injected == []


def test_an_estimator_may_say_what_it_does_not_know() -> None:
    """A subplan with a reason in place of rows is not missed; one without either is."""
    partial = PartialCardinalities({frozenset("a"): 3.0}, {frozenset("ab"): "it has a LIMIT"})
    assert missed(LISTED, partial) is None
    assert missed({**LISTED, frozenset("c"): 1.0}, partial) == f"it has no rows for 1 of 3 subplans, among them c{KEEP}"


def test_rows_for_one_query_level_are_not_enough() -> None:
    """Each level has subplans of its own; rows without a level are for all."""
    levels: Cardinalities = {LeveledSubplan(1, "a"): 1.0, LeveledSubplan(2, "a"): 2.0}
    assert missed(levels, {LeveledSubplan(2, "a"): 1.0}) == f"it has no rows for 1 of 2 subplans, among them a{KEEP}"
    assert missed(levels, {frozenset("a"): 1.0}) is None


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "chooser answered query 'q' with None; it must be a Decision (from pytest_pilotscope import Decision)"),
        ({}, "chooser answered query 'q' with {}; it must be a Decision (from pytest_pilotscope import Decision)"),
        (
            Decision(rows=cast(Any, [1])),
            "chooser answered query 'q' with [1]; it must be a mapping of subplans (frozensets of aliases) to rows",
        ),
        (
            Decision(rows=cast(Any, {"a b": 1.0})),
            "chooser answered query 'q' with rows for 'a b'; a subplan is a frozenset of aliases, such as frozenset({'c', 'u'})",
        ),
        (
            Decision(rows=cast(Any, {frozenset("ab"): None})),
            "chooser estimated None rows for subplan {a b} of query 'q'; a cardinality must be a finite number >= 0",
        ),
        (
            Decision(rows={frozenset("ab"): 10**400}),
            f"chooser estimated 1{'0' * 400} rows for subplan {{a b}} of query 'q'; a cardinality must be a finite number >= 0",
        ),
        (
            Decision(join_order=cast(Any, ["a", "b"])),
            "chooser answered query 'q' with ['a', 'b'] as join_order; it must be a text such as '((a b) c)'",
        ),
        (
            Decision(methods=cast(Any, {"a": 1})),
            "chooser answered query 'q' with {'a': 1} as methods; it must be a mapping from aliases to methods, such as "
            "{'a b': 'hashjoin'}",
        ),
        (
            Decision(settings=cast(Any, {"enable_nestloop": False})),
            "chooser answered query 'q' with {'enable_nestloop': False} as settings; it must be a mapping from names to values, both "
            "texts, such as {'enable_nestloop': 'off'}",
        ),
        (
            Decision(settings=cast(Any, {frozenset("a"): "off"})),
            "chooser answered query 'q' with {frozenset({'a'}): 'off'} as settings; it must be a mapping from names to values, both "
            "texts, such as {'enable_nestloop': 'off'}",
        ),
    ],
)
def test_a_decision_of_the_wrong_type_fails_the_run(answer: object, message: str) -> None:
    """It is refused before it reaches the session; the message has the answer and the expected form."""

    class Chooser:
        name = "chooser"

        def decide(self, query: Query, session: Session) -> object:
            return answer

    session = Remembering()
    side = side_of("chooser", cast(Algorithm, Chooser()), cast(Session, session))
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"), side.steered(Query(id="q", sql="SELECT 1")):
        pass
    assert session.injected == []


@pytest.mark.parametrize("rows", [True, float("inf"), -1, "7", None, 10**400, 3 + 4j, numpy.bool_(True), numpy.float32("nan")])
def test_what_is_no_number_of_rows(rows: Any) -> None:
    """It is named, with its query and its subplan."""
    message = r"^doubler estimated .* rows for subplan \{a\} of query 'q'; a cardinality must be a finite number >= 0$"
    with pytest.raises(InvalidEstimate, match=message):
        check_rows("doubler", Query(id="q", sql=""), {frozenset("a"): rows})


def test_numbers_of_numpy_are_numbers() -> None:
    """An estimator may return them."""
    check_rows("doubler", Query(id="q", sql=""), {frozenset("a"): numpy.int64(3), frozenset("ab"): numpy.float32(2)})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (True, "doubler answered query 'q' with True; it must be a mapping of subplans (frozensets of aliases) to rows"),
        (
            {frozenset([1]): 1.0},
            "doubler answered query 'q' with rows for frozenset({1}); a subplan is a frozenset of aliases, such as frozenset({'c', 'u'})",
        ),
        (
            PartialCardinalities({}, cast(Any, {frozenset("a"): 7})),
            "doubler answered query 'q' with 7 as the reason for a; it must be a text",
        ),
    ],
)
def test_what_is_no_answer(answer: Any, message: str) -> None:
    """The message says what was returned, and what it must be."""
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"):
        check_rows("doubler", Query(id="q", sql=""), answer)


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ([1], "[1]; it must be a mapping from names (texts) to values"),
        ({1: 2}, "{1: 2}; it must be a mapping from names (texts) to values"),
        ({"score": float("nan")}, "nan as 'score'; a fact must be a text without NUL, a finite number, true, false or none"),
        ({"plans": [1]}, "[1] as 'plans'; a fact must be a text without NUL, a finite number, true, false or none"),
    ],
)
def test_what_is_no_explanation(facts: Any, problem: str) -> None:
    """The record could not hold it."""
    with pytest.raises(AlgorithmError, match=f"^{re.escape(f'''chooser explained query 'q' with {problem}''')}$"):
        check_facts("chooser", Query(id="q", sql=""), facts)
    check_facts("chooser", Query(id="q", sql=""), {"chosen": numpy.int64(1), "own": True, "why": None})


class Watching(Doubler):
    """A doubler that also keeps what it observes."""

    def __init__(self) -> None:
        self.observed: list[tuple[str, Decision, float]] = []

    def observe(self, query: Query, decision: Decision, execution_ms: float) -> None:
        """Keep an execution; fail on one of them."""
        if query.sql == "plain":
            raise KeyError("oops")
        self.observed.append((query.id, decision, execution_ms))


def observing() -> tuple[Watching, ObservingSide]:
    """Return an algorithm and its side."""
    algorithm = Watching()
    side = side_of("doubler", cast(Algorithm, algorithm), cast(Session, Remembering()))
    assert isinstance(side, EstimatorSide)
    return algorithm, ObservingSide(side=side, algorithm=algorithm)


def test_an_algorithm_observes_its_own_last_decision() -> None:
    """An estimator's decision has its rows; the time of learning is measured."""
    algorithm, side = observing()
    query = Query(id="q", sql="difficult")
    with side.steered(query) as steering:
        assert steering.estimates is not None
    assert side.observe(query, 12.5) > 0
    assert algorithm.observed == [("q", Decision(rows={frozenset("a"): 2.0, frozenset("ab"): 4.0}), 12.5)]


def test_a_query_that_was_left_to_postgresql_is_not_observed() -> None:
    """Its time says nothing about the algorithm."""
    algorithm, side = observing()
    for sql in ("difficult", "refused"):
        with side.steered(Query(id="q", sql=sql)):
            pass
    assert side.observe(Query(id="q", sql="refused"), 12.5) == 0.0
    assert algorithm.observed == []


def test_an_error_of_learning_names_the_algorithm_and_the_query() -> None:
    """It is told like one of a decision."""
    _, side = observing()
    query = Query(id="q", sql="plain")
    with side.steered(query):
        pass
    with pytest.raises(KeyError) as found:
        side.observe(query, 1.0)
    assert error_text(found.value) == "doubler failed on the execution of query 'q': KeyError: 'oops'"
