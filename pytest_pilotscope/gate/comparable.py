"""States that keep the gate from comparing a run with a reference; each has a name and a sentence, and none passes silently."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from pytest_pilotscope.errors import counted, named
from pytest_pilotscope.record.conditions import conditions_text
from pytest_pilotscope.record.record import Record

StateKind = Literal[
    "missing-reference",
    "unfinished",
    "unfinished-baseline",
    "parallel",
    "debug-build",
    "too-few-rounds",
    "missing-side",
    "missing-queries",
    "timed-out",
    "renamed-queries",
    "changed-queries",
    "new-queries",
    "empty",
    "missing-figures",
    "other-plans",
    "other-conditions",
    "other-build",
    "other-statistics",
    "other-data",
]

FEWEST_ROUNDS = 3
"""With fewer rounds, a single disturbed execution is half of the data about a query."""

_OTHER: Mapping[str, StateKind] = {"build": "other-build", "statistics": "other-statistics", "data": "other-data"}


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A reason why two runs are not, or only in part, comparable."""

    kind: StateKind
    text: str


MISSING_REFERENCE = State(
    kind="missing-reference", text="there is no reference to compare with; measure one with the same options and keep its record"
)


def states_of(candidate: Record) -> Iterator[State]:
    """Yield the states that make a run unfit for any gate: not finished, measured while other workers ran, or on a debug build."""
    if candidate.status != "FINISHED":
        yield State(kind="unfinished", text=f"the run is {candidate.status}, so it proves nothing; see its error and run it again")
    yield from _unfit(candidate, "the run")


def states_between(candidate: Record, reference: Record) -> Iterator[State]:
    """Yield the differences between a run and its reference, apart from the figures."""
    if reference.status != "FINISHED":
        yield State(kind="unfinished-baseline", text=f"the reference run is {reference.status}; measure it again")
    yield from _unfit(reference, "the reference")
    yield from _other_conditions(candidate, reference)
    yield from _other_sides(candidate, reference)
    yield from _other_queries(candidate, reference)
    yield from _other_plans(candidate, reference)


def same_queries(candidate: Record, reference: Record) -> tuple[str, ...]:
    """Return the ids of the queries that both runs planned with the same SQL."""
    theirs = reference.header.queries
    return tuple(query_id for query_id, sql in candidate.header.queries.items() if theirs.get(query_id) == sql)


def _unfit(record: Record, which: str) -> Iterator[State]:
    if record.header.parallel:
        yield State(kind="parallel", text=f"{which} measured beside other workers; measure without -n")
    if record.header.server.get("debug_assertions") in (True, "on"):
        yield State(
            kind="debug-build", text=f"{which} used a PostgreSQL built with assertions, which is 3-4 times slower; use a release build"
        )
    if record.header.rounds < FEWEST_ROUNDS:
        rounds = counted(record.header.rounds, "round")
        yield State(kind="too-few-rounds", text=f"{which} has {rounds}, which say too little about noise; use --rounds 5 or more")


def _other_conditions(candidate: Record, reference: Record) -> Iterator[State]:
    ours, theirs = candidate.header.fingerprints, reference.header.fingerprints
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            found = f"{ours.get(key, 'unknown')} here, {theirs.get(key, 'unknown')} in the reference"
            yield State(kind=_OTHER.get(key, "other-conditions"), text=f"the runs differ in {key}: {found}")
    if candidate.header.conditions != reference.header.conditions:
        here, there = (conditions_text(record.header.conditions) or "none" for record in (candidate, reference))
        yield State(kind="other-conditions", text=f"the runs differ in their conditions: {here} here, {there} in the reference")
    for side in candidate.header.sides:
        here, there = (record.header.variants.get(side, "no variant") for record in (candidate, reference))
        if here != there and side in reference.header.sides:
            yield State(kind="other-conditions", text=f"the runs differ in {side}: {here} here, {there} in the reference")


def _other_sides(candidate: Record, reference: Record) -> Iterator[State]:
    ours, theirs = candidate.header.sides, reference.header.sides
    if (here := candidate.header.baseline_side) != (there := reference.header.baseline_side):
        yield State(kind="missing-side", text=f"this run compares with {here}, the reference with {there}")
    if missing := [side for side in theirs if side not in ours]:
        yield State(kind="missing-side", text=f"the reference measured {named(missing)}, this run did not")
    if new := [side for side in ours if side not in theirs]:
        yield State(kind="missing-side", text=f"this run measured {named(new)}, the reference did not")


def _other_queries(candidate: Record, reference: Record) -> Iterator[State]:
    ours, theirs = candidate.header.queries, reference.header.queries
    missing = [query_id for query_id in theirs if query_id not in ours]
    new = [query_id for query_id in ours if query_id not in theirs]
    new_name = {ours[query_id]: query_id for query_id in new}
    renamed = {query_id: new_name[theirs[query_id]] for query_id in missing if theirs[query_id] in new_name}
    missing = [query_id for query_id in missing if query_id not in renamed]
    new = [query_id for query_id in new if query_id not in renamed.values()]
    changed = [query_id for query_id in ours if query_id in theirs and ours[query_id] != theirs[query_id]]
    if renamed:
        names = named(f"{old} is now {now}" for old, now in renamed.items())
        yield State(kind="renamed-queries", text=f"{_queries(renamed)} of the reference renamed: {names}")
    if missing:
        yield State(kind="missing-queries", text=f"{_queries(missing)} of the reference not in this run: {named(missing)}")
    if new:
        yield State(kind="new-queries", text=f"{_queries(new)} of this run not in the reference: {named(new)}")
    if changed:
        yield State(kind="changed-queries", text=f"{_queries(changed)} with other SQL under the same id: {named(changed)}")


def _queries(ids: Collection[str]) -> str:
    return counted(len(ids), "query", "queries")


def _other_plans(candidate: Record, reference: Record) -> Iterator[State]:
    ours, theirs = _baseline_shapes(candidate), _baseline_shapes(reference)
    comparable = [query_id for query_id in same_queries(candidate, reference) if query_id in ours and query_id in theirs]
    if other := [query_id for query_id in comparable if ours[query_id] != theirs[query_id]]:
        yield State(kind="other-plans", text=f"PostgreSQL itself plans {_queries(other)} differently than in the reference: {named(other)}")


def _baseline_shapes(record: Record) -> dict[str, str]:
    side = record.header.baseline_side
    return {report.query_id: report.plan_shape for report in record.reports if report.side == side and report.plan_shape is not None}
