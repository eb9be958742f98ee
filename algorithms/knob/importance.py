"""Permutation importance of knobs, by a random forest like SMAC's that learns from all trials of a search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from ConfigSpace.util import deactivate_inactive_hyperparameters
from smac.model.random_forest import RandomForest

from pytest_pilotscope.algorithms.knob.geometry import DirectGeometry
from pytest_pilotscope.algorithms.knob.search import forest
from pytest_pilotscope.algorithms.knob.space import KnobSpace
from pytest_pilotscope.algorithms.knob.trials import Trial

_POINTS = 256
_FEWEST = 10
"""With fewer trials the shares would be chance."""


def importances(space: KnobSpace, trials: Sequence[Trial], *, seed: int) -> dict[str, float]:
    """
    Return the change of the predicted log cost when one knob's values are shuffled among random points, as shares that sum to 1.

    Random points of the space also vary the knobs that the search left alone. Empty if the forest sees no difference, and after fewer than
    ten trials.
    """
    if len(trials) < _FEWEST:
        return {}
    geometry = DirectGeometry(space, seed)
    points = np.array([configuration.get_array() for configuration in geometry.configurations.sample_configuration(_POINTS)])
    model = forest(geometry.configurations, trials=len(trials), seed=seed)
    model.train(_vectors(geometry, trials), np.log([[trial.cost] for trial in trials]))
    return _shares(model, points, geometry, np.random.default_rng(seed))


def _vectors(geometry: DirectGeometry, trials: Sequence[Trial]) -> npt.NDArray[np.float64]:
    """Return the trials' settings as SMAC's (N, D) vectors."""
    space = geometry.configurations
    active = [deactivate_inactive_hyperparameters(geometry.point(trial.values), space) for trial in trials]
    return np.array([configuration.get_array() for configuration in active])


def _shares(
    model: RandomForest, points: npt.NDArray[np.float64], geometry: DirectGeometry, random: np.random.Generator
) -> dict[str, float]:
    predicted, _ = model.predict_marginalized(points)
    changes = {}
    for knob in geometry.space.knobs:
        columns = geometry.columns(knob)
        shuffled = points.copy()
        shuffled[:, columns] = points[random.permutation(len(points))][:, columns]
        again, _ = model.predict_marginalized(shuffled)
        changes[knob.name] = float(np.mean((again - predicted) ** 2))
    total = sum(changes.values())
    return {name: change / total for name, change in changes.items()} if total > 0 else {}
