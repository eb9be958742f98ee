"""Injected rows arrive: on every node of the plan, or there is a rule that says why not."""

from __future__ import annotations

from pytest_pilotscope.postgres.adherence import uninjected, verify

from .corpora import Corpus, chance


def _unique_rows(subplans: dict[frozenset[str], float], seed: str) -> dict[frozenset[str], float]:
    """Different random rows for every subplan."""
    drawn = chance(seed).sample(range(2, 10_000_000), len(subplans))
    return dict(zip(subplans, map(float, drawn), strict=True))


def test_every_node_carries_its_value(corpus: Corpus, mode: str) -> None:
    """
    Unique random rows for every subplan are found on their nodes.

    Only parameterized inner sides of nested loops are let off. Under GEQO it may build a subplan that it did not enumerate, which then
    has nothing injected and is named; the others must still carry theirs.
    """
    wrong = []
    compared = 0
    for query in corpus.queries_for(mode):
        own = corpus.steered.subplans(query.sql)
        injected = _unique_rows(own, query.id)
        with corpus.steered.cardinalities(injected):
            plan, considered = corpus.steered.explain(query.sql), corpus.steered.subplans(query.sql)
        adherence = verify(plan, injected, uninjected(injected, considered, own, {}))
        compared += adherence.compared
        elsewhere = ": GEQO: " if mode == "geqo" else None
        wrong += [f"{query.id} ({mode}): {reason}" for reason in adherence.reasons if elsewhere is None or elsewhere not in reason]
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
