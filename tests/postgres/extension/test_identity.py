"""With nothing to change the library changes nothing: plans are those of stock PostgreSQL, letter for letter."""

from __future__ import annotations

from .corpora import Corpus, text_plan


def test_plans_are_those_of_stock(corpus: Corpus, mode: str) -> None:
    """Idle, enumerating with SQL, with the planner's own rows injected, and after RESET: the text of EXPLAIN VERBOSE is the same."""
    differing = []
    for query in corpus.queries:
        stock = text_plan(corpus.stock, query.sql)
        plans = {"idle": text_plan(corpus.steered, query.sql)}
        corpus.steered.execute("SET pilotscope.enumerate = on; SET pilotscope.enumerate_sql = on")
        plans["enumerating"] = text_plan(corpus.steered, query.sql)
        corpus.steered.execute("RESET pilotscope.enumerate; RESET pilotscope.enumerate_sql")
        with corpus.steered.cardinalities(corpus.steered.subplans(query.sql)):
            plans["own rows"] = text_plan(corpus.steered, query.sql)
        plans["reset"] = text_plan(corpus.steered, query.sql)
        differing += [f"{query.id} {when} ({mode})" for when, plan in plans.items() if plan != stock]
    assert differing == []
