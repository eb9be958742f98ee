"""
The regret of each side of a stream: the time that it took, minus that of PostgreSQL, and minus that of the best known side per query.

Regret is summed up over the stream, so its curve falls where a side saves time. The best known time of a statement is the shortest that any
side took for it on the same data, anywhere in the stream; its noise makes it too short, so that the regret against it is too large.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from statistics import median

from pytest_pilotscope.record.record import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """The regret of a side after each query, in ms: against PostgreSQL and against the best known time. It learned for `learning_ms`."""

    side: str
    against_baseline_ms: tuple[float, ...]
    against_best_ms: tuple[float, ...]
    learning_ms: float


def regrets_of(record: Record) -> dict[str, Regret]:
    """Return the regret of each side; none for a record without a stream."""
    times = _times_ms(record)
    states = {step.query_id: (record.header.queries.get(step.query_id), step.writes + (step.write is not None)) for step in record.steps}
    best: dict[object, float] = {}
    for (query_id, _), ms in times.items():
        if query_id in states:
            best[states[query_id]] = min(ms, best.get(states[query_id], ms))
    found = {}
    for side in record.header.sides:
        if steps := [step for step in record.steps if step.side == side]:
            over = [
                times.get((step.query_id, side), best.get(states[step.query_id], 0.0)) - best.get(states[step.query_id], 0.0)
                for step in steps
            ]
            found[side] = Regret(
                side=side,
                against_baseline_ms=tuple(step.regret_ms for step in steps),
                against_best_ms=tuple(accumulate(over)),
                learning_ms=sum(step.learning_ms for step in steps),
            )
    return found


def _times_ms(record: Record) -> Mapping[tuple[str, str], float]:
    """Return the median end-to-end time of each query on each side; none for one that failed."""
    times: dict[tuple[str, str], list[float]] = {}
    for run in record.runs:
        if not run.warm_up and run.error is None:
            times.setdefault((run.query_id, run.side), []).append(run.end_to_end_ms)
    return {key: median(found) for key, found in times.items()}
