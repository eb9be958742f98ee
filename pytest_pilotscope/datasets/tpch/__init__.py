"""TPC-H: data by tpchgen-cli at any scale, and the 22 queries with generated parameters, as the specification has them."""

from .dataset import TpchDataset

__all__ = ["TpchDataset"]
