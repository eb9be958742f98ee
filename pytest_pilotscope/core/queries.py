"""Queries and workloads: what is run, and in which role."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One statement of a workload. `id` is unique within the workload and stays the same when the order changes."""

    id: str
    sql: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """
    The ordered queries of one dataset, split by purpose.

    Training queries train, validation queries choose (early stopping, best model), test queries are read only when measuring.
    """

    dataset: str
    train: tuple[Query, ...]
    validation: tuple[Query, ...]
    test: tuple[Query, ...]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) over ids and SQL of all three splits, in order."""
        digest = hashlib.sha256()
        for role, queries in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            for query in queries:
                digest.update(f"{role}\0{query.id}\0{query.sql}\0".encode())
        return digest.hexdigest()[:16]
