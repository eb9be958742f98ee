"""Injected rows arrive: on every node of the plan, or there is a rule that says why not."""

from __future__ import annotations

from pytest_pilotscope.core.plainparser import parse_plain
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.steering import verify
from pytest_pilotscope.postgres.subplans import explained_subplans

from .corpora import Corpus, chance


def _unique_rows(subplans: dict[frozenset[str], float], seed: str) -> dict[frozenset[str], float]:
    """Different random rows for every subplan."""
    drawn = chance(seed).sample(range(2, 10_000_000), len(subplans))
    return dict(zip(subplans, map(float, drawn), strict=True))


def test_every_node_carries_its_value(corpus: Corpus, mode: str) -> None:
    """
    Unique random rows for every subplan are found on their nodes.

    Only parameterized inner sides of nested loops are let off. Under GEQO it may build a subplan that it did not enumerate, which then
    has nothing injected; the others must still carry theirs.
    """
    wrong = []
    compared = 0
    for query in corpus.queries_for(mode):
        injected = _unique_rows(corpus.steered.subplans(query.sql), query.id)
        with corpus.steered.cardinalities(injected):
            plan = corpus.steered.explain(query.sql)
        adherence = verify(plan, injected)
        compared += adherence.compared
        wrong += [f"{query.id} ({mode}): {reason}" for reason in adherence.reasons]
        wrong += [f"{query.id} ({mode}): {line}" for line in adherence.explained if "inner side of a nested loop" not in line]
    assert wrong == []
    assert compared > 3 * len(corpus.queries_for(mode))
    assert corpus.steered.take_notices() == []


def test_report_has_injected_and_stock(corpus: Corpus) -> None:
    """While rows are injected the planner's sets are the same, and each has the rows that were injected."""
    for query in corpus.queries[::8]:
        injected = _unique_rows(corpus.steered.subplans(query.sql), query.id)
        with corpus.steered.cardinalities(injected):
            found = corpus.steered.subplans(query.sql)
        assert {subplan: found[subplan] for subplan in injected if subplan in found} == {
            subplan: rows for subplan, rows in injected.items() if subplan in found
        }


def test_estimates_without_the_library_are_the_same(corpus: Corpus) -> None:
    """One EXPLAIN per connected set of aliases, on stock PostgreSQL, gives what the library enumerates for a plain query, rows included."""
    schema = read_schema(corpus.stock)
    for query in (query for query in corpus.queries[::5] if parse_plain(query.sql, schema) is not None):
        enumerated = corpus.steered.subplans(query.sql)
        if len(next(iter(sorted(enumerated, key=len, reverse=True)))) >= 9:
            continue  # thousands of EXPLAINs, and from 12 relations on GEQO considers only some of the sets
        assert explained_subplans(corpus.stock, query.sql) == enumerated, query.id
