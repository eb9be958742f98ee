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
@given(seed=st.integers(0, 10_000))
def test_answers_are_those_of_asking_about_everything(seed: int) -> None:
    """For any planner that takes the cheapest possible plan, every total is the plain one, and Extend finds the same indexes."""
    optimizer = Optimizer(plans(seed, 8))
    costs = UsedSetCosts(optimizer, [query(name) for name in optimizer.plans])
    plain = Plain(optimizer)
    columns, partners = {"t": frozenset(COLUMNS)}, {("t", c): frozenset(COLUMNS) for c in COLUMNS}
    limits = Limits(budget_bytes=60)
    assert extend(columns, partners, costs, limits) == extend(columns, partners, plain, limits)
    assert costs.calls == len(optimizer.asked)
    assert len({(q.query.id, q.indexes) for q in optimizer.asked}) == len(optimizer.asked)


class Plain:
    """Asks about every query under every configuration."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def totals(self, configurations: Sequence[Configuration]) -> list[float]:
        """Sum over the queries."""
        totals = [0.0] * len(configurations)
        for sql in self.optimizer.plans:
            for position, configuration in enumerate(configurations):
                totals[position] += self.optimizer.answer(Question(query(sql), configuration)).cost
        return totals

    def lower_bounds(self, configurations: Sequence[Configuration]) -> list[float]:
        """Nothing is known before it is asked, so that Extend looks at every move."""
        return [0.0] * len(configurations)

    def size_bytes(self, index: Index) -> int:
        """Ten bytes per column."""
        return self.optimizer.size_bytes(index)


def test_indexes_that_no_plan_uses_cost_one_question() -> None:
    """Five candidates that the query ignores are settled by asking once about all of them."""
    optimizer = Optimizer({"q": [(frozenset(), 100.0)]})
    costs = UsedSetCosts(optimizer, [query("q")])
    singles = [frozenset({Index("t", (c,))}) for c in COLUMNS]
    assert costs.totals(singles) == [100.0] * 5
    assert [question.indexes for question in optimizer.asked] == [frozenset().union(*singles)]
    assert (costs.calls, costs.hits) == (1, 4)
    assert costs.totals([frozenset()]) == [100.0]
    assert (costs.calls, costs.hits) == (1, 5)


def test_indexes_on_other_tables_and_columns_are_no_question() -> None:
    """A query is asked again only when an index that it can use changes."""
    optimizer = Optimizer({"q": [(frozenset(), 100.0)]})
    costs = UsedSetCosts(optimizer, [query("q")])
    costs.totals([frozenset()])
    costs.totals([frozenset({Index("u", ("a",))}), frozenset({Index("t", ("z",))})])
    assert costs.calls == 1


def test_what_is_known_stays_when_queries_are_added() -> None:
    """A second round with one more query asks about that one only."""
    optimizer = Optimizer(plans(3, 4))
    queries = [query(name) for name in optimizer.plans]
    costs = UsedSetCosts(optimizer, queries[:3])
    configuration = frozenset({Index("t", ("a",))})
    costs.totals([configuration])
    costs.queries = tuple(queries)
    before = len(optimizer.asked)
    (total,) = costs.totals([configuration])
    assert {question.query.id for question in optimizer.asked[before:]} == {"q3"}
    assert total == pytest.approx(sum(optimizer.answer(Question(query(q.sql), configuration)).cost for q in queries))
