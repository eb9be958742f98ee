"""Published benchmark data, from the public archives or from local copies: STATS-CEB and the Join Order Benchmark."""

from .dataset import PublishedDataset

__all__ = ["PublishedDataset"]
