"""The loop of a search: ask for settings, try them, tell the cost, log the trial."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import perf_counter_ns
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.knob.attempt import Outcome, Task, TrialServer, attempt
from pytest_pilotscope.algorithms.knob.loaded import Load
from pytest_pilotscope.algorithms.knob.measuring import Selected
from pytest_pilotscope.algorithms.knob.objective import WORST, Objective
from pytest_pilotscope.algorithms.knob.space import KnobSpace
from pytest_pilotscope.algorithms.knob.trials import Proposal, Trial, TrialLog
from pytest_pilotscope.algorithms.knob.worker_trials import attempt_on_worker
from pytest_pilotscope.errors import AlgorithmError

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.knob.search import Search
    from pytest_pilotscope.algorithms.knob.trial_server import Reach
    from pytest_pilotscope.provision.pool import WorkerPool

_PENALTY = 2.0
"""A trial that failed counts as this many times the default, or as the worst one so far."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuner:
    """
    Tries settings on a trial server until the log has enough trials; those of an earlier run count.

    A trial is cut off at `cap` times the incumbent's cost.
    """

    space: KnobSpace
    trial_server: TrialServer
    search: Search
    log: TrialLog
    objective: Objective
    selected: Selected
    cap: float
    load: Load | None = None

    def run(self, trials: int, advance: Callable[[int], None]) -> None:
        """Tell the search the logged trials, then try and tell; call `advance` per trial."""
        self._recall(trials, advance)
        while len(self.log.trials) < trials:
            self._note(self._next(), advance)

    @property
    def incumbent_cost(self) -> float:
        """The lowest cost of a trial that ran to its end; infinite if there is none."""
        return min((trial.cost for trial in self.log.trials if trial.status == "ok"), default=inf)

    def task(self, proposal: Proposal) -> Task:
        """Make the task of a proposal, with the limit that the incumbent sets now."""
        limit = self.cap * self.incumbent_cost
        return Task(values=proposal.values, selected=self.selected, objective=self.objective, limit=limit, load=self.load)

    def trial(self, proposal: Proposal, outcome: Outcome, *, search_s: float, elapsed_s: float) -> Trial:
        """Make the trial of a proposal, the next line of the log; AlgorithmError if not even the default can be measured."""
        if outcome.status == "failed":
            if not self.log.trials:
                raise AlgorithmError(
                    f"the training queries fail with the settings that the server has, so there is nothing to tune: {outcome.message}"
                )
            logger.info("trial %d failed: %s", len(self.log.trials), outcome.message)
        return Trial(
            number=len(self.log.trials),
            values=proposal.values,
            status=outcome.status,
            cost=self._cost(outcome),
            applied=outcome.applied,
            apply_s=outcome.apply_s,
            search_s=search_s,
            elapsed_s=elapsed_s,
            point=proposal.point,
            message=outcome.message,
        )

    def run_on(self, pool: WorkerPool, reach: Reach, trials: int, advance: Callable[[int], None]) -> None:
        """
        Do the same with as many trials at a time as there are workers; try the default first, by itself.

        The log has the trials in the order in which they ended, and the proposals depend on that order.
        """
        self._recall(trials, advance)
        pending: dict[str, tuple[Proposal, float, int]] = {}
        number = 0
        while len(self.log.trials) < trials:
            while len(pending) < (pool.size if self.log.trials else 1) and len(self.log.trials) + len(pending) < trials:
                started_ns = perf_counter_ns()
                proposal = self._proposal()
                pending[str(number)] = proposal, _since_s(started_ns), started_ns
                pool.submit(str(number), attempt_on_worker, (self.task(proposal), self.space, reach))
                number += 1
            key, outcome = pool.next()
            proposal, search_s, started_ns = pending.pop(key)
            self._note(self.trial(proposal, outcome, search_s=search_s, elapsed_s=_since_s(started_ns)), advance)

    def _recall(self, trials: int, advance: Callable[[int], None]) -> None:
        for trial in self.log.trials[:trials]:
            self.search.tell(trial.values, trial.cost, point=trial.point or None)
            advance(1)

    def _note(self, trial: Trial, advance: Callable[[int], None]) -> None:
        self.log.append(trial)
        self.search.tell(trial.values, trial.cost, point=trial.point or None)
        advance(1)

    def _next(self) -> Trial:
        started_ns = perf_counter_ns()
        proposal = self._proposal()
        search_s = _since_s(started_ns)
        outcome = attempt(self.task(proposal), self.trial_server)
        return self.trial(proposal, outcome, search_s=search_s, elapsed_s=_since_s(started_ns))

    def _proposal(self) -> Proposal:
        """Return the next settings to try, the default ones first."""
        return self.search.ask() if self.log.trials else Proposal(self.space.defaults, {})

    def _cost(self, outcome: Outcome) -> float:
        if outcome.status == "ok":
            return self.objective.cost(outcome.times_s)
        if outcome.status == "failed":
            default = self.log.trials[0].cost  # it did not fail, else the search would have ended
            return min(max([_PENALTY * default, *(trial.cost for trial in self.log.trials)]), WORST * default)
        least = self.cap * self.incumbent_cost if self.incumbent_cost < inf else 0.0
        if self.load is None:
            return max(self.objective.extrapolated(outcome.times_s, self.selected.default_s), least)
        most = WORST * self.log.trials[0].cost if self.log.trials else inf
        return max(min(self.objective.partial(outcome.times_s), most), least)


def _since_s(started_ns: int) -> float:
    return (perf_counter_ns() - started_ns) / 1e9
