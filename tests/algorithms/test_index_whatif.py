"""Questions to real planners: both back ends give the costs of real indexes, in parallel and in order."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Barrier

import pytest

from pytest_pilotscope.algorithms.index.advisor import select, take_start
from pytest_pilotscope.algorithms.index.costs import Answer, Question, UsedSetCosts
from pytest_pilotscope.algorithms.index.extend import Configuration, Limits
from pytest_pilotscope.algorithms.index.query_columns import IndexedQuery, indexed_query
from pytest_pilotscope.algorithms.index.whatif import BackEnd, OpenWhatIf, _Workers, open_what_if
from pytest_pilotscope.errors import DatasetError, MissingServer, StatementFailed, UsageError
from pytest_pilotscope.postgres import hypopg
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.indexes import PREFIX, Index, create_index, explain_cost
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from tests.algorithms.shop import Shop

CUSTOMER, PLACED, BOTH = Index("orders", ("customer",)), Index("orders", ("placed",)), Index("orders", ("customer", "placed"))
LIMITS = Limits(budget_bytes=10 << 20)


def read_queries(database: Database) -> list[IndexedQuery]:
    """The training queries of the shop."""
    with database.session() as session:
        schema = read_schema(session)
    return [indexed_query(query, schema) for query in Shop().workload().train]


@contextmanager
def asking(database: Database, means: BackEnd) -> Iterator[tuple[Database, OpenWhatIf]]:
    """A what-if of these means in a copy; skips with the reason where there is none."""
    with database.session() as session:
        if means == "hypopg" and hypopg.obstacle(session):
            pytest.skip("HypoPG is not installed for PostgreSQL 15 (Debian: postgresql-15-hypopg)")
        if means == "hidden" and not has_extension(session):
            pytest.skip("the pilotscope library cannot be built here")
    with database.copy() as copy, open_what_if(copy, means) as what_if:
        yield copy, what_if


@pytest.fixture(params=["hypopg", "hidden"])
def open_shop(request: pytest.FixtureRequest, shop_of_15: Database) -> Iterator[tuple[Database, OpenWhatIf]]:
    """The shop with each of the two means, on the same PostgreSQL."""
    with asking(shop_of_15, request.param) as opened:
        assert opened[1].name == request.param
        yield opened


def test_costs_are_those_of_built_indexes(shop_of_15: Database, open_shop: tuple[Database, OpenWhatIf]) -> None:
    """Hidden: exactly; HypoPG: within 15 %. Used indexes are those in the plan."""
    _, what_if = open_shop
    queries = read_queries(shop_of_15)
    answers = what_if.ask([Question(query, frozenset({CUSTOMER, PLACED})) for query in queries])
    with shop_of_15.copy() as built, built.session() as session:
        for index in (CUSTOMER, PLACED):
            create_index(session, index)
        for query, answer in zip(queries, answers, strict=True):
            cost, names = explain_cost(session, query.sql)
            assert {index.name for index in answer.used} == {name for name in names if name.startswith(PREFIX)}
            assert answer.cost == pytest.approx(cost, rel=1e-9 if what_if.name == "hidden" else 0.15)


def test_answers_are_in_the_order_of_the_questions(shop_of_15: Database, open_shop: tuple[Database, OpenWhatIf]) -> None:
    """Two connections answer 200 questions as one by one, configurations mixed."""
    _, what_if = open_shop
    queries = read_queries(shop_of_15)
    configurations = [frozenset[Index](), frozenset({CUSTOMER}), frozenset({PLACED}), frozenset({BOTH, PLACED})]
    questions = [Question(queries[n % 12], configurations[n % 5 % 4]) for n in range(200)]
    alone: dict[tuple[str, frozenset[Index]], Answer] = {}
    for question in questions:
        key = (question.query.id, question.indexes)
        if key not in alone:
            (alone[key],) = what_if.ask([question])
    assert len(alone) == 48
    assert what_if.ask(questions) == [alone[question.query.id, question.indexes] for question in questions]


def test_few_questions_are_shared_out() -> None:
    """Two questions are answered side by side by two planners: each waits until the other has one, too."""
    both = Barrier(2)

    class Waiting:
        def answer(self, question: Question) -> Answer:
            both.wait(60)
            return Answer(question.query.id == "a", frozenset())

    workers = _Workers([Waiting(), Waiting()])
    try:
        questions = [Question(IndexedQuery(id=name, sql=name, referenced={}, indexable={}), frozenset()) for name in "ab"]
        assert [answer.cost for answer in workers.ask(questions)] == [1, 0]
    finally:
        workers.close()


def test_a_failing_question_is_reported_and_the_others_can_be_asked(shop_of_15: Database, open_shop: tuple[Database, OpenWhatIf]) -> None:
    """The planner's error reaches the caller; afterwards both connections still answer."""
    _, what_if = open_shop
    queries = read_queries(shop_of_15)
    broken = IndexedQuery(id="x", sql="SELECT 1 FROM nowhere", referenced={}, indexable={})
    with pytest.raises(StatementFailed, match=r'^statement failed: relation "nowhere" does not exist \[42P01\]: .*SELECT 1 FROM nowhere$'):
        what_if.ask([*[Question(query, frozenset()) for query in queries], Question(broken, frozenset())])
    assert len(what_if.ask([Question(query, frozenset()) for query in queries])) == 12


def test_both_means_select_what_helps(shop_of_15: Database, open_shop: tuple[Database, OpenWhatIf]) -> None:
    """Orders are searched by customer and by the time they were placed; both means find it."""
    copy, what_if = open_shop
    queries = read_queries(shop_of_15)
    with copy.session() as session:
        start = take_start(session, drop=False)
    costs = UsedSetCosts(what_if, queries)
    selection = select(queries, costs, LIMITS, start.kept_indexes)
    assert selection.indexes == (CUSTOMER, PLACED)
    assert selection.cost_after < selection.cost_before / 3
    assert selection.size_bytes == sum(map(what_if.size_bytes, selection.indexes))


def test_few_questions_select_what_asking_about_everything_selects(open_shop: tuple[Database, OpenWhatIf], shop_of_15: Database) -> None:
    """With columns that are only read as candidates, too: the same steps at the same costs, from three quarters of the questions."""
    queries = [replace(query, indexable=query.referenced) for query in read_queries(shop_of_15)]
    assert share_asked(*open_shop, queries, drop=False) < 3 / 4


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "scale", "most"), [("stats_tiny", 0.1, 0.25), ("tpch", 0.01, 0.25)])
def test_few_questions_about_published_queries(dataset: str, scale: float, most: float) -> None:
    """The same for a dataset's test queries without secondary indexes, from at most a quarter of the questions."""
    with ExitStack() as stack:
        try:
            database = stack.enter_context(open_database(PostgreSQLConfig(dataset, server="embedded", scale=scale)))
        except (MissingServer, DatasetError) as error:
            pytest.skip(str(error))
        copy, what_if = stack.enter_context(asking(database, "hidden"))
        assert database.dataset is not None
        with database.session() as session:
            schema = read_schema(session)
        queries = [indexed_query(query, schema) for query in database.dataset.workload().test[:60]]
        assert share_asked(copy, what_if, queries, drop=True) < most


def share_asked(copy: Database, what_if: OpenWhatIf, queries: list[IndexedQuery], *, drop: bool) -> float:
    """Check that the selection is the same if everything is asked; return the share of the questions that were asked."""
    with copy.session() as session:
        start = take_start(session, drop=drop)
    costs, everything = UsedSetCosts(what_if, queries), Everything(what_if, queries)
    selection, plain = (select(queries, one, LIMITS, start.kept_indexes) for one in (costs, everything))
    assert [(step.added, step.replaced) for step in selection.steps] == [(step.added, step.replaced) for step in plain.steps]
    assert [step.cost for step in selection.steps] == pytest.approx([step.cost for step in plain.steps], rel=0.01)
    return costs.calls / len(everything.known)


class Everything:
    """Asks about every query under every set of indexes that touch it, once."""

    def __init__(self, what_if: OpenWhatIf, queries: list[IndexedQuery]) -> None:
        self.what_if, self.queries = what_if, queries
        self.known: dict[tuple[str, Configuration], float] = {}

    def total(self, configuration: Configuration) -> float:
        """Sum over the queries."""
        questions = [Question(query, frozenset(filter(query.touched_by, configuration))) for query in self.queries]
        new = [question for question in questions if (question.query.sql, question.indexes) not in self.known]
        for (query, indexes), answer in zip(new, self.what_if.ask(new), strict=True):
            self.known[query.sql, indexes] = answer.cost
        return sum(self.known[query.sql, indexes] for query, indexes in questions)

    def lower_bounds(self, configurations: Sequence[Configuration], chosen: Configuration) -> list[float]:
        """Nothing is known before it is asked."""
        return [0.0] * len(configurations)

    def tightened(self, configuration: Configuration, bound: float) -> tuple[float, bool]:
        """The total at once."""
        return self.total(configuration), True

    def size_bytes(self, index: Index) -> int:
        """The back end's."""
        return self.what_if.size_bytes(index)


def test_the_starting_point(shop: Database) -> None:
    """`existing` keeps all indexes; `none` drops those without a constraint, partial ones included, and says which."""
    with shop.copy() as copy, copy.session() as session:
        kept = take_start(session, drop=False)
        assert kept.dropped == ()
        assert kept.kept_indexes == {Index("customers", ("id",)), Index("orders", ("id",)), Index("orders", ("amount",))}
        bare = take_start(session, drop=True)
        assert [existing.name for existing in bare.dropped] == ["customers_in_city", "orders_by_amount"]
        assert bare.kept_indexes == {Index("customers", ("id",)), Index("orders", ("id",))}
        assert take_start(session, drop=True).dropped == ()


def test_hypopg_is_insisted_on_where_it_is_not(shop: Database) -> None:
    """The wheel's PostgreSQL has none, and the message says what to do."""
    expected = (
        "HypoPG is not on this server; install it on the server's machine (Debian: postgresql-NN-hypopg) and have a superuser run "
        "CREATE EXTENSION hypopg in the database that is copied, or use --index-whatif hidden"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(expected)}$"), shop.copy() as copy, open_what_if(copy, "hypopg"):
        pass


def test_without_any_means(shop: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither HypoPG nor the library: nothing is guessed."""
    monkeypatch.setattr("pytest_pilotscope.algorithms.index.whatif.has_extension", lambda session: False)
    expected = (
        "HypoPG is not on this server, and indexes cannot be hidden from the planner, because the pilotscope library is not loaded "
        "(docs/steering.md); index selection needs one of the two"
    )
    with pytest.raises(UsageError, match=f"^{re.escape(expected)}$"), shop.copy() as copy, open_what_if(copy):
        pass


def test_a_role_that_may_not_create_hypopg(shop_of_15: Database) -> None:
    """`auto` takes the other means; who insists on HypoPG is told why it cannot be; where it is created already it is taken."""
    with shop_of_15.copy() as copy, copy.session() as session:
        if hypopg.obstacle(session) or not has_extension(session):
            pytest.skip("this needs HypoPG for PostgreSQL 15 (Debian: postgresql-15-hypopg) and the pilotscope library")
        session.execute("CREATE ROLE limited")
        limited = replace(copy, session_settings={"role": "limited"})
        try:
            with open_what_if(limited) as what_if:
                assert what_if.name == "hidden"
            expected = (
                "HypoPG is on this server, but role 'limited' may not create it; "
                "install it on the server's machine (Debian: postgresql-NN-hypopg) and have a superuser run CREATE EXTENSION hypopg in the "
                "database that is copied, or use --index-whatif hidden"
            )
            with pytest.raises(UsageError, match=f"^{re.escape(expected)}$"), open_what_if(limited, "hypopg"):
                pass
            hypopg.install(session)
            with open_what_if(limited) as what_if:
                assert what_if.name == "hypopg"
        finally:
            session.execute("DROP ROLE limited")
