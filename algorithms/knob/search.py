"""
Proposals of the next settings: SMAC3 by ask and tell, on the knobs or on a random projection of them, or independent random draws.

SMAC (Lindauer et al., JMLR 23, 2022) is used as published: a Sobol initial design, a random forest as surrogate, expected improvement, one
proposal in five at random. Two steps that take SMAC seconds per proposal are batches here: the forest runs in this thread, and expected
improvement is maximised over random points and neighbours of the best ones, all evaluated at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from ConfigSpace import CategoricalHyperparameter, Configuration, ConfigurationSpace
from ConfigSpace.util import deactivate_inactive_hyperparameters
from smac import HyperparameterOptimizationFacade, Scenario
from smac.acquisition.maximizer import AbstractAcquisitionMaximizer
from smac.main.config_selector import ConfigSelector
from smac.model.random_forest import RandomForest
from smac.runhistory.dataclasses import TrialInfo, TrialValue

from pytest_pilotscope.algorithms.knob.geometry import DirectGeometry, Geometry, ProjectedGeometry, Projection, projected_dimensions
from pytest_pilotscope.algorithms.knob.space import KnobSpace, Values
from pytest_pilotscope.algorithms.knob.trials import Proposal
from pytest_pilotscope.places.folders import cache_folder
from pytest_pilotscope.postgres.process import temporary_folder

Vectors: TypeAlias = npt.NDArray[np.float64]


_RANDOM_POINTS = 120
_NEIGHBOURS = 400
_STARTS = 8


class Search(Protocol):
    """Proposes settings and learns their costs."""

    def ask(self) -> Proposal:
        """Return the next settings to try."""

    def tell(self, values: Values, cost: float, *, point: Mapping[str, Any] | None = None) -> None:
        """Learn the cost of settings, the lower the better; also of settings that `ask` did not propose."""


class SmacSearch:
    """SMAC over a geometry, for about `trials` trials."""

    def __init__(self, space: KnobSpace, *, trials: int, seed: int, projection: Projection = "none") -> None:
        self.space = space
        self.geometry: Geometry = (
            DirectGeometry(space, seed) if projection == "none" else ProjectedGeometry(space, seed, projected_dimensions(space))
        )
        with temporary_folder(cache_folder(), "smac-") as folder:  # SMAC needs one while it is made
            self._smac = _smac(self.geometry.configurations, folder, trials=trials, seed=seed)
        self._asked: dict[str, TrialInfo] = {}

    def ask(self) -> Proposal:
        """Return the next settings to try."""
        trial = self._smac.ask()
        point = {name: _plain(value) for name, value in dict(trial.config).items()}
        self._asked[_key(point)] = trial
        return Proposal(self.geometry.values(point), point)

    def tell(self, values: Values, cost: float, *, point: Mapping[str, Any] | None = None) -> None:
        """Learn the cost of settings; without a point, the geometry gives it."""
        point = point if point is not None else self.geometry.point(values)
        if point is None:
            return
        trial = self._asked.pop(_key(point), None)
        if trial is None:  # `ask` did not propose it: the default, or a trial of an interrupted run
            active = deactivate_inactive_hyperparameters(dict(point), self.geometry.configurations)
            trial = TrialInfo(config=active, seed=0)
        self._smac.tell(trial, TrialValue(cost=cost), save=False)


class RandomSearch:
    """Settings drawn independently and uniformly from the space: the lower bar for every optimizer."""

    def __init__(self, space: KnobSpace, *, seed: int) -> None:
        self.space = space
        self._random = np.random.default_rng(seed)

    def ask(self) -> Proposal:
        """Return the next settings to try."""
        values = self.space.at(self._random.random(len(self.space)).tolist())
        return Proposal(values, {})

    def tell(self, values: Values, cost: float, *, point: Mapping[str, Any] | None = None) -> None:
        """Learn nothing."""


class _BatchSelector(ConfigSelector):
    """SMAC's selector of the next point, but with one batch of predictions for all points so far."""

    def _get_x_best(self, X: Vectors) -> tuple[Vectors, float]:  # noqa: N803 - SMAC's name
        predicted, _ = self._model.predict_marginalized(X)  # type: ignore[union-attr]
        best = int(np.argmin(predicted[:, 0]))
        return X[best], float(predicted[best, 0])


class _BatchMaximizer(AbstractAcquisitionMaximizer):
    """Random points and neighbours of the best points so far, evaluated in one batch."""

    def _maximize(self, previous_configs: list[Configuration], n_points: int) -> list[tuple[float, Configuration]]:
        random = np.array([config.get_array() for config in self._configspace.sample_configuration(_RANDOM_POINTS)])
        best = [config for _, config in self._sort_by_acquisition_value(list(previous_configs))[:_STARTS]]
        starts = np.array([config.get_array() for config in best])
        points = np.concatenate([random, self._neighbours(starts)])
        candidates = [Configuration(self._configspace, vector=vector) for vector in points]
        ranked = self._sort_by_acquisition_value(candidates)
        return [(value, self._legal(config)) for value, config in ranked[:_STARTS]]

    def _neighbours(self, starts: Vectors) -> Vectors:
        """Return (N, D) points: each changes a few active dimensions of a start, but none that others depend on."""
        points: Vectors = starts[self._rng.randint(len(starts), size=_NEIGHBOURS)].copy()
        changed = self._rng.rand(*points.shape) < 2 / points.shape[1]
        for column, parameter in enumerate(self._configspace.values()):
            rows = np.flatnonzero(changed[:, column] & ~np.isnan(points[:, column]))
            if self._configspace.children_of[parameter.name]:
                continue
            if isinstance(parameter, CategoricalHyperparameter):
                points[rows, column] = self._rng.randint(len(parameter.choices), size=len(rows))
            else:
                points[rows, column] = np.clip(points[rows, column] + self._rng.normal(0, 0.2, size=len(rows)), 0, 1)
        return points

    def _legal(self, config: Configuration) -> Configuration:
        """Return the legal configuration nearest to a vector: integers are whole."""
        legal = Configuration(self._configspace, values=dict(config))
        legal.origin = "Acquisition Function Maximizer: batch"
        return legal


def forest(space: ConfigurationSpace, *, trials: int, seed: int) -> RandomForest:
    """Make the surrogate of SMAC's facade, in this thread: it predicts log costs."""
    return RandomForest(
        space,
        log_y=True,
        n_trees=10,  # this and the next three as in SMAC's facade
        ratio_features=1.0,
        min_samples_split=2,
        min_samples_leaf=1,
        max_leaf_nodes=4 * max(trials, 256),  # SMAC's 2**20 is as good as no limit, too, but memory for that many is cleared per tree
        n_jobs=1,
        seed=seed,
    )


def _smac(space: ConfigurationSpace, folder: Path, *, trials: int, seed: int) -> HyperparameterOptimizationFacade:
    scenario = Scenario(space, deterministic=True, n_trials=max(trials, 2), seed=seed, output_directory=folder)
    facade = HyperparameterOptimizationFacade
    return facade(
        scenario,
        model=forest(space, trials=trials, seed=seed),
        acquisition_maximizer=_BatchMaximizer(space, challengers=_STARTS, seed=seed),
        initial_design=facade.get_initial_design(scenario, n_configs=max(1, min(10, trials // 4))),
        config_selector=_BatchSelector(scenario, retrain_after=1),
        logging_level=False,
        overwrite=True,
    )


def _plain(value: Any) -> str | int | float:
    """Convert a value of NumPy's types to Python's own, which JSON can hold."""
    if isinstance(value, str):
        return str(value)
    return int(value) if isinstance(value, int | np.integer) else float(value)


def _key(point: Mapping[str, Any]) -> str:
    return json.dumps(dict(point), sort_keys=True)
