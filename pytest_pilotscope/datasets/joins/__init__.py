"""Joins of 8 to 40 relations on which the textbook estimate fails, with results of bounded size."""

from .dataset import JoinsDataset

__all__ = ["JoinsDataset"]
