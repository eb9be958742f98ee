"""
One trial: settings, tried on a server.

It needs nothing but a task, which is plain values and can be sent anywhere, and a trial_server, which is whatever server is at hand. Trying the
same task again does the same again, so an attempt that was lost is simply made once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from time import perf_counter_ns
from typing import Protocol

from pytest_pilotscope.algorithms.knob.measuring import Pass, Selected, run_pass
from pytest_pilotscope.algorithms.knob.objective import Objective
from pytest_pilotscope.algorithms.knob.space import Values
from pytest_pilotscope.algorithms.knob.trials import Status
from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.postgres.knobs import Level
from pytest_pilotscope.postgres.session import Session

_WARM_UP = 1.3
"""With cold caches everything takes longer, by an eighth or so: the warm-up after a start is cut off this much later."""


class TrialServer(Protocol):
    """Where settings are tried; `algorithms.knob.trial_server.TrialServer` is the real one. `cold` is True until a pass has run since the last start."""

    session: Session
    cold: bool

    def apply(self, values: Values) -> Level | None:
        """Put settings in force and say what that took; ServerError when they are refused, and then the old ones are in force."""

    def ready(self) -> None:
        """Return when the server answers, after a loss with the default settings; ServerError when it stays away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Settings to try: with these queries, for this objective, until the cost is sure to be above `limit`."""

    values: Values
    selected: Selected
    objective: Objective
    limit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    What came of a task: `times_s` of the queries that were run, all of them where the status is ok, and of none where it is failed.

    `applied` is what it took to put the settings in force and `apply_s` how long that took; `message` says why it failed.
    """

    status: Status
    times_s: tuple[float, ...]
    applied: Level | None
    apply_s: float
    message: str = ""


def attempt(task: Task, trial_server: TrialServer) -> Outcome:
    """
    Put the settings of a task in force and take the times of its queries, after a warm-up where the caches are cold.

    Settings that the server refuses and queries that fail with them are an outcome, not an error. So is a server that goes down with them,
    but ServerError when it does not come back: then there is no telling whether it was the settings.
    """
    trial_server.ready()
    started_ns = perf_counter_ns()
    applied: Level | None = None
    apply_s = 0.0
    try:
        applied = trial_server.apply(task.values)
        apply_s = (perf_counter_ns() - started_ns) / 1e9
        result = _measured(task, trial_server)
    except ServerError as error:
        trial_server.ready()
        return Outcome(status="failed", times_s=(), applied=applied, apply_s=apply_s, message=str(error))
    return Outcome(status="capped" if result.capped else "ok", times_s=result.times_s, applied=applied, apply_s=apply_s)


def _measured(task: Task, trial_server: TrialServer) -> Pass:
    if trial_server.cold:
        warm_up = run_pass(trial_server.session, task.selected, task.objective, _WARM_UP * task.limit)
        if warm_up.capped and task.limit < inf:
            return warm_up
        trial_server.cold = False
    return run_pass(trial_server.session, task.selected, task.objective, task.limit)
