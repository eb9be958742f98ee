"""The executions that an algorithm sees on the way, and the plan that they speak for."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P", bound=Hashable)


@dataclass(slots=True)
class Experience(Generic[P]):
    """
    The last time of each plan that ran for a statement, in ms, by its `sql_key`; `own` is PostgreSQL's own plan.

    A choice is tried once. When the statement comes again, PostgreSQL's own plan runs, and from then on the faster of the two: a wrong
    choice costs its time once, and comparing costs no more than PostgreSQL takes.
    """

    own: P
    seen: dict[str, dict[P, float]] = field(default_factory=dict)

    def note(self, key: str, plan: P, ms: float) -> None:
        """Take the time of an execution for that of its plan: the data may have changed since the one before."""
        self.seen.setdefault(key, {})[plan] = ms

    def settled(self, key: str) -> P | None:
        """Return the fastest plan of a statement whose own plan and at least one other have run; None for any other statement."""
        found = self.seen.get(key, {})
        return min(found, key=found.__getitem__) if len(found) > 1 and self.own in found else None

    def next(self, key: str, chosen: P) -> P:
        """Return the plan to run for a statement that is not settled, in place of a chosen one that has run."""
        return self.own if chosen in self.seen.get(key, {}) else chosen
