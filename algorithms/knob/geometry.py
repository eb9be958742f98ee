"""Maps between SMAC's configurations and settings: one dimension per knob, or a random projection to fewer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from ConfigSpace import (
    CategoricalHyperparameter,
    ConfigurationSpace,
    EqualsCondition,
    UniformFloatHyperparameter,
    UniformIntegerHyperparameter,
)
from ConfigSpace.conditions import Condition
from ConfigSpace.hyperparameters import Hyperparameter

from pytest_pilotscope.algorithms.knob.space import SPECIAL_SHARE, Knob, KnobSpace, Values

Projection = Literal["llamatune", "none"]
Parameter: TypeAlias = "Hyperparameter[Any, Any]"

_MODE = ".mode"  # a categorical beside a number that has a special value


class Geometry(Protocol):
    """A map between SMAC's configurations and settings."""

    configurations: ConfigurationSpace

    def values(self, point: Mapping[str, Any]) -> dict[str, str]:
        """Return the settings at a point."""

    def point(self, values: Values) -> dict[str, Any] | None:
        """Return the point of settings, or None if there is no such point."""


class DirectGeometry:
    """
    One dimension per knob. A number with a special value has a categorical beside it that says which of the two it is.

    Children are conditional on their parents, so SMAC knows which knobs have no effect.
    """

    def __init__(self, space: KnobSpace, seed: int) -> None:
        self.space = space
        self.configurations = ConfigurationSpace(seed=seed)
        for knob in space.knobs:
            self.configurations.add(_hyperparameters(knob))
        self.configurations.add([condition for knob in space.knobs for condition in self._conditions(knob)])

    def values(self, point: Mapping[str, Any]) -> dict[str, str]:
        """Return the settings at a point; knobs that are not active there get their default."""
        found = {}
        for knob in self.space.knobs:
            if point.get(knob.name + _MODE) == "special":
                found[knob.name] = str(knob.special)
            elif knob.name in point:
                found[knob.name] = str(point[knob.name]) if knob.kind == "choice" else knob.text(float(point[knob.name]))
        return self.space.complete(found)

    def point(self, values: Values) -> dict[str, Any]:
        """Return the point of settings, with SMAC's own default in dimensions that are not active."""
        found: dict[str, Any] = {}
        for knob in self.space.knobs:
            value = values[knob.name]
            if knob.special is not None:
                found[knob.name + _MODE] = "special" if knob.is_special(value) else "number"
            if knob.kind == "choice":
                found[knob.name] = value
            elif not knob.is_special(value):
                found[knob.name] = int(value) if knob.kind == "integer" else min(max(float(value), knob.low), knob.high)
        return found

    def columns(self, knob: Knob) -> list[int]:
        """Return the dimensions of SMAC's vectors that belong to a knob."""
        return [column for column, name in enumerate(self.configurations) if name in (knob.name, knob.name + _MODE)]

    def _conditions(self, knob: Knob) -> list[Condition]:
        """Return the conditions under which a number has an effect: its parent is active, and it is not at its special value."""
        own = self.configurations[knob.name]
        outer = self._parent_condition(knob, self.configurations[knob.name + _MODE] if knob.special is not None else own)
        if knob.special is None:
            return outer
        mode = EqualsCondition(own, self.configurations[knob.name + _MODE], "number")
        return [*outer, mode]

    def _parent_condition(self, knob: Knob, child: Parameter) -> list[Condition]:
        if knob.parent is None:
            return []
        if knob.active is not None:
            return [EqualsCondition(child, self.configurations[knob.parent], knob.active)]
        parent = next(other for other in self.space.knobs if other.name == knob.parent)
        if parent.special is None:
            return []
        return [EqualsCondition(child, self.configurations[parent.name + _MODE], "number")]


class ProjectedGeometry:
    """
    LlamaTune's projection (Kanellis et al., PVLDB 15(11), 2022): every knob follows one of a few dimensions, forwards or backwards.

    Which one is drawn at random (a count sketch, as in HeSBO). The special values keep their share of every dimension.
    """

    def __init__(self, space: KnobSpace, seed: int, dimensions: int) -> None:
        random = np.random.default_rng(seed)
        self.space = space
        self.rows = random.integers(dimensions, size=len(space))
        self.forwards = random.integers(2, size=len(space)).astype(bool)
        self.configurations = ConfigurationSpace(seed=seed)
        self.configurations.add([UniformFloatHyperparameter(f"d{n}", 0.0, 1.0, default_value=0.5) for n in range(dimensions)])

    def values(self, point: Mapping[str, Any]) -> dict[str, str]:
        """Return the settings at a point."""
        positions = [float(point[f"d{row}"]) for row in self.rows]
        return self.space.at([position if forwards else 1 - position for position, forwards in zip(positions, self.forwards, strict=True)])

    def point(self, values: Values) -> None:
        """Return None: hardly any settings are on the projection, not even the default ones."""
        return


def projected_dimensions(space: KnobSpace) -> int:
    """Return half the number of knobs, and at most 16, the number of dimensions that LlamaTune found best for 90 knobs."""
    return max(1, min(16, math.ceil(len(space) / 2)))


def _hyperparameters(knob: Knob) -> list[Parameter]:
    if knob.kind == "choice":
        return [CategoricalHyperparameter(knob.name, knob.choices, default_value=knob.default)]
    special = knob.special is not None and knob.is_special(knob.default)
    default = None if special else min(max(float(knob.default), knob.low), knob.high)
    number: Parameter
    if knob.kind == "integer":
        whole = round(default) if default is not None else None
        number = UniformIntegerHyperparameter(knob.name, round(knob.low), round(knob.high), default_value=whole, log=knob.log)
    else:
        number = UniformFloatHyperparameter(knob.name, knob.low, knob.high, default_value=default, log=knob.log)
    if knob.special is None:
        return [number]
    weights = (SPECIAL_SHARE, 1 - SPECIAL_SHARE)
    mode = CategoricalHyperparameter(
        knob.name + _MODE, ["special", "number"], weights=weights, default_value="special" if special else "number"
    )
    return [mode, number]
