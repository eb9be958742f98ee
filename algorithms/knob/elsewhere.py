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
from pytest_pilotscope.algorithms.knob.stage import Reach, Stage, open_stage
from pytest_pilotscope.errors import AlgorithmError

if TYPE_CHECKING:
    from pytest_pilotscope.provision.pool import Worker


def attempt_there(place: Worker, work: tuple[Task, KnobSpace, Reach]) -> Outcome:
    """`attempt` on the worker's server, in times of the server that asks."""
    task, space, reach = work
    stage, scale = _stage(place, task, space, reach)
    selected = replace(task.selected, default_s=tuple(time_s / scale for time_s in task.selected.default_s))
    outcome = attempt(replace(task, selected=selected, limit=task.limit / scale), stage)
    return replace(outcome, times_s=tuple(time_s * scale for time_s in outcome.times_s))


def _stage(place: Worker, task: Task, space: KnobSpace, reach: Reach) -> tuple[Stage, float]:
    """The stage that the first trial has opened, and how much faster than this worker the server that asks is: below 1 where it is."""
    if "knob stage" not in place.kept:
        stage = place.stack.enter_context(open_stage(place.database, space, reach))
        place.kept["knob stage"] = (stage, _scale(task, space, stage))
    found: tuple[Stage, float] = place.kept["knob stage"]
    return found


def _scale(task: Task, space: KnobSpace, stage: Stage) -> float:
    """From the queries that ran with the default settings; one that was cut off is the last, and counts with what it took until then."""
    default = attempt(replace(task, values=space.defaults, limit=inf), stage)
    if default.status == "failed":
        raise AlgorithmError(
            f"the training queries fail with the default settings on this worker, so it cannot try others: {default.message}"
        )
    return sum(task.selected.default_s[: len(default.times_s)]) / sum(default.times_s)
