"""
A trial on a worker's own server.

Machines are not equally fast. So a worker first takes the times of the default settings, and from then on every time is brought to the
scale of the server that asks: what a trial reports is how much longer or shorter than the default it took there.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.knob.attempt import Outcome, Task, attempt
from pytest_pilotscope.algorithms.knob.space import KnobSpace
from pytest_pilotscope.algorithms.knob.trial_server import Reach, TrialServer, open_trial_server
from pytest_pilotscope.errors import AlgorithmError

if TYPE_CHECKING:
    from pytest_pilotscope.provision.pool import Place


def attempt_on_worker(place: Place, work: tuple[Task, KnobSpace, Reach]) -> Outcome:
    """`attempt` on the worker's server, in times of the server that asks."""
    task, space, reach = work
    trial_server, scale = _stage(place, task, space, reach)
    selected = replace(task.selected, default_s=tuple(time_s / scale for time_s in task.selected.default_s))
    outcome = attempt(replace(task, selected=selected, limit=task.limit / scale), trial_server)
    return replace(outcome, times_s=tuple(time_s * scale for time_s in outcome.times_s))


def _stage(place: Place, task: Task, space: KnobSpace, reach: Reach) -> tuple[TrialServer, float]:
    """The trial_server that the first trial has opened, and how much faster than this worker the server that asks is: below 1 where it is."""
    if "knob trial server" not in place.kept:
        trial_server = place.stack.enter_context(open_trial_server(place.database, space, reach))
        place.kept["knob trial server"] = (trial_server, _scale(task, space, trial_server))
    found: tuple[TrialServer, float] = place.kept["knob trial server"]
    return found


def _scale(task: Task, space: KnobSpace, trial_server: TrialServer) -> float:
    """From the queries that ran with the default settings; one that was cut off is the last, and counts with what it took until then."""
    default = attempt(replace(task, values=space.defaults, limit=inf), trial_server)
    if default.status == "failed":
        raise AlgorithmError(
            f"the training queries fail with the default settings on this worker, so it cannot try others: {default.message}"
        )
    return sum(task.selected.default_s[: len(default.times_s)]) / sum(default.times_s)
