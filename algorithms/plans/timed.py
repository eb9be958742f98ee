"""
Queries with timed plans, and a file of them: JSON Lines, one line per query, written as soon as the query is done.

A killed collection loses at most one query: the store ignores an incomplete line, and collects the query again. There is one file for each
state of the data, the statistics, the server and the rules of collecting, since another state gives other plans or other times.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from filelock import FileLock

from pytest_pilotscope.algorithms.plans.timing import Outcome
from pytest_pilotscope.places.privatefiles import open_private, private_folder
from pytest_pilotscope.postgres.planning import RawPlan

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedQuery:
    """The distinct plans of one query, EXPLAIN's nodes without conditions, PostgreSQL's own first, and their times in the same order."""

    query_id: str
    sql_key: str
    plans: tuple[RawPlan, ...]
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
    def best_ms(self) -> float | None:
        """The time of the fastest plan; None if none finished."""
        return min((ms for outcome in self.outcomes if (ms := outcome.ms) is not None), default=None)


Q = TypeVar("Q", bound=TimedQuery)


def sql_key(sql: str) -> str:
    """Identify a statement: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(sql.encode()).hexdigest()[:16]


def timed_json(found: TimedQuery) -> dict[str, Any]:
    """Return the fields of a `TimedQuery` as JSON values."""
    plans = [{**asdict(outcome), "plan": plan} for plan, outcome in zip(found.plans, found.outcomes, strict=True)]
    return {"query_id": found.query_id, "sql_key": found.sql_key, "plans": plans}


def timed_fields(line: Mapping[str, Any], format_number: int) -> dict[str, Any]:
    """Read the fields that `timed_json` wrote, in a line of this format; ValueError, KeyError or TypeError for anything else."""
    if line["format"] != format_number:
        raise ValueError(f"format {line['format']!r}, expected {format_number}")
    plans = line["plans"]
    if not plans or not all("Node Type" in entry["plan"] for entry in plans):
        raise ValueError("it has no plans")
    return {
        "query_id": str(line["query_id"]),
        "sql_key": str(line["sql_key"]),
        "plans": tuple(entry["plan"] for entry in plans),
        "outcomes": tuple(
            Outcome(warm_up_ms=entry["warm_up_ms"], times_ms=tuple(entry["times_ms"]), censored_ms=entry["censored_ms"]) for entry in plans
        ),
    }


@dataclass(slots=True)
class TimedStore(Generic[Q]):
    """
    One file of timed queries; `known` has them by the key of their SQL.

    `to_json` makes a line of a query. `from_json` reads one, and raises ValueError, KeyError, TypeError or IndexError for any other line.
    """

    path: Path
    to_json: Callable[[Q], dict[str, Any]]
    from_json: Callable[[Mapping[str, Any]], Q]
    known: dict[str, Q] = field(default_factory=dict)

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
                found = self.from_json(_checked(json.loads(line)))
            except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
                logger.warning("%s:%d is not a collected query (%s); it is collected again", self.path, number, error)
                continue
            self.known[found.sql_key] = found

    def add(self, found: Q) -> None:
        """Append a query; it is on disk when this returns."""
        content = self.to_json(found)
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
