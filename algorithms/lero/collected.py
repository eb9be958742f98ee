"""
Collected queries on disk: JSON Lines, one line per query, written as soon as the query is done.

A killed collection loses at most one query: the store ignores an incomplete line, and collects the query again. There is one file for each
state of the data, the statistics, the server and the rules of collecting, since another state gives other plans or other times.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from pytest_pilotscope.algorithms.lero.candidates import SHAPE, Attempt, Candidates, Slot
from pytest_pilotscope.algorithms.lero.timing import Outcome
from pytest_pilotscope.places.privatefiles import open_private, private_folder
from pytest_pilotscope.postgres.planning import RawPlan
from pytest_pilotscope.queries.queries import Query

logger = logging.getLogger(__name__)

FORMAT = 2
_NODE = frozenset({*SHAPE, "Parallel Aware", "Workers Planned", "Plan Rows", "Plan Width", "Total Cost", "Startup Cost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedQuery:
    """
    The candidates of one query and their times.

    `subplans` are PostgreSQL's own estimates. `plans` are EXPLAIN's nodes without conditions, PostgreSQL's own plan first; `slots` and
    `outcomes` belong to them in order. `look_ms` and the `elapsed_ms` of the `attempts` are the times of the planner calls.
    """

    query_id: str
    sql_key: str
    signature: str
    subplans: Mapping[frozenset[str], float]
    look_ms: float
    attempts: tuple[Attempt, ...]
    plans: tuple[RawPlan, ...]
    slots: tuple[Slot | None, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def own(self) -> Outcome:
        """The outcome of PostgreSQL's own plan."""
        return self.outcomes[0]

    def counted_ms(self, plan: int) -> float:
        """
        Return the time of a plan for sums: its time, or the limit that cut it off.

        A plan that was cut off never counts as faster than PostgreSQL's own: its limit may have been low (the budget of the query was spent
        before the limit could be raised), and then nothing is known in its favour.
        """
        outcome = self.outcomes[plan]
        return outcome.ms if outcome.ms is not None else max(outcome.at_least_ms, self.own.at_least_ms)

    @property
    def largest(self) -> int:
        """The number of relations of the largest subplan."""
        return max(map(len, self.subplans), default=0)

    @property
    def best_ms(self) -> float | None:
        """The time of the fastest plan; None if none finished."""
        return min((ms for outcome in self.outcomes if (ms := outcome.ms) is not None), default=None)


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


def trimmed(plan: RawPlan) -> RawPlan:
    """Return a plan with only those properties of its nodes that are learned from or shown."""
    kept: RawPlan = {name: value for name, value in plan.items() if name in _NODE}
    if "Plans" in plan:
        kept["Plans"] = [trimmed(child) for child in plan["Plans"]]
    return kept


def sql_key(sql: str) -> str:
    """Identify a statement: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(sql.encode()).hexdigest()[:16]


@dataclass(slots=True)
class CollectionStore:
    """One file of collected queries; `known` has them by the key of their SQL."""

    path: Path
    known: dict[str, CollectedQuery] = field(default_factory=dict)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the file against other processes, and read the queries that they have collected."""
        private_folder(self.path.parent)
        with FileLock(f"{self.path}.lock"):
            self.read()
            yield

    def read(self) -> None:
        """Read the file; skip incomplete lines, with a warning."""
        self.known.clear()
        if not self.path.exists():
            return
        for number, line in enumerate(self.path.read_bytes().splitlines(), start=1):
            try:
                found = from_json(_checked(json.loads(line)))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                logger.warning("%s:%d is not a collected query (%s); it is collected again", self.path, number, error)
                continue
            self.known[found.sql_key] = found

    def add(self, found: CollectedQuery) -> None:
        """Append a query; it is on disk when this returns."""
        content = to_json(found)
        line = json.dumps({"sha256": _sha256(content), **content}, allow_nan=False).encode() + b"\n"
        with open_private(self.path, "a+b") as file:
            if file.tell() and not _ends_with_newline(file):
                line = b"\n" + line  # after a line that was cut off
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.known[found.sql_key] = found


def _checked(line: dict[str, Any]) -> dict[str, Any]:
    """Return a line without its checksum; ValueError if that does not fit."""
    if line.pop("sha256") != _sha256(line):
        raise ValueError("its checksum does not fit")
    return line


def _sha256(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _ends_with_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read(1) == b"\n")


def to_json(found: CollectedQuery) -> dict[str, Any]:
    """Return a line of the file as JSON values."""
    return {
        "format": FORMAT,
        "query_id": found.query_id,
        "sql_key": found.sql_key,
        "signature": found.signature,
        "look_ms": found.look_ms,
        "subplans": [[sorted(subplan), rows] for subplan, rows in found.subplans.items()],
        "attempts": [[attempt.slot.factor, attempt.slot.size, attempt.plan, attempt.elapsed_ms] for attempt in found.attempts],
        "plans": [
            {"slot": None if slot is None else [slot.factor, slot.size], **asdict(outcome), "plan": plan}
            for plan, slot, outcome in zip(found.plans, found.slots, found.outcomes, strict=True)
        ],
    }


def from_json(line: Mapping[str, Any]) -> CollectedQuery:
    """Read a line that `to_json` made; ValueError, KeyError, TypeError or IndexError for anything else."""
    if line["format"] != FORMAT:
        raise ValueError(f"format {line['format']!r}, expected {FORMAT}")
    plans = line["plans"]
    if not plans or not all("Node Type" in entry["plan"] for entry in plans):
        raise ValueError("it has no plans")
    return CollectedQuery(
        query_id=str(line["query_id"]),
        sql_key=str(line["sql_key"]),
        signature=str(line["signature"]),
        subplans={
            frozenset(aliases): float(rows) for aliases, rows in reversed(line["subplans"])
        },  # of equal ones in two levels, the first
        look_ms=float(line["look_ms"]),
        attempts=tuple(
            Attempt(slot=Slot(factor, size), plan=plan, elapsed_ms=elapsed_ms) for factor, size, plan, elapsed_ms in line["attempts"]
        ),
        plans=tuple(entry["plan"] for entry in plans),
        slots=tuple(None if entry["slot"] is None else Slot(*entry["slot"]) for entry in plans),
        outcomes=tuple(
            Outcome(warm_up_ms=entry["warm_up_ms"], times_ms=tuple(entry["times_ms"]), censored_ms=entry["censored_ms"]) for entry in plans
        ),
    )
