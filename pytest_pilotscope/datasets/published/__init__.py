"""Published benchmark data, from the archives that everybody uses or from local copies of them: STATS-CEB and the Join Order Benchmark."""

from .dataset import PublishedDataset

__all__ = ["PublishedDataset"]
