"""The Star Schema Benchmark: data generated with NumPy, and its 13 queries with generated parameters."""

from .dataset import SsbDataset

__all__ = ["SsbDataset"]
