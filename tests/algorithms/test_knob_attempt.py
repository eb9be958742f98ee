"""One trial: a function of its task, whatever its server."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

from pytest_pilotscope.algorithms.knob.attempt import Outcome, Task, attempt
from pytest_pilotscope.algorithms.knob.measuring import Selected
from pytest_pilotscope.algorithms.knob.objective import Objective
from pytest_pilotscope.algorithms.knob.space import Values
from pytest_pilotscope.queries.queries import Query
from tests.algorithms.knob_clock import QUERIES, SELECTED, Tried, clock, objective

__all__ = ["clock"]  # a fixture


def task(limit: float = math.inf, **values: str) -> Task:
    """Some settings, for the twenty queries."""
    return Task(
        values={"shared_buffers": "16384", "random_page_cost": "4", **values}, selected=SELECTED, objective=objective(), limit=limit
    )


def passes(trial_server: Tried) -> float:
    """Return the number of passes over the queries."""
    return len(trial_server.session.runs) / len(QUERIES)


def test_the_same_task_does_the_same_again() -> None:
    """A trial gives the same on another server, and on the same one, where only the warm-up is missing."""
    trial_server, another = Tried(), Tried()
    first = attempt(task(), trial_server)
    assert (first.status, first.times_s, first.applied) == ("ok", (0.1,) * 20, "session")
    assert passes(trial_server) == 2
    again = attempt(task(), trial_server)
    assert passes(trial_server) == 1
    for other in (again, attempt(task(), another)):
        assert replace(other, apply_s=first.apply_s) == first


def test_a_task_and_its_outcome_are_plain_values() -> None:
    """Both go through JSON and come back the same, so they can be sent anywhere."""
    sent = json.loads(json.dumps(asdict(task(2.5))))
    selected = Selected(
        queries=tuple(Query(**query) for query in sent["selected"]["queries"]),
        default_s=tuple(sent["selected"]["default_s"]),
        too_long=sent["selected"]["too_long"],
    )
    received = Task(values=sent["values"], selected=selected, objective=Objective(**sent["objective"]), limit=sent["limit"])
    assert received == task(2.5)
    outcome = attempt(received, Tried())
    came: dict[str, Any] = json.loads(json.dumps(asdict(outcome)))
    assert Outcome(**{**came, "times_s": tuple(came["times_s"])}) == outcome


def test_a_hopeless_warm_up_is_enough() -> None:
    """With cold caches a trial may take 1.3 times its limit; beyond that it is not measured, and the server is still cold."""
    trial_server = Tried()
    outcome = attempt(task(limit=2.0, random_page_cost="12"), trial_server)
    assert (outcome.status, len(outcome.times_s), trial_server.cold) == ("capped", 9, True)
    outcome = attempt(task(limit=2.0, random_page_cost="5"), trial_server)
    assert (outcome.status, len(outcome.times_s), trial_server.cold) == ("capped", 16, False)


def test_settings_that_are_refused_are_an_outcome() -> None:
    """With the reason, and without a time."""
    refused: Values = {**task().values, "shared_buffers": "2048"}
    outcome = attempt(replace(task(), values=refused), Tried())
    assert replace(outcome, apply_s=0.0) == Outcome(
        status="failed", times_s=(), applied=None, apply_s=0.0, message="PostgreSQL stopped while starting"
    )
