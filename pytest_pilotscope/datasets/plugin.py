"""Registration of the built-in datasets, through the same hook as a third party's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_pilotscope.registry import Registry

ORIGIN = "pytest-pilotscope"


def pytest_pilotscope_register(registry: Registry) -> None:
    """Add every built-in dataset by name; the registry imports it when somebody asks for it."""
    for name in ("stats_tiny", "stats_small", "stats_synthetic"):
        registry.add_dataset(name, "pytest_pilotscope.datasets.stats:StatsDataset", origin=ORIGIN)
    for name in ("stats", "imdb"):
        registry.add_dataset(name, "pytest_pilotscope.datasets.published:PublishedDataset", origin=ORIGIN)
    registry.add_dataset("ssb", "pytest_pilotscope.datasets.ssb:SsbDataset", origin=ORIGIN)
    registry.add_dataset("joins", "pytest_pilotscope.datasets.joins:JoinsDataset", origin=ORIGIN)
    registry.add_dataset("tpcds", "pytest_pilotscope.datasets.tpcds:TpcdsDataset", origin=ORIGIN)
    registry.add_dataset("tpch", "pytest_pilotscope.datasets.tpch:TpchDataset", origin=ORIGIN)
