"""
Candidate plans of a query: PostgreSQL's own, and its plans after the estimates of all joins of one size were scaled by a factor.

The call that gives PostgreSQL's own plan also gives the estimates; each further planner call is one message. The user waits for all of
them, so every call is counted and timed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.plans.shape import shape_key
from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.postgres.planning import RawPlan, planned_with, planned_with_subplans
from pytest_pilotscope.postgres.scans import MOST_ROWS
from pytest_pilotscope.postgres.steering import has_extension

if TYPE_CHECKING:
    from pytest_pilotscope.learning.algorithm import Cardinalities
    from pytest_pilotscope.postgres.session import Session


@dataclass(frozen=True, slots=True)
class Slot:
    """One way to look for a plan: multiply the estimates of all joins of `size` relations by `factor`."""

    factor: float
    size: int

    def cardinalities(self, subplans: Cardinalities) -> dict[frozenset[str], float]:
        """Return the changed estimates; the others stay PostgreSQL's. Rows are at least 1, the planner's own lower bound."""
        return {subplan: min(max(rows * self.factor, 1.0), MOST_ROWS) for subplan, rows in subplans.items() if len(subplan) == self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """PostgreSQL's own plan and estimates of a query, and the client's time to get them, in ms."""

    plan: RawPlan
    subplans: Cardinalities
    elapsed_ms: float

    @property
    def largest(self) -> int:
        """The number of relations of the largest subplan."""
        return max(map(len, self.subplans), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One planner call: its slot, the number of the resulting plan (0 is PostgreSQL's own), and the client's time, in ms."""

    slot: Slot
    plan: int
    elapsed_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """
    The distinct plans of a query, PostgreSQL's own first, with the slot that led to each first (None for the own one).

    `attempts` are the planner calls besides the one of the `look`.
    """

    look: Look
    plans: tuple[RawPlan, ...]
    slots: tuple[Slot | None, ...]
    attempts: tuple[Attempt, ...]

    @property
    def elapsed_ms(self) -> float:
        """The client's time for all planner calls, in ms."""
        return self.look.elapsed_ms + sum(attempt.elapsed_ms for attempt in self.attempts)

    @property
    def planner_calls(self) -> int:
        """The number of planner calls."""
        return 1 + len(self.attempts)

    def cardinalities(self, plan: int) -> dict[frozenset[str], float]:
        """Return the cardinalities that make PostgreSQL choose a plan; none for its own."""
        slot = self.slots[plan]
        return {} if slot is None else slot.cardinalities(self.look.subplans)


def look(session: Session, sql: str) -> Look:
    """Ask for PostgreSQL's own plan and its estimates, in one planner call. MissingExtension without the library."""
    if not has_extension(session):
        raise MissingExtension(
            f"{session.dsn} cannot be steered: the pilotscope library is not loaded, and lero chooses plans by injecting cardinalities; "
            "use the embedded server (--server embedded), or load the library (see docs/steering.md)"
        )
    started_ns = perf_counter_ns()
    plan, subplans = planned_with_subplans(session, sql)
    return Look(plan=plan, subplans=subplans, elapsed_ms=(perf_counter_ns() - started_ns) / 1e6)


def all_slots(subplans: Cardinalities, factors: Iterable[float]) -> list[Slot]:
    """Return every slot of a query in the order of the paper: largest joins first; without the factor 1, PostgreSQL's own plan."""
    largest = max(map(len, subplans), default=0)
    return [Slot(factor, size) for size in range(largest, 1, -1) for factor in factors if factor != 1]


def explore(
    session: Session, sql: str, found: Look, slots: Iterable[Slot], *, max_candidates: int, max_calls: int | None = None
) -> Candidates:
    """
    Plan once per slot and keep the distinct plans, until there are `max_candidates`, PostgreSQL's own among them, or after `max_calls`.

    It skips slots that change no estimate (rows are at least 1), or that change the same ones in the same way as an earlier slot.
    """
    plans: list[RawPlan] = [found.plan]
    ways: list[Slot | None] = [None]
    positions = {shape_key(found.plan): 0}
    attempts: list[Attempt] = []
    for slot, rows in _effective(found.subplans, slots):
        if len(plans) >= max_candidates or (max_calls is not None and len(attempts) >= max_calls):
            break
        started_ns = perf_counter_ns()
        plan = planned_with(session, sql, rows)
        position = positions.setdefault(shape_key(plan), len(plans))
        if position == len(plans):
            plans.append(plan)
            ways.append(slot)
        attempts.append(Attempt(slot=slot, plan=position, elapsed_ms=(perf_counter_ns() - started_ns) / 1e6))
    return Candidates(look=found, plans=tuple(plans), slots=tuple(ways), attempts=tuple(attempts))


def _effective(subplans: Cardinalities, slots: Iterable[Slot]) -> Iterable[tuple[Slot, Mapping[frozenset[str], float]]]:
    """Yield each slot with its cardinalities unless they equal, rounded as the planner does, those of an earlier slot."""
    own = {subplan: max(round(rows), 1) for subplan, rows in subplans.items()}
    seen: set[tuple[tuple[int, ...], int]] = set()
    for slot in slots:
        rows = slot.cardinalities(subplans)
        rounded = {subplan: round(number) for subplan, number in rows.items()}
        key = (tuple(rounded.values()), slot.size)
        if key in seen or all(own[subplan] == number for subplan, number in rounded.items()):
            continue
        seen.add(key)
        yield slot, rows
