"""
Calibration: gates simulated on the noise of an A/A run, in which both sides are the same PostgreSQL.

A simulated gate compares two sessions with the noise of the A/A run (`gate.noise`).
"""

from __future__ import annotations

import math
import platform
from dataclasses import dataclass

import numpy as np

from pytest_pilotscope.gate.noise import Noise, rounded_up
from pytest_pilotscope.gate.rules import Policy
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE_AGAIN
from pytest_pilotscope.statistics.intervals import CONFIDENCE, holm_after_discarding, mean_ratios, workload_ratios
from pytest_pilotscope.statistics.pairs import Pairs, pairs_of

FALSE_ALARMS = 0.01
SESSIONS = 1000
QUERY_DELTAS = (0.05, 0.10, 0.15, 0.20, 0.30, 0.50, 0.75, 1.0, 2.0, 5.0, 10.0)
"""The limits for single queries that a calibration tries."""

FLOOR = 0.01
"""The smallest delta of the workload, also after a quiet calibration: one session does not show the differences between sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """
    The smallest deltas at which an unchanged program trips the gate in at most `false_alarms` of the sessions.

    `detectable` is the slow-down of the whole workload that a gate with `delta` catches in 95 % of the sessions. `query_delta` is None
    if even a factor of 11 happens by chance.
    """

    run_name: str
    machine: str
    delta: float
    query_delta: float | None
    detectable: float
    false_alarms: float
    sessions: int
    queries: int
    rounds: int

    @property
    def gate_delta(self) -> float:
        """The slow-down that the gate allows the workload."""
        return max(self.delta, FLOOR)

    @property
    def gate_detectable(self) -> float:
        """The slow-down of the workload that the gate catches in 95 % of the sessions."""
        return (1 + self.detectable) * (1 + self.gate_delta) / (1 + self.delta) - 1

    @property
    def gate_query_delta(self) -> float:
        """The slow-down that the gate allows a query: the default, or more on a noisy machine."""
        return max(QUERY_DELTAS[-1] if self.query_delta is None else self.query_delta, Policy().query_delta)


def calibrate(
    record: Record, *, side: str = BASELINE_AGAIN, false_alarms: float = FALSE_ALARMS, sessions: int = SESSIONS, seed: int = 0
) -> Calibration:
    """
    Simulate gates on the noise of an A/A run.

    Raise ValueError for a record that did not finish, that has no second baseline, or that has fewer than 2 rounds or 2 queries.
    """
    pairs = _checked(record, side)
    noise = Noise.of(pairs)
    random = np.random.default_rng(seed)
    lows, certain = [], np.zeros((sessions, len(QUERY_DELTAS)), dtype=np.bool_)
    for i in range(sessions):
        now, before = noise.sessions(random)
        ratios = workload_ratios(now, before, replicates=200, seed=i)
        lows.append(max(ratios.geometric_mean.low, ratios.total.low))
        certain[i] = _trips(now, before)
    delta = max(0.0, rounded_up(float(np.quantile(lows, 1 - false_alarms)) - 1))
    holding = (certain.mean(axis=0) <= false_alarms).nonzero()[0]
    return Calibration(
        run_name=record.header.run_name,
        machine=platform.node(),
        delta=delta,
        query_delta=QUERY_DELTAS[int(holding[0])] if holding.size else None,
        detectable=rounded_up((1 + delta) / float(np.quantile(lows, 0.05)) - 1),
        false_alarms=false_alarms,
        sessions=sessions,
        queries=len(pairs.query_ids),
        rounds=pairs.rounds,
    )


def _trips(now: Pairs, before: Pairs) -> list[bool]:
    """Tell for each of the tried limits if any query exceeds it."""
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
