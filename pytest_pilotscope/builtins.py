"""The registry of the built-in algorithms and datasets."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pytest_pilotscope.registry import Registry

if TYPE_CHECKING:
    from pytest_pilotscope.queries.queries import Workload


def builtin_registry() -> Registry:
    """Return a registry with the built-in names only; Python programs without pytest use it."""
    registry = Registry()
    for module in builtin_plugins():
        module.pytest_pilotscope_register(registry)
    return registry


def builtin_plugins() -> tuple[ModuleType, ...]:
    """Return the modules that register the built-in names through the hook that third parties use."""
    from pytest_pilotscope.algorithms import plugin as algorithms
    from pytest_pilotscope.datasets import plugin as datasets

    return algorithms, datasets


def load_workload(
    name: str, *, scale: float | None = None, seed: int = 0, data_dir: Path | None = None, queries_dir: Path | str | None = None
) -> Workload:
    """
    Return the queries of a built-in dataset, or those of a file or folder of yours, split into `train`, `validation` and `test`.

    For published data (`stats`, `imdb`) `data_dir` has the queries as well. `queries_dir` is what `--queries-dir` takes; then `name` may be
    any name. Raise `UnknownName` for another dataset, `MissingWorkload` if there are no queries, and `WorkloadError` for files that cannot
    be read.
    """
    if queries_dir is not None:
        from pytest_pilotscope.datasets.files import load_workload_files

        return load_workload_files(Path(queries_dir), name, None)
    dataset = builtin_registry().dataset(name).resolve()(name=name, scale=scale, seed=seed, data_dir=data_dir)
    workload: Workload = dataset.workload()
    return workload


def load_test_sql(
    name: str, *, scale: float | None = None, seed: int = 0, data_dir: Path | None = None, queries_dir: Path | str | None = None
) -> list[str]:
    """Return the SQL of the test queries, in order; the arguments and errors are those of `load_workload`."""
    return [query.sql for query in load_workload(name, scale=scale, seed=seed, data_dir=data_dir, queries_dir=queries_dir).test]
