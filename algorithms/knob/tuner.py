"""The loop: ask, apply, measure, tell, write down."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from time import perf_counter_ns
from typing import TYPE_CHECKING, Protocol

from algorithms.knob.measuring import Pass, Selected, run_pass
from algorithms.knob.objective import WORST, Objective
from algorithms.knob.space import KnobSpace, Values
from algorithms.knob.trials import Trial, TrialLog
from pytest_pilotscope.errors import AlgorithmError, ServerError
from pytest_pilotscope.postgres.knobs import Level
from pytest_pilotscope.postgres.session import Session

if TYPE_CHECKING:
    from algorithms.knob.search import Proposal, Search

_PENALTY = 2.0
"""A trial that failed counts as this many times the default, or as the worst one so far."""
_WARM_UP = 2.0
"""With cold caches everything takes longer: the warm-up after a restart is cut off this much later."""

logger = logging.getLogger(__name__)


class Stage(Protocol):
    """Where settings are tried; `algorithms.knob.stage.Stage` is the real one."""

    session: Session

    def apply(self, values: Values) -> Level | None:
        """Put settings in force and say what that took; ServerError when they are refused, and then the old ones are in force."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuner:
    """
    Tries settings on a stage until there are enough trials in the log; those that are in it already count.

    A trial is cut off at `cap` times the incumbent's cost. Its queries run once without being counted when the server was restarted for it.
    """

    space: KnobSpace
    stage: Stage
    search: Search
    log: TrialLog
    objective: Objective
    selected: Selected
    cap: float

    def run(self, trials: int, advance: Callable[[int], None]) -> None:
        """Tell the search what is known, then try and tell; `advance` is called per trial."""
        for trial in self.log.trials[:trials]:
            self.search.tell(trial.values, trial.cost, point=trial.point or None)
            advance(1)
        while len(self.log.trials) < trials:
            trial = self._next()
            self.log.append(trial)
            self.search.tell(trial.values, trial.cost, point=trial.point or None)
            advance(1)

    @property
    def incumbent_cost(self) -> float:
        """The lowest cost of a trial that ran to its end; infinite as long as there is none."""
        return min((trial.cost for trial in self.log.trials if trial.status == "ok"), default=inf)

    def _next(self) -> Trial:
        started_ns = perf_counter_ns()
        if not self.log.trials:
            return self._try(self.space.defaults, {}, started_ns, search_s=0.0)
        proposal: Proposal = self.search.ask()
        return self._try(proposal.values, proposal.point, started_ns, search_s=_since_s(started_ns))

    def _try(self, values: Values, point: dict[str, str | int | float], started_ns: int, *, search_s: float) -> Trial:
        apply_ns = perf_counter_ns()
        applied: Level | None = None
        apply_s = 0.0
        message = ""
        result: Pass | None = None
        try:
            applied = self.stage.apply(values)
            apply_s = _since_s(apply_ns)
            result = self._measure(cold=applied == "restart" or not self.log.trials)
        except ServerError as error:
            message = str(error)
            self._refuse_default(message)
            logger.info("trial %d failed: %s", len(self.log.trials), message)
        return Trial(
            number=len(self.log.trials),
            values=values,
            status="failed" if result is None else "capped" if result.capped else "ok",
            cost=self._cost(result),
            applied=applied,
            apply_s=apply_s,
            search_s=search_s,
            elapsed_s=_since_s(started_ns),
            point=point,
            message=message,
        )

    def _refuse_default(self, message: str) -> None:
        if not self.log.trials:
            raise AlgorithmError(f"the training queries fail with the settings that the server has, so there is nothing to tune: {message}")

    def _measure(self, *, cold: bool) -> Pass:
        limit = self.cap * self.incumbent_cost
        if cold:
            warm_up = run_pass(self.stage.session, self.selected, self.objective, _WARM_UP * limit)
            if warm_up.capped and limit < inf:
                return warm_up
        return run_pass(self.stage.session, self.selected, self.objective, limit)

    def _cost(self, result: Pass | None) -> float:
        default = self.log.trials[0].cost if self.log.trials else self.objective.cost(self.selected.default_s)
        if result is None:
            return min(max([_PENALTY * default, *(trial.cost for trial in self.log.trials)]), WORST * default)
        if not result.capped:
            return self.objective.cost(result.times_s)
        least = self.cap * self.incumbent_cost if self.incumbent_cost < inf else 0.0
        return max(self.objective.extrapolated(result.times_s, self.selected.default_s), least)


def _since_s(started_ns: int) -> float:
    return (perf_counter_ns() - started_ns) / 1e9
