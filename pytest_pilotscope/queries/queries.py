"""Queries, and workloads: queries for training, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from pytest_pilotscope.queries.scripts import Writes

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """
    One statement of a workload. `id` is unique within the workload and stays the same when the order changes.

    `place` is the `file:line` that it was read from, None for one that was made.
    """

    id: str
    sql: str
    place: str | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmeasured:
    """A statement of a workload that is not run because it is no query; `reason` says what it is."""

    id: str
    sql: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """
    The ordered queries of one dataset, split by purpose.

    Training queries train, validation queries choose (early stopping, best model), test queries are read only when measuring.
    `unmeasured` are the other statements of the user's files. `origin` says where training queries come from if the user gave none.
    `writes` are the scripts that run among the queries when they are measured.
    """

    dataset: str
    train: tuple[Query, ...] = ()
    validation: tuple[Query, ...] = ()
    test: tuple[Query, ...] = ()
    unmeasured: tuple[Unmeasured, ...] = ()
    origin: str | None = None
    writes: Writes | None = None

    def of(self, split: Split) -> tuple[Query, ...]:
        """Return the queries of one split."""
        found: tuple[Query, ...] = getattr(self, split)
        return found

    def with_splits(self, splits: Mapping[Split, Sequence[Query]]) -> Workload:
        """Return the workload with other queries in all three splits."""
        return replace(self, train=tuple(splits["train"]), validation=tuple(splits["validation"]), test=tuple(splits["test"]))

    @cached_property
    def templates_seen(self) -> float | None:
        """The share (0..1) of the test queries' templates that training queries have too; None without test or training queries."""
        from pytest_pilotscope.queries.templates import template_of

        if not (self.test and self.train):
            return None
        trained = {template_of(query.sql) for query in self.train}
        tested = {template_of(query.sql) for query in self.test}
        return len(tested & trained) / len(tested)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (first 16 hex digits) over ids and SQL of all three splits, in order."""
        digest = hashlib.sha256()
        for role in SPLITS:
            for query in self.of(role):
                digest.update(f"{role}\0{query.id}\0{query.sql}\0".encode())
        return digest.hexdigest()[:16]
