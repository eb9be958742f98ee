"""The meaning of a network's input, and the sizes of its layers, as JSON values in the files of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pytest_pilotscope.algorithms.plans.featurize import OPERATORS, Featurizer, Scales

CHANNELS = (256, 128, 64)
HIDDEN_UNITS = 32
"""The sizes of the layers of `plans.network`."""


def features_json(featurizer: Featurizer) -> dict[str, Any]:
    """Return what `features_of` needs."""
    return {
        "operators": OPERATORS,
        "tables": featurizer.tables,
        "scales": {name: ends for name, ends in asdict(featurizer.scales).items() if ends is not None},
        "channels": CHANNELS,
        "hidden_units": HIDDEN_UNITS,
    }


def features_of(about: Mapping[str, Any]) -> Featurizer:
    """Make the featurizer that `features_json` described; ValueError, KeyError or TypeError for anything else."""
    if tuple(about["operators"]) != OPERATORS or (tuple(about["channels"]), about["hidden_units"]) != (CHANNELS, HIDDEN_UNITS):
        raise ValueError("it was made by another version of this suite")
    scales = Scales(**{name: (float(low), float(high)) for name, (low, high) in about["scales"].items()})
    return Featurizer([str(table) for table in about["tables"]], scales)
