"""Boosted regression trees: learned by scikit-learn, kept as arrays, so that a saved model has no code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]

SHARE = 0.3
"""Share of the sets of relations that each tree is grown on, and of the features that each split may use."""

PATIENCE = 30
"""Trees without a smaller validation loss after which no more are grown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperParameters:
    """Everything besides the data that the result depends on: the options of `trees`, and the seed."""

    count: int
    depth: int
    learning_rate: float
    seed: int


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Forest:
    """
    T trees of up to N nodes as (T, N) arrays; the answer is `start` plus the sum of a leaf's `values` of each tree.

    A node sends a row to `left` if its feature is at most the threshold, else to `right`; a leaf sends it to itself.
    """

    start: float
    features: npt.NDArray[np.int64]
    thresholds: Floats
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    values: Floats

    def predict(self, rows: Features) -> Floats:
        """Map (S, F) features to (S,) numbers."""
        trees = np.arange(len(self.values))
        nodes = np.zeros((len(rows), len(trees)), dtype=np.int64)
        samples = np.arange(len(rows))[:, None]
        while True:
            smaller = rows[samples, self.features[trees, nodes]] <= self.thresholds[trees, nodes]
            below = np.where(smaller, self.left[trees, nodes], self.right[trees, nodes])
            if np.array_equal(below, nodes):
                found: Floats = self.start + self.values[trees, nodes].sum(axis=1)
                return found
            nodes = below

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays to save."""
        return {name: np.asarray(getattr(self, name)) for name in ("start", "features", "thresholds", "left", "right", "values")}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Forest:
        """Make the trees from saved arrays; KeyError or ValueError if they are none."""
        others = {name: arrays[name] for name in ("features", "thresholds", "left", "right", "values")}
        if len({array.shape for array in others.values()}) != 1 or others["left"].ndim != 2:
            raise ValueError(f"arrays of different shapes: {', '.join(str(array.shape) for array in others.values())}")
        return cls(start=float(arrays["start"]), **others)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """Trees, and the mean squared error after each tree on the training and on the validation sets."""

    forest: Forest
    train_loss: list[float]
    validation_loss: list[float]


def grow(
    rows: Features,
    targets: Floats,
    checked_rows: Features,
    checked_targets: Floats,
    *,
    parameters: HyperParameters,
    advance: Callable[[int], None],
) -> Grown:
    """
    Boost regression trees (Friedman, Stochastic Gradient Boosting, 2002) on (S, F) features and (S,) targets.

    Growing ends early if the validation loss stops falling; the forest then has the trees up to the smallest one. Equal data and seed give
    equal trees.
    """
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=parameters.count,
        max_depth=parameters.depth,
        learning_rate=parameters.learning_rate,
        subsample=SHARE,
        max_features=SHARE,
        random_state=parameters.seed,
    )
    losses: list[float] = []
    reached = np.zeros(len(checked_targets))

    def after_tree(number: int, so_far: Any, _: Any) -> bool:
        advance(1)
        if not len(checked_targets):
            return False
        if number == 0:
            reached[:] = so_far.init_.predict(checked_rows)
        reached[:] += parameters.learning_rate * so_far.estimators_[number, 0].predict(checked_rows)
        losses.append(float(np.mean((reached - checked_targets) ** 2)))
        return number - int(np.argmin(losses)) >= PATIENCE

    model.fit(rows, targets, monitor=after_tree)
    count = int(np.argmin(losses)) + 1 if losses else parameters.count
    train_loss = [float(np.mean((found - targets) ** 2)) for found in model.staged_predict(rows)]
    return Grown(forest=_as_arrays(model, count), train_loss=train_loss, validation_loss=losses)


def _as_arrays(model: Any, count: int) -> Forest:
    trees = [model.estimators_[number, 0].tree_ for number in range(count)]
    shape = (count, max(tree.node_count for tree in trees))
    forest = Forest(
        start=float(np.ravel(model.init_.constant_)[0]),
        features=np.zeros(shape, dtype=np.int64),
        thresholds=np.zeros(shape),
        left=np.zeros(shape, dtype=np.int64),
        right=np.zeros(shape, dtype=np.int64),
        values=np.zeros(shape),
    )
    for number, tree in enumerate(trees):
        nodes, own = slice(tree.node_count), np.arange(tree.node_count)
        leaf = tree.children_left < 0
        forest.features[number, nodes] = np.where(leaf, 0, tree.feature)
        forest.thresholds[number, nodes] = tree.threshold
        forest.left[number, nodes] = np.where(leaf, own, tree.children_left)
        forest.right[number, nodes] = np.where(leaf, own, tree.children_right)
        forest.values[number, nodes] = model.learning_rate * tree.value[:, 0, 0]
    return forest
