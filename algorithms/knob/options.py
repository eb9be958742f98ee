"""What a user can choose for knob tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from pytest_pilotscope.core.results import Scalar
from pytest_pilotscope.core.settings import Settings

Target = Literal["total_time", "p95_time", "throughput"]
Projection = Literal["llamatune", "none"]
Strategy = Literal["smac", "random"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobOptions:
    """
    `trials` settings are tried, the default one included, each with as many training queries as run in about `trial_s` seconds by default.

    A trial ends early at `cap` times the incumbent's cost. `rounds` is how often the incumbent is measured against the default before it is
    called better. `names` restricts the knobs; None is the whole catalogue. `strategy` random is there to compare with.
    """

    trials: int = 50
    target: Target = "total_time"
    projection: Projection = "none"
    trial_s: float = 3.0
    seed: int = 0
    cap: float = 1.5
    rounds: int = 3
    names: tuple[str, ...] | None = None
    strategy: Strategy = "smac"

    @classmethod
    def from_settings(cls, settings: Settings) -> KnobOptions:
        """What the command line says."""
        return cls(
            trials=settings.knob_trials,
            target=cast(Target, settings.knob_target),
            projection=cast(Projection, settings.knob_projection),
            trial_s=settings.knob_trial_s,
            seed=settings.seed,
        )

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
