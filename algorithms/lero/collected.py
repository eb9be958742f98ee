"""The candidates of a query with their times, and a line of the file that keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_pilotscope.algorithms.lero.candidates import Attempt, Candidates, Slot
from pytest_pilotscope.algorithms.plans.shape import trimmed
from pytest_pilotscope.algorithms.plans.timed import TimedQuery, TimedStore, sql_key, timed_fields, timed_json
from pytest_pilotscope.algorithms.plans.timing import Outcome
from pytest_pilotscope.queries.queries import Query

FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedQuery(TimedQuery):
    """
    The candidates of one query and their times.

    `subplans` are PostgreSQL's own estimates; `slots` belong to the plans in order. `look_ms` and the `elapsed_ms` of the `attempts` are
    the times of the planner calls.
    """

    signature: str
    subplans: Mapping[frozenset[str], float]
    look_ms: float
    attempts: tuple[Attempt, ...]
    slots: tuple[Slot | None, ...]

    @property
    def largest(self) -> int:
        """The number of relations of the largest subplan."""
        return max(map(len, self.subplans), default=0)


CollectionStore = TimedStore[CollectedQuery]


def collected(query: Query, signature: str, candidates: Candidates, outcomes: Sequence[Outcome]) -> CollectedQuery:
    """Make the record of a query from its candidates and their outcomes."""
    return CollectedQuery(
        query_id=query.id,
        sql_key=sql_key(query.sql),
        signature=signature,
        subplans=dict(candidates.look.subplans),
        look_ms=candidates.look.elapsed_ms,
        attempts=candidates.attempts,
        plans=tuple(map(trimmed, candidates.plans)),
        slots=candidates.slots,
        outcomes=tuple(outcomes),
    )


def to_json(found: CollectedQuery) -> dict[str, Any]:
    """Return a line of the file as JSON values."""
    timed = timed_json(found)
    for entry, slot in zip(timed["plans"], found.slots, strict=True):
        entry["slot"] = None if slot is None else [slot.factor, slot.size]
    return {
        "format": FORMAT,
        **timed,
        "signature": found.signature,
        "look_ms": found.look_ms,
        "subplans": [[sorted(subplan), rows] for subplan, rows in found.subplans.items()],
        "attempts": [[attempt.slot.factor, attempt.slot.size, attempt.plan, attempt.elapsed_ms] for attempt in found.attempts],
    }


def from_json(line: Mapping[str, Any]) -> CollectedQuery:
    """Read a line that `to_json` made; ValueError, KeyError, TypeError or IndexError for anything else."""
    return CollectedQuery(
        **timed_fields(line, FORMAT),
        signature=str(line["signature"]),
        subplans={
            frozenset(aliases): float(rows) for aliases, rows in reversed(line["subplans"])
        },  # of equal ones in two levels, the first
        look_ms=float(line["look_ms"]),
        attempts=tuple(
            Attempt(slot=Slot(factor, size), plan=plan, elapsed_ms=elapsed_ms) for factor, size, plan, elapsed_ms in line["attempts"]
        ),
        slots=tuple(None if entry["slot"] is None else Slot(*entry["slot"]) for entry in line["plans"]),
    )
