"""`--algo oracle`: what it knows of a query it has met, and what it does not claim to know. No server: labels are given."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import cast

import pytest

from algorithms.oracle import Oracle
from pytest_pilotscope.core.queries import Query
from pytest_pilotscope.core.results import TrainingReport
from pytest_pilotscope.errors import IncompleteEstimate
from pytest_pilotscope.labels import Labels
from pytest_pilotscope.labels.cache import Label
from pytest_pilotscope.training import Training

SCHEMA = {"a": {"x": "integer"}, "b": {"x": "integer"}}
QUERY = Query(id="q", sql="SELECT count(*) FROM a, b WHERE a.x = b.x")
TRUE = {frozenset("a"): 3, frozenset("b"): 4, frozenset("ab"): 5}
ASKED = dict.fromkeys(TRUE, 1.0)


def oracle(**unfinished: bool) -> Oracle:
    """An oracle that was told these rows; of subplans named here counting did not finish."""
    found = {
        subplan: Label(rows=None if "".join(sorted(subplan)) in unfinished else rows, source="postgres", timeout_ms=1)
        for subplan, rows in TRUE.items()
    }
    training = SimpleNamespace(schema=SCHEMA, labels=lambda queries: Labels({QUERY.id: found}, {}), report=lambda **_: TrainingReport)
    made = Oracle()
    made.train(cast(Training, training))
    return made


def test_a_query_that_was_met_needs_no_list_of_its_subplans() -> None:
    """The first time the planner lists them, afterwards the answer is the same without it."""
    made = oracle()
    assert made.steer_by_text(QUERY) is None
    assert made.steer(QUERY, ASKED) == TRUE
    assert made.steer_by_text(QUERY) == TRUE


def test_what_could_not_be_counted_is_never_left_out() -> None:
    """A query with an unfinished label is an error each time, not steered in part the second time."""
    made = oracle(ab=True)
    message = "oracle estimated 2 of 3 subplans of query 'q'; PostgreSQL would silently use its own estimate for the rest"
    for _ in range(2):
        assert made.steer_by_text(QUERY) is None
        with pytest.raises(IncompleteEstimate, match=f"^{re.escape(message)}$"):
            made.steer(QUERY, ASKED)
