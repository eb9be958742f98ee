"""TPC-H: data of tpchgen-cli at any scale, and the specification's 22 queries with generated parameters."""

from .dataset import TpchDataset

__all__ = ["TpchDataset"]
