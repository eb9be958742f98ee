"""The generated STATS database: 8 tables of a question-and-answer site, with a workload in the style of STATS-CEB."""

from .dataset import StatsDataset
from .drawn_queries import make_workload
from .generate import generate
from .tables import Column, Table

__all__ = ["Column", "StatsDataset", "Table", "generate", "make_workload"]
