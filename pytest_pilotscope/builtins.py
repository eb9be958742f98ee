"""The built-in names, for use without pytest."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pytest_pilotscope.registry import Registry

if TYPE_CHECKING:
    from pytest_pilotscope.queries.queries import Workload


def builtin_registry() -> Registry:
    """Return a registry with the built-in names only, for use without pytest."""
    registry = Registry()
    for module in builtin_plugins():
        module.pytest_pilotscope_register(registry)
    return registry


def builtin_plugins() -> tuple[ModuleType, ...]:
    """Return the modules that register the built-in names, through the same hook as everybody else's."""
    from pytest_pilotscope.algorithms import plugin as algorithms
    from pytest_pilotscope.datasets import plugin as datasets

    return algorithms, datasets


def load_workload(name: str, *, scale: float | None = None, seed: int = 0, data_dir: Path | None = None) -> Workload:
    """
    Return the queries of a built-in dataset, split into `train`, `validation` and `test`; `UnknownName` for any other.

    Published data (`stats`, `imdb`) has those that lie beside it in `data_dir`; `MissingWorkload` without.
    """
    dataset = builtin_registry().dataset(name).resolve()(name=name, scale=scale, seed=seed, data_dir=data_dir)
    workload: Workload = dataset.workload()
    return workload
