"""Registers the built-in algorithms through the same hook as everybody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_pilotscope.registry import Registry

ORIGIN = "pytest-pilotscope"


def pytest_pilotscope_register(registry: Registry) -> None:
    """Add every built-in algorithm by name; each is imported when it is asked for."""
    registry.add_algorithm("baseline", "algorithms.baseline:Baseline", origin=ORIGIN)
    registry.add_algorithm("oracle", "algorithms.oracle:Oracle", origin=ORIGIN)
    registry.add_algorithm("mscn", "algorithms.mscn.estimator:Mscn", origin=ORIGIN)
    registry.add_algorithm("lero", "algorithms.lero.chooser:Lero", origin=ORIGIN)
    registry.add_algorithm("index", "algorithms.index.selection:IndexSelection", origin=ORIGIN)
    registry.add_algorithm("knob", "algorithms.knob.tuning:KnobTuning", origin=ORIGIN)
