"""
What difference this machine can hold: gates simulated on the noise of an A/A run, in which both sides are the same PostgreSQL.

A simulated session draws queries and rounds from the A/A pairs. Its two sides change places by the toss of a coin, because which of two
equal sides came out slower says nothing about the next run; what stays is by how much. A gate compares two such sessions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.core.pairs import Pairs, pairs_of
from pytest_pilotscope.core.record import Record
from pytest_pilotscope.core.results import BASELINE_AGAIN
from pytest_pilotscope.core.statistics import CONFIDENCE, WorkloadRatios, holm_after_discarding, mean_ratios, workload_ratios

Indices = npt.NDArray[np.int64]

FALSE_ALARMS = 0.01
SESSIONS = 1000
STEP = 0.001
"""Deltas are rounded up to this."""

QUERY_DELTAS = (0.05, 0.10, 0.15, 0.20, 0.30, 0.50, 0.75, 1.0, 2.0, 5.0, 10.0)
"""The single-query limits that are tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """
    The smallest deltas at which an unchanged program trips the gate in at most `false_alarms` of the sessions.

    `detectable` is the slow-down of the whole workload that a gate with `delta` catches in 95 % of the sessions. `query_delta` is None
    where even a factor of 11 happens by chance. `observed` is the A/A run's own ratio.
    """

    delta: float
    query_delta: float | None
    detectable: float
    false_alarms: float
    sessions: int
    queries: int
    rounds: int
    observed: WorkloadRatios


def calibrate(
    record: Record, *, side: str = BASELINE_AGAIN, false_alarms: float = FALSE_ALARMS, sessions: int = SESSIONS, seed: int = 0
) -> Calibration:
    """
    Simulate gates on the noise of an A/A run.

    Raises ValueError for a record that did not finish, that has no second baseline, or that has fewer than 2 rounds or 2 queries.
    """
    pairs = _checked(record, side)
    random = np.random.default_rng(seed)
    lows, certain = [], np.zeros((sessions, len(QUERY_DELTAS)), dtype=np.bool_)
    for i in range(sessions):
        now, before = resampled([pairs, pairs], random)
        ratios = workload_ratios(now, before, replicates=200, seed=i)
        lows.append(max(ratios.geometric_mean.low, ratios.total.low))
        certain[i] = _trips(now, before)
    delta = max(0.0, math.ceil((float(np.quantile(lows, 1 - false_alarms)) - 1) / STEP) * STEP)
    holding = (certain.mean(axis=0) <= false_alarms).nonzero()[0]
    return Calibration(
        delta=delta,
        query_delta=QUERY_DELTAS[int(holding[0])] if holding.size else None,
        detectable=math.ceil(((1 + delta) / float(np.quantile(lows, 0.05)) - 1) / STEP) * STEP,
        false_alarms=false_alarms,
        sessions=sessions,
        queries=len(pairs.query_ids),
        rounds=pairs.rounds,
        observed=workload_ratios(pairs, seed=seed),
    )


def resampled(sessions: Sequence[Pairs], random: np.random.Generator) -> list[Pairs]:
    """Sessions of the same, resampled queries, each with its own resampled rounds, and with its sides exchanged or not."""
    queries, rounds = sessions[0].baseline_ms.shape
    rows = random.integers(queries, size=(queries,))
    return [_session(pairs, rows, random.integers(rounds, size=(queries, rounds)), exchanged=random.random() < 0.5) for pairs in sessions]


def _session(pairs: Pairs, rows: Indices, columns: Indices, *, exchanged: bool) -> Pairs:
    times, timed_out = (pairs.baseline_ms, pairs.candidate_ms), (pairs.baseline_timed_out, pairs.candidate_timed_out)
    first, second = (1, 0) if exchanged else (0, 1)
    cells = rows[:, None], columns
    return Pairs(
        query_ids=tuple(pairs.query_ids[row] for row in rows.tolist()),
        baseline_ms=times[first][cells],
        candidate_ms=times[second][cells],
        baseline_timed_out=timed_out[first][cells],
        candidate_timed_out=timed_out[second][cells],
    )


def _trips(now: Pairs, before: Pairs) -> list[bool]:
    """For each of the tried limits: would any query trip it?"""
    ratios = mean_ratios(now, before)
    alpha = (1 - CONFIDENCE) / 2
    return [bool((holm_after_discarding(ratios.p_above(math.log1p(limit))) <= alpha).any()) for limit in QUERY_DELTAS]


def _checked(record: Record, side: str) -> Pairs:
    name = record.header.run_name
    if record.status != "FINISHED":
        raise ValueError(f"run {name!r} is {record.status}; calibrate with one that finished")
    if side not in record.header.sides:
        raise ValueError(f"run {name!r} has no side {side!r} but {list(record.header.sides)}; calibrate with an A/A run of the baseline")
    pairs = pairs_of(record, side)
    queries, rounds = pairs.baseline_ms.shape
    if queries < 2 or rounds < 2:
        raise ValueError(f"run {name!r} has {queries} queries with {rounds} rounds; calibrating needs at least 2 of each")
    return pairs
