"""Names of algorithms and datasets, and where to import them from when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from pytest_pilotscope.core.queries import Workload

Target = str | Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One registered name. `target` is `"package.module:Class"`, imported on demand, or the class itself."""

    kind: str
    name: str
    target: Target
    origin: str

    def resolve(self) -> Callable[..., Any]:
        """Import the target. Raises `UsageError` that carries the origin when it cannot be imported."""
        if not isinstance(self.target, str):
            return self.target
        module_name, _, attribute = self.target.partition(":")
        try:
            resolved: Callable[..., Any] = getattr(import_module(module_name), attribute)
        except (ImportError, AttributeError) as error:
            raise UsageError(
                f"{self.kind} {self.name!r} (registered by {self.origin}) cannot be imported from {self.target!r}: {error}"
            ) from error
        return resolved


@dataclass(slots=True)
class Registry:
    """What `pytest_pilotscope_register` fills; one per pytest session, or one by `builtin_registry` without pytest."""

    _algorithms: dict[str, Entry] = field(default_factory=dict)
    _datasets: dict[str, Entry] = field(default_factory=dict)

    def add_algorithm(self, name: str, target: Target, *, origin: str) -> None:
        """Register an algorithm: `target` is `"module:Class"` or a class; `origin` is shown in errors. A name is taken once."""
        self._add(self._algorithms, Entry(kind="algorithm", name=name, target=target, origin=origin))

    def add_dataset(self, name: str, target: Target, *, origin: str) -> None:
        """Register a dataset: `target` makes a `datasets.base.Dataset` when called with `name=`, `scale=`, `seed=` and `data_dir=`."""
        self._add(self._datasets, Entry(kind="dataset", name=name, target=target, origin=origin))

    def algorithm(self, name: str) -> Entry:
        """Return the entry of an algorithm; `UnknownName` lists the near matches and all names."""
        return self._find("algorithm", self._algorithms, name)

    def dataset(self, name: str) -> Entry:
        """Return the entry of a dataset; `UnknownName` lists the near matches and all names."""
        return self._find("dataset", self._datasets, name)

    @property
    def algorithms(self) -> tuple[Entry, ...]:
        """Every registered algorithm, in order of registration."""
        return tuple(self._algorithms.values())

    @property
    def datasets(self) -> tuple[Entry, ...]:
        """Every registered dataset, in order of registration."""
        return tuple(self._datasets.values())

    @staticmethod
    def _find(kind: str, entries: dict[str, Entry], name: str) -> Entry:
        try:
            return entries[name]
        except KeyError:
            raise UnknownName(kind, name, entries) from None

    @staticmethod
    def _add(entries: dict[str, Entry], entry: Entry) -> None:
        taken = entries.get(entry.name)
        if taken is not None and taken.target != entry.target:
            raise UsageError(
                f"{entry.kind} {entry.name!r} is registered twice: by {taken.origin} and by {entry.origin}; rename one of them"
            )
        entries[entry.name] = entry


def builtin_registry() -> Registry:
    """Return a registry with the built-in names only, for use without pytest."""
    from algorithms.plugin import pytest_pilotscope_register as register_algorithms
    from pytest_pilotscope.datasets.plugin import pytest_pilotscope_register as register_datasets

    registry = Registry()
    register_algorithms(registry)
    register_datasets(registry)
    return registry


def load_workload(name: str, *, scale: float | None = None, seed: int = 0, data_dir: Path | None = None) -> Workload:
    """
    Return the queries of a built-in dataset, split into `train`, `validation` and `test`; `UnknownName` for any other.

    Published data (`stats`, `imdb`) has those that lie beside it in `data_dir`; `MissingWorkload` without.
    """
    dataset = builtin_registry().dataset(name).resolve()(name=name, scale=scale, seed=seed, data_dir=data_dir)
    workload: Workload = dataset.workload()
    return workload
