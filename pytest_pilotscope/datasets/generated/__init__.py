"""Training queries for a workload that has none: made from schema, statistics and the joins that the workload uses."""

from .training import generate_training

__all__ = ["generate_training"]
