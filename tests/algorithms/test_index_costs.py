"""The used-set rule: the same costs as asking about everything, from far fewer questions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pilotscope.algorithms.index.costs import Answer, Question, UsedSetCosts
from pytest_pilotscope.algorithms.index.extend import Configuration, Limits, extend
from pytest_pilotscope.algorithms.index.query_columns import IndexedQuery
from pytest_pilotscope.postgres.indexes import Index

COLUMNS = tuple("abcde")


class Optimizer:
    """A planner in which every query has plans, each of which needs a set of indexes; it takes the cheapest that is possible."""

    def __init__(self, plans: dict[str, list[tuple[Configuration, float]]]) -> None:
        self.plans = plans
        self.asked: list[Question] = []

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answer, and keep the questions."""
        self.asked += questions
        return [self.answer(question) for question in questions]

    def answer(self, question: Question) -> Answer:
        """The cheapest plan that is possible."""
        needed, cost = min((p for p in self.plans[question.query.id] if p[0] <= question.indexes), key=lambda p: (p[1], sorted(p[0])))
        return Answer(cost, needed)

    def size_bytes(self, index: Index) -> int:
        """Ten bytes per column."""
        return 10 * len(index.columns)


def query(name: str) -> IndexedQuery:
    """A query that reads and searches all columns of one table."""
    columns = {"t": frozenset(COLUMNS)}
    return IndexedQuery(id=name, sql=name, referenced=columns, indexable=columns)


def plans(seed: int, count: int) -> dict[str, list[tuple[Configuration, float]]]:
    """For each query a sequential scan of cost 100 and some plans with one or two indexes, not all of them better."""
    draw = np.random.default_rng(seed)
    universe = [Index("t", (a,)) for a in COLUMNS] + [Index("t", (a, b)) for a in COLUMNS for b in COLUMNS if a != b]
    return {
        f"q{number}": [(frozenset(), 100.0)]
        + [
            (frozenset(universe[i] for i in draw.choice(len(universe), draw.integers(1, 3))), float(draw.uniform(1, 120)))
            for _ in range(draw.integers(0, 13))
        ]
        for number in range(count)
    }


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), upkeep=st.floats(0, 2))
def test_answers_are_those_of_asking_about_everything(seed: int, upkeep: float) -> None:
    """For any planner that takes the cheapest possible plan, every total is the plain one, and Extend finds the same indexes."""
    optimizer = Optimizer(plans(seed, 8))
    costs = UsedSetCosts(optimizer, [query(name) for name in optimizer.plans], lambda configuration: upkeep * len(configuration))
    plain = Plain(Optimizer(optimizer.plans), upkeep)
    columns, partners = {"t": frozenset(COLUMNS)}, {("t", c): frozenset(COLUMNS) for c in COLUMNS}
    limits = Limits(budget_bytes=60)
    assert extend(columns, partners, costs, limits) == extend(columns, partners, plain, limits)
    assert costs.calls == len(optimizer.asked)
    assert len({(q.query.id, q.indexes) for q in optimizer.asked}) == len(optimizer.asked)


@pytest.mark.parametrize("seed", [0, 1, 4, 7])
def test_moves_that_cannot_win_are_not_asked_about_to_the_end(seed: int) -> None:
    """For 40 queries Extend asks less than 0.26 of what it asks without bounds. With bounds only before a step it asked 0.30 at least."""
    optimizer, everything = Optimizer(plans(seed, 40)), Optimizer(plans(seed, 40))
    columns, partners = {"t": frozenset(COLUMNS)}, {("t", c): frozenset(COLUMNS) for c in COLUMNS}
    limits = Limits(budget_bytes=60)
    costs = UsedSetCosts(optimizer, [query(name) for name in optimizer.plans])
    assert extend(columns, partners, costs, limits) == extend(columns, partners, Plain(everything), limits)
    assert costs.calls < 0.26 * len({(question.query.id, question.indexes) for question in everything.asked})


def test_what_may_gain_most_is_asked_first() -> None:
    """One question about the query that could still gain most settles a bound; the other query is asked when that is not enough."""
    a = frozenset({Index("t", ("a",))})
    optimizer = Optimizer({"large": [(frozenset(), 100.0), (a, 60.0)], "small": [(frozenset(), 10.0), (a, 6.0)]})
    costs = UsedSetCosts(optimizer, [query("small"), query("large")])
    assert costs.total(frozenset()) == 110
    assert costs.lower_bounds([a], frozenset()) == [0]
    optimizer.asked.clear()
    assert costs.tightened(a, 0) == (60, False)
    assert [question.query.id for question in optimizer.asked] == ["large"]
    assert costs.tightened(a, 30) == (60, False)  # a bound from 30 on was known already
    assert [question.query.id for question in optimizer.asked] == ["large"]
    assert costs.tightened(a, 60) == (66, True)
    assert [question.query.id for question in optimizer.asked] == ["large", "small"]


class Plain:
    """Asks about every query under every configuration."""

    def __init__(self, optimizer: Optimizer, upkeep: float = 0.0) -> None:
        self.optimizer, self.upkeep = optimizer, upkeep

    def total(self, configuration: Configuration) -> float:
        """Sum over the queries, with the upkeep of each index for each of them."""
        return len(self.optimizer.plans) * (self.upkeep * len(configuration)) + sum(
            self.optimizer.ask([Question(query(sql), configuration)])[0].cost for sql in self.optimizer.plans
        )

    def lower_bounds(self, configurations: Sequence[Configuration], chosen: Configuration) -> list[float]:
        """Nothing is known before it is asked, so that Extend looks at every move."""
        return [0.0] * len(configurations)

    def tightened(self, configuration: Configuration, bound: float) -> tuple[float, bool]:
        """The total at once."""
        return self.total(configuration), True

    def size_bytes(self, index: Index) -> int:
        """Ten bytes per column."""
        return self.optimizer.size_bytes(index)


def test_indexes_that_no_plan_uses_cost_one_question() -> None:
    """Five candidates that the query ignores are settled by asking once about all of them."""
    optimizer = Optimizer({"q": [(frozenset(), 100.0)]})
    costs = UsedSetCosts(optimizer, [query("q")])
    singles = [frozenset({Index("t", (c,))}) for c in COLUMNS]
    costs.lower_bounds(singles, frozenset())
    assert costs.tightened(singles[0], 0) == (100.0, True)
    assert [question.indexes for question in optimizer.asked] == [frozenset().union(*singles)]
    assert [costs.tightened(single, 100) for single in singles] == [(100.0, True)] * 5
    assert costs.total(frozenset()) == 100.0
    assert (costs.calls, costs.hits) == (1, 6)


def test_indexes_on_other_tables_and_columns_are_no_question() -> None:
    """A query is asked again only when an index that it can use changes."""
    optimizer = Optimizer({"q": [(frozenset(), 100.0)]})
    costs = UsedSetCosts(optimizer, [query("q")])
    for configuration in (frozenset[Index](), frozenset({Index("u", ("a",))}), frozenset({Index("t", ("z",))})):
        costs.total(configuration)
    assert costs.calls == 1


def test_what_is_known_stays_when_queries_are_added() -> None:
    """A second round with one more query asks about that one only."""
    optimizer = Optimizer(plans(3, 4))
    queries = [query(name) for name in optimizer.plans]
    costs = UsedSetCosts(optimizer, queries[:3])
    configuration = frozenset({Index("t", ("a",))})
    costs.total(configuration)
    costs.queries = tuple(queries)
    before = len(optimizer.asked)
    total = costs.total(configuration)
    assert {question.query.id for question in optimizer.asked[before:]} == {"q3"}
    assert total == pytest.approx(sum(optimizer.answer(Question(query(q.sql), configuration)).cost for q in queries))
