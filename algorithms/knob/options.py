"""Typed options of knob tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pytest_pilotscope.record.results import Scalar

Target = Literal["total_time", "p95_time", "throughput"]
Projection = Literal["llamatune", "none"]
Strategy = Literal["smac", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobOptions:
    """
    The options that `algorithms/plugin.py` declares, the seed, and what only Python can choose.

    A trial ends early at `cap` times the incumbent's cost. `rounds` is how often the incumbent is measured against the default before it is
    called better. `names` restricts the knobs; None is the whole catalogue. `strategy` random is there to compare with.
    """

    trials: int
    target: Target
    projection: Projection
    trial_s: float
    seed: int
    cap: float = 1.5
    rounds: int = 3
    names: tuple[str, ...] | None = None
    strategy: Strategy = "smac"

    @property
    def parameters(self) -> dict[str, Scalar]:
        """As they are recorded."""
        return {
            "knob_trials": self.trials,
            "target_metric": self.target,
            "knob_projection": self.projection,
            "knob_trial_s": self.trial_s,
            "knob_cap": self.cap,
            "knob_rounds": self.rounds,
            "knob_strategy": self.strategy,
            "knob_seed": self.seed,
        }
