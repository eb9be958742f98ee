"""
Candidate plans of a query: PostgreSQL's own, and what it makes of its estimates when those of all joins of one size are wrong by a factor.

The estimates are enumerated once, by the call that gives PostgreSQL's own plan; each further planner call is one message. All of this is
time that a user waits, so every call is counted and timed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.postgres.planning import RawPlan, planned_with, planned_with_subplans
from pytest_pilotscope.postgres.steering import has_extension

if TYPE_CHECKING:
    from pytest_pilotscope.learning.algorithm import Cardinalities
    from pytest_pilotscope.postgres.session import Session

_LARGEST_ROWS = 1e100
_SHAPE = (
    *("Node Type", "Join Type", "Strategy", "Partial Mode", "Operation", "Command", "Relation Name", "Alias", "Index Name"),
    *("Scan Direction", "CTE Name", "Function Name", "Parent Relationship", "Subplan Name"),
)


@dataclass(frozen=True, slots=True)
class Slot:
    """One way to look for a plan: multiply the estimates of all joins of `size` relations by `factor`."""

    factor: float
    size: int

    def cardinalities(self, subplans: Cardinalities) -> dict[frozenset[str], float]:
        """Return the changed estimates; the others stay PostgreSQL's. Rows are at least 1, as the planner would take them anyway."""
        return {
            subplan: min(max(rows * self.factor, 1.0), _LARGEST_ROWS) for subplan, rows in subplans.items() if len(subplan) == self.size
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """PostgreSQL's own plan and estimates of a query, and what it took to ask for them, in ms of the client."""

    plan: RawPlan
    subplans: Cardinalities
    elapsed_ms: float

    @property
    def largest(self) -> int:
        """How many relations the largest subplan has."""
        return max(map(len, self.subplans), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One planner call: which slot, the plan it led to (0 is PostgreSQL's own), and what it took, in ms of the client."""

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
        """What all planner calls took, in ms of the client."""
        return self.look.elapsed_ms + sum(attempt.elapsed_ms for attempt in self.attempts)

    @property
    def planner_calls(self) -> int:
        """How often PostgreSQL planned."""
        return 1 + len(self.attempts)

    def cardinalities(self, plan: int) -> dict[frozenset[str], float]:
        """What to inject for PostgreSQL to run a plan: nothing for its own."""
        slot = self.slots[plan]
        return {} if slot is None else slot.cardinalities(self.look.subplans)


def look(session: Session, sql: str) -> Look:
    """Ask for PostgreSQL's own plan and the estimates behind it, in one planner call. MissingExtension without the library."""
    if not has_extension(session):
        raise MissingExtension(
            f"{session.dsn} cannot be steered: the pilotscope library is not loaded, and lero chooses plans by injecting cardinalities; "
            "use the embedded server (--server embedded), or load the library (see docs/steering.md)"
        )
    started_ns = perf_counter_ns()
    plan, subplans = planned_with_subplans(session, sql)
    return Look(plan=plan, subplans=subplans, elapsed_ms=(perf_counter_ns() - started_ns) / 1e6)


def all_slots(subplans: Cardinalities, factors: Iterable[float]) -> list[Slot]:
    """Every slot of a query in the order of the paper: largest joins first. The factor 1 is PostgreSQL's own plan and left out."""
    largest = max(map(len, subplans), default=0)
    return [Slot(factor, size) for size in range(largest, 1, -1) for factor in factors if factor != 1]


def explore(
    session: Session, sql: str, found: Look, slots: Iterable[Slot], *, max_candidates: int, max_calls: int | None = None
) -> Candidates:
    """
    Plan once per slot and keep the distinct plans, until there are `max_candidates`, PostgreSQL's own among them, or after `max_calls`.

    Slots that change no estimate (rows are at least 1), or the same ones in the same way as an earlier slot, are not tried.
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
    """Each slot with its cardinalities, rounded as the planner does, unless they are known already."""
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


def shape_key(plan: RawPlan) -> tuple[Any, ...]:
    """
    Return what makes two plans the same: equal for exactly those whose `Plan.shape_hash` is, and ten times cheaper than parsing both.
    """
    get = plan.get
    children: Sequence[RawPlan] = get("Plans", ())
    return (*[get(name) for name in _SHAPE], get("Parallel Aware", False), *[shape_key(child) for child in children])
