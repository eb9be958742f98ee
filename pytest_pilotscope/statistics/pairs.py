"""Pairs of executions: the two sides of one query in one round, the unit of every comparison."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryRun

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pairs:
    """
    The end-to-end times of two sides in ms, by query (rows, Q) and round (columns, R).

    A timed-out run counts with its limit, a lower bound of its time; if both sides timed out, the pair is a tie. `left_out` maps each query
    without complete rounds on both sides to the reason. `at_once` says that the queries of a round ran at the same time, as those of
    clients do: what disturbs one disturbs them all.
    """

    query_ids: tuple[str, ...]
    baseline_ms: Floats
    candidate_ms: Floats
    baseline_timed_out: Bools
    candidate_timed_out: Bools
    left_out: Mapping[str, str] = field(default_factory=dict)
    at_once: bool = False

    @property
    def rounds(self) -> int:
        """The number of rounds, equal for all queries."""
        return int(self.baseline_ms.shape[1])

    @property
    def log_ratios(self) -> Floats:
        """(Q, R): log(candidate / baseline); positive is slower, 0 where both timed out."""
        return np.log(self.candidate_ms / self.baseline_ms)

    def restricted_to(self, query_ids: Sequence[str]) -> Pairs:
        """Return the pairs of these queries, in this order; raise KeyError for a query without pairs."""
        row = {query_id: i for i, query_id in enumerate(self.query_ids)}
        rows = [row[query_id] for query_id in query_ids]
        return replace(
            self,
            query_ids=tuple(query_ids),
            baseline_ms=self.baseline_ms[rows],
            candidate_ms=self.candidate_ms[rows],
            baseline_timed_out=self.baseline_timed_out[rows],
            candidate_timed_out=self.candidate_timed_out[rows],
            left_out={},
        )


def pairs_of(record: Record, side: str) -> Pairs:
    """
    Pair the measured rounds of `side` with those of the record's baseline side.

    A query counts if both sides have all rounds of the record and none of them failed; the others are in `left_out`.
    """
    baseline = _rounds(record.measured(record.header.baseline_side))
    candidate = _rounds(record.measured(side))
    failed = {run.query_id for run in record.runs if run.error is not None and run.side in (side, record.header.baseline_side)}
    left_out: dict[str, str] = {}
    chosen: list[tuple[str, list[QueryRun], list[QueryRun]]] = []
    for query_id in record.query_ids():
        ours, theirs = candidate.get(query_id, {}), baseline.get(query_id, {})
        reason = "failed" if query_id in failed else _reason_to_leave_out(ours, theirs, record.header.rounds)
        if reason:
            left_out[query_id] = reason
        else:
            rounds = sorted(ours.keys() & theirs.keys())[: record.header.rounds]
            chosen.append((query_id, [theirs[n] for n in rounds], [ours[n] for n in rounds]))
    return replace(_matrix(chosen, record.header.rounds, left_out), at_once=bool(record.slices))


def _rounds(runs: Iterable[QueryRun]) -> dict[str, dict[int, QueryRun]]:
    by_query: dict[str, dict[int, list[QueryRun]]] = {}
    for run in runs:
        by_query.setdefault(run.query_id, {}).setdefault(run.repetition, []).append(run)
    return {query_id: {number: _mean(of_round) for number, of_round in rounds.items()} for query_id, rounds in by_query.items()}


def _mean(runs: Sequence[QueryRun]) -> QueryRun:
    """Return the mean of the clients that ran a query in one round: what they share, such as the load, makes no pair of its own."""
    if len(runs) == 1:
        return runs[0]
    names = ("inference_ms", "planning_ms", "execution_ms")
    means: dict[str, Any] = {name: fmean(getattr(run, name) for run in runs) for name in names}
    return replace(runs[0], timed_out=any(run.timed_out for run in runs), **means)


def _reason_to_leave_out(ours: Mapping[int, QueryRun], theirs: Mapping[int, QueryRun], rounds: int) -> str:
    if (not ours and not theirs) or rounds < 1:
        return "not measured"
    both = len(ours.keys() & theirs.keys())
    return f"measured in {both} of {rounds} rounds" if both < rounds else ""


def _matrix(chosen: Sequence[tuple[str, list[QueryRun], list[QueryRun]]], rounds: int, left_out: Mapping[str, str]) -> Pairs:
    shape = (len(chosen), rounds)
    baseline = [runs for _, runs, _ in chosen]
    candidate = [runs for _, _, runs in chosen]
    baseline_timed_out = np.array([[run.timed_out for run in runs] for runs in baseline], dtype=np.bool_).reshape(shape)
    candidate_timed_out = np.array([[run.timed_out for run in runs] for runs in candidate], dtype=np.bool_).reshape(shape)
    baseline_ms = _times_ms(baseline, shape)
    candidate_ms = _times_ms(candidate, shape)
    tied = np.where(baseline_timed_out & candidate_timed_out, np.maximum(baseline_ms, candidate_ms), 0.0)
    return Pairs(
        query_ids=tuple(query_id for query_id, _, _ in chosen),
        baseline_ms=np.where(tied > 0, tied, baseline_ms),
        candidate_ms=np.where(tied > 0, tied, candidate_ms),
        baseline_timed_out=baseline_timed_out,
        candidate_timed_out=candidate_timed_out,
        left_out=left_out,
    )


CLOCK_RESOLUTION_MS = 0.001
"""The resolution of EXPLAIN's timing; shorter times count as this long, so that a ratio always exists."""


def _times_ms(runs: Sequence[Sequence[QueryRun]], shape: tuple[int, int]) -> Floats:
    times_ms = np.array([[run.end_to_end_ms for run in row] for row in runs], dtype=np.float64).reshape(shape)
    return np.maximum(times_ms, CLOCK_RESOLUTION_MS)
