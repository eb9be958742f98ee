"""What knob tuning leaves behind: a series, figures and artifacts. The names are fixed; users' scripts read them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from algorithms.knob.objective import Objective
from algorithms.knob.space import KnobSpace, Values
from algorithms.knob.trials import Trial, best_trial
from pytest_pilotscope.core.statistics import Interval


def scalars(
    trials: Sequence[Trial], objective: Objective, confirmed: Interval | None, importance: Mapping[str, float]
) -> dict[str, int | float]:
    """
    What it ended with. Performances are those of the trials, in the target's own unit; the speed-up is the one measured in turns.
    """
    default, best = trials[0], best_trial(trials)
    found: dict[str, int | float] = {
        "knob_optimization_time_seconds": sum(trial.elapsed_s for trial in trials),
        "best_performance": objective.performance(best.cost),
        "default_performance": objective.performance(default.cost),
        "knob_trials_ok": sum(trial.status == "ok" for trial in trials),
        "knob_trials_capped": sum(trial.status == "capped" for trial in trials),
        "knob_trials_failed": sum(trial.status == "failed" for trial in trials),
        "knob_restarts": sum(trial.applied == "restart" for trial in trials),
        "knob_restart_seconds": float(np.median([trial.apply_s for trial in trials if trial.applied == "restart"] or [0.0])),
        "knob_search_seconds": float(np.mean([trial.search_s for trial in trials])),
    }
    if confirmed is not None:
        speedup = confirmed.inverse
        found |= {"knob_speedup": speedup.estimate, "knob_speedup_ci_low": speedup.low, "knob_speedup_ci_high": speedup.high}
    return found | {f"knob_importance_{name}": share for name, share in importance.items()}


def series(trials: Sequence[Trial]) -> dict[str, list[float]]:
    """Per trial: its cost in s, and the lowest one up to it."""
    incumbent = trials[0].cost
    incumbents = []
    for trial in trials:
        incumbent = min(incumbent, trial.cost) if trial.status == "ok" else incumbent
        incumbents.append(incumbent)
    return {"trial_cost": [trial.cost for trial in trials], "incumbent_cost": incumbents}


def write_configurations(folder: Path, trials: Sequence[Trial], space: KnobSpace, final: Values) -> list[Path]:
    """Write `knob_config_iteration_<n>.json` for the default (n = 0), for every trial n that was the best so far, and what came out."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_write(folder / f"knob_config_iteration_{trial.number}.json", _described(trial, space)) for trial in _improvements(trials)]
    return [*paths, _write(folder / "knob_space.json", {"knobs": space.description, "result": dict(final)})]


def _improvements(trials: Sequence[Trial]) -> Iterator[Trial]:
    best = np.inf
    for trial in trials:
        if trial.number == 0 or (trial.status == "ok" and trial.cost < best):
            best = trial.cost
            yield trial


def _described(trial: Trial, space: KnobSpace) -> dict[str, Any]:
    return {
        "iteration": trial.number,
        "status": trial.status,
        "cost_seconds": trial.cost,
        "changed": space.changed(trial.values),
        "settings": dict(trial.values),
    }


def _write(path: Path, content: Mapping[str, Any]) -> Path:
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path
