"""The report of knob tuning: series, figures and artifacts. The names are fixed; users' scripts read them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pytest_pilotscope.algorithms.knob.measuring import Selected
from pytest_pilotscope.algorithms.knob.objective import Objective
from pytest_pilotscope.algorithms.knob.space import KnobSpace, Values
from pytest_pilotscope.algorithms.knob.trial_server import Reach
from pytest_pilotscope.algorithms.knob.trials import Trial, best_trial
from pytest_pilotscope.places.privatefiles import private_folder, write_private
from pytest_pilotscope.record.results import Scalar, TrainingReport
from pytest_pilotscope.statistics.intervals import Interval

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training

IMPORTANCE = "knob_importance_"
"""Prefix of the figure of a knob's share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """
    A finished search: its space, its queries, its objective and its trials.

    `confirmed` is the best trial's ratio to the default in turns, None if no trial was better; `values` are the resulting settings.
    """

    space: KnobSpace
    reach: Reach
    trials: Sequence[Trial]
    objective: Objective
    selected: Selected
    confirmed: Interval | None
    values: Values


def report_of(
    training: Training, found: Found, parameters: Mapping[str, Scalar], log_path: Path, *, seed: int, model: tuple[str, Path, Path]
) -> TrainingReport:
    """Return the report of `train`; the log of the trials becomes an artifact. `model` is the model's id, folder and metadata file."""
    model_id, *model_paths = model
    artifacts = write_configurations(training.folder, found.trials, found.space, found.values)
    artifacts.append(training.folder / "knob_trials.jsonl")
    shutil.move(log_path, artifacts[-1])
    limit = found.reach.limit or None
    return training.report(
        metrics=series(found.trials),
        parameters={"model_id": model_id, **parameters, "knob_levels": ",".join(found.reach.levels), "knob_limit": limit},
        scalars={"num_training_queries": len(found.selected.queries), **scalars(found), **_shares(found, seed)},
        artifacts=[*model_paths, *artifacts],
    )


def scalars(found: Found) -> dict[str, int | float]:
    """
    Return the final figures. Performances are those of the trials, in the target's own unit; speed-ups are measured in turns.

    `knob_validation_speedup` is that of the resulting settings: 1 if the default stays.
    """
    trials, objective = found.trials, found.objective
    figures: dict[str, int | float] = {
        "knob_trials_seconds": sum(trial.elapsed_s for trial in trials),
        "best_performance": objective.performance(best_trial(trials).cost),
        "default_performance": objective.performance(trials[0].cost),
        "num_knobs_tuned": len(found.space),
        "num_knobs_changed": len(found.values),
        "num_knob_queries": len(found.selected.queries),
        "num_knob_queries_too_long": found.selected.too_long,
        "knob_trials_ok": sum(trial.status == "ok" for trial in trials),
        "knob_trials_capped": sum(trial.status == "capped" for trial in trials),
        "knob_trials_failed": sum(trial.status == "failed" for trial in trials),
        "knob_restarts": sum(trial.applied == "restart" for trial in trials),
        "knob_restart_seconds": float(np.median([trial.apply_s for trial in trials if trial.applied == "restart"] or [0.0])),
        "knob_search_seconds": float(np.mean([trial.search_s for trial in trials])),
        "knob_confirmed": int(bool(found.values)),
        "knob_validation_speedup": found.confirmed.inverse.estimate if found.confirmed is not None and found.values else 1.0,
    }
    if found.confirmed is not None:
        speedup = found.confirmed.inverse
        figures |= {"knob_speedup": speedup.estimate, "knob_speedup_ci_low": speedup.low, "knob_speedup_ci_high": speedup.high}
    return figures


def _shares(found: Found, seed: int) -> dict[str, float]:
    from pytest_pilotscope.algorithms.knob.importance import importances  # needs SMAC, which using a model does not

    return {IMPORTANCE + name: share for name, share in importances(found.space, found.trials, seed=seed).items()}


def series(trials: Sequence[Trial]) -> dict[str, list[float]]:
    """Return, per trial, its cost in s, the lowest cost so far, and the time that it took in s."""
    incumbent = trials[0].cost
    incumbents = []
    for trial in trials:
        incumbent = min(incumbent, trial.cost) if trial.status == "ok" else incumbent
        incumbents.append(incumbent)
    return {
        "trial_cost": [trial.cost for trial in trials],
        "incumbent_cost": incumbents,
        "knob_optimization_time_seconds": [trial.elapsed_s for trial in trials],
    }


def write_configurations(folder: Path, trials: Sequence[Trial], space: KnobSpace, final: Values) -> list[Path]:
    """Write `knob_config_iteration_<n>.json` for the default (n = 0) and every trial n that was the best so far, and the result."""
    private_folder(folder)
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
    write_private(path, json.dumps(content, indent=2) + "\n")
    return path
