"""TPC-DS: data, and its 99 queries."""

from .dataset import TpcdsDataset

__all__ = ["TpcdsDataset"]
