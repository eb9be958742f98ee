"""
Trials on a worker's own server.

Machines are not equally fast. So a worker first measures the default settings, and then scales every time to the server that asks: a trial
reports how much longer or shorter than the default it took on the worker.
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
    from pytest_pilotscope.provision.pool import Worker


def attempt_on_worker(worker: Worker, work: tuple[Task, KnobSpace, Reach]) -> Outcome:
    """Run `attempt` on the worker's server and scale its times to the server that asks."""
    task, space, reach = work
    trial_server, scale = _opened(worker, task, space, reach)
    selected = replace(task.selected, default_s=tuple(time_s / scale for time_s in task.selected.default_s))
    outcome = attempt(replace(task, selected=selected, limit=task.limit / scale), trial_server)
    return replace(outcome, times_s=tuple(time_s * scale for time_s in outcome.times_s))


def _opened(worker: Worker, task: Task, space: KnobSpace, reach: Reach) -> tuple[TrialServer, float]:
    """Return the trial server that the first trial opened, and the asking server's times over this worker's (below 1: it is faster)."""
    if "knob trial server" not in worker.kept:
        trial_server = worker.stack.enter_context(open_trial_server(worker.database, space, reach))
        worker.kept["knob trial server"] = (trial_server, _scale(task, space, trial_server))
    found: tuple[TrialServer, float] = worker.kept["knob trial server"]
    return found


def _scale(task: Task, space: KnobSpace, trial_server: TrialServer) -> float:
    """Compare the times of the default settings; a query that was cut off is the last, and counts with its time until then."""
    default = attempt(replace(task, values=space.defaults, limit=inf), trial_server)
    if default.status == "failed":
        raise AlgorithmError(
            f"the training queries fail with the default settings on this worker, so it cannot try others: {default.message}"
        )
    return sum(task.selected.default_s[: len(default.times_s)]) / sum(default.times_s)
