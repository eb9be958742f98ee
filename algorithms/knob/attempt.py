"""
One trial: settings, tried on a server.

A trial needs only a task, which can be pickled and sent to a worker, and a server to try it on. Two trials of one task do the same, so a
lost trial is simply repeated.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import inf
from time import perf_counter_ns
from typing import Protocol

from pytest_pilotscope.algorithms.knob.loaded import Load, LoadSessions, run_clients
from pytest_pilotscope.algorithms.knob.measuring import Pass, Selected, run_pass
from pytest_pilotscope.algorithms.knob.objective import Objective
from pytest_pilotscope.algorithms.knob.space import Values
from pytest_pilotscope.algorithms.knob.trials import Status
from pytest_pilotscope.errors import ServerError, raise_interrupt_behind
from pytest_pilotscope.postgres.knobs import Level
from pytest_pilotscope.postgres.session import Session

_WARM_UP = 1.3
"""With cold caches everything takes about an eighth longer, so the limit of the warm-up after a start is this much higher."""


class TrialServer(Protocol):
    """A server to try settings on; `trial_server.TrialServer` is the real one. `cold` is True from a start until a pass has run."""

    session: Session
    cold: bool

    def clients(self, load: Load) -> AbstractContextManager[LoadSessions]:
        """Give the sessions of a load, with the settings in force."""

    def apply(self, values: Values) -> Level | None:
        """Put settings in force and return the level that changed; ServerError if they are refused: the old ones are then in force."""

    def ready(self) -> None:
        """Wait until the server answers, after a loss with the default settings; ServerError if it does not come back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Settings to try, the queries, the objective, the cost `limit` above which the trial stops, and the `load` if clients run at once."""

    values: Values
    selected: Selected
    objective: Objective
    limit: float
    load: Load | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """
    The result of a task. `times_s` are those of the queries (and scripts) that ran: all of them for the status ok, none for failed.

    `applied` is the level of the settings that changed and `apply_s` the time to change them; `message` is the reason of a failure.
    """

    status: Status
    times_s: tuple[float, ...]
    applied: Level | None
    apply_s: float
    message: str = ""


def attempt(task: Task, trial_server: TrialServer) -> Outcome:
    """
    Put the settings of a task in force and time its queries, after a warm-up if the caches are cold.

    Refused settings, failing queries and a server that goes down are outcomes, not errors. ServerError if the server does not come back,
    because nobody can tell whether the settings were the reason.
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
        raise_interrupt_behind(error)
        trial_server.ready()
        return Outcome(status="failed", times_s=(), applied=applied, apply_s=apply_s, message=str(error))
    return Outcome(status="capped" if result.capped else "ok", times_s=result.times_s, applied=applied, apply_s=apply_s)


def _measured(task: Task, trial_server: TrialServer) -> Pass:
    if task.load is not None:
        with trial_server.clients(task.load) as sessions:
            return run_clients(sessions, task.selected, task.objective, task.load, task.limit)
    if trial_server.cold:
        warm_up = run_pass(trial_server.session, task.selected, task.objective, _WARM_UP * task.limit)
        if warm_up.capped and task.limit < inf:
            return warm_up
        trial_server.cold = False
    return run_pass(trial_server.session, task.selected, task.objective, task.limit)
