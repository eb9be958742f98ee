"""With nothing to change the library changes nothing: plans are those of stock PostgreSQL, letter for letter."""

from __future__ import annotations

from .corpora import Corpus, text_plan

GEQO_THRESHOLD = 12
"""PostgreSQL's default: from this many relations on the genetic search plans."""


def test_plans_are_those_of_stock(corpus: Corpus, mode: str) -> None:
    """
    Idle, enumerating with SQL, with the planner's own rows injected, and after RESET: the text of EXPLAIN VERBOSE is the same.

    Under GEQO there is nothing like the planner's own rows: it estimates the same subplan differently, depending on the joins that it
    builds it from (rounding, and which of several equal conditions it takes), so that is left out there.
    """
    differing = []
    for query in corpus.queries_for(mode):
        stock = text_plan(corpus.stock, query.sql)
        plans = {"idle": text_plan(corpus.steered, query.sql)}
        corpus.steered.execute("SET pilotscope.enumerate = on; SET pilotscope.enumerate_sql = on")
        plans["enumerating"] = text_plan(corpus.steered, query.sql)
        corpus.steered.execute("RESET pilotscope.enumerate; RESET pilotscope.enumerate_sql")
        own = corpus.steered.subplans(query.sql)
        if mode != "geqo" and sum(len(subplan) == 1 for subplan in own) < GEQO_THRESHOLD:
            with corpus.steered.cardinalities(own):
                plans["own rows"] = text_plan(corpus.steered, query.sql)
        if mode == "serial":
            plans["reset"] = text_plan(corpus.steered, query.sql)
        differing += [f"{query.id} {when} ({mode})" for when, plan in plans.items() if plan != stock]
    assert differing == []
