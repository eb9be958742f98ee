"""Training queries for a workload that has none, generated from its joins, the schema and the columns' statistics."""

from .training import generate_training

__all__ = ["generate_training"]
