"""
The smallest slow-down that a run would have caught in 19 of 20 cases.

Simulated repetitions of the run, and of its reference, have their queries and their noise, and go through the rule of the gate. A slow-down
moves every interval by its logarithm and changes no width, so each repetition tells the slow-down from which on it fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pytest_pilotscope.gate.noise import STEP, Noise, slow_down
from pytest_pilotscope.statistics.intervals import (
    CONFIDENCE,
    MeanRatios,
    increases_until_certain,
    mean_log_ratios,
    mean_ratios,
)
from pytest_pilotscope.statistics.pairs import Floats, Pairs
from pytest_pilotscope.statistics.repeated import lower_ends, true_ratios

CAUGHT = 0.95
"""The share of repetitions that catch the slow-down."""

REPETITIONS = 200

SHORT = 100
"""Repetitions to decide between two rounds if there are more to come."""

AT_ONCE = 10
"""Repetitions after which a decision is looked at: most runs that see too little show it in a few of them."""

BETWEEN_SESSIONS = 0.003
"""The spread of the log ratio of two equal connections, which lasts as long as they do, so that a single run does not show it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """The slow-downs of the workload and of a single query that a run would have caught 19 times in 20 (0.06 is 6 %); infinite if none."""

    workload: float
    query: float


def largest_seen(delta: float) -> float:
    """
    Return the largest slow-down that a gate may need to fail without being called blind.

    A gate fails if a slow-down is above `delta` with certainty, so it catches one of exactly `delta` hardly ever. Its noise may cost as
    much again.
    """
    return (1 + delta) ** 2 - 1


def power_of(pairs: Pairs, reference: Pairs | None, delta: float, query_delta: float, confidence: float = CONFIDENCE) -> Power:
    """Simulate repetitions of a run, and of its reference if there is one; `reference` has the same queries in the same order."""
    workloads, queries = _Simulation.of(pairs, reference, delta, query_delta, confidence).repeated(REPETITIONS)
    workload = float(np.quantile(workloads, CAUGHT, method="higher"))
    query = float(np.quantile(queries, CAUGHT, method="higher"))
    return Power(workload=slow_down(workload), query=slow_down(query))


def sees_enough(pairs: Pairs, delta: float, query_delta: float) -> bool:
    """
    Tell whether a gate between this run and another one with the same noise would not be blind.

    The run is compared with itself, so only the widths of its intervals count, never their positions: a run does not end because its result
    is a fortunate one. Too many repetitions that miss a slow-down decide early what all of them would decide.
    """
    if not pairs.query_ids:
        return True
    simulation = _Simulation.of(pairs, pairs, delta, query_delta, CONFIDENCE)
    seen = [_largest_log(largest_seen(limit)) for limit in (delta, query_delta)]
    may_miss = [_may_miss(SHORT), _may_miss(SHORT * len(pairs.query_ids))]
    missed = [0, 0]
    for _ in range(SHORT // AT_ONCE):
        for kind, logs in enumerate(simulation.repeated(AT_ONCE)):
            missed[kind] += int((logs > seen[kind]).sum())
            if missed[kind] > may_miss[kind]:
                return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Simulation:
    """
    Repetitions of a run, and of its reference if there is one, each with its `noise` and its `true` log ratios (Q,).

    `differences` (Q,) are the true log ratios between the two, `logs` the logs of what the gate allows the workload and a query.
    """

    noise: Sequence[Noise]
    true: Sequence[Floats]
    differences: Floats
    logs: tuple[float, float]
    confidence: float
    random: np.random.Generator

    @classmethod
    def of(cls, pairs: Pairs, reference: Pairs | None, delta: float, query_delta: float, confidence: float) -> _Simulation:
        noise = [Noise.of(session) for session in (pairs, reference) if session is not None]
        differences = _true_differences(mean_ratios(pairs, reference))
        before = np.zeros_like(differences) if reference is None else np.median(reference.log_ratios, axis=1)
        return cls(
            noise=noise,
            true=[before + differences, before][: len(noise)],
            differences=differences,
            logs=(math.log1p(delta), math.log1p(query_delta)),
            confidence=confidence,
            random=np.random.default_rng(0),
        )

    def repeated(self, repetitions: int) -> tuple[Floats, Floats]:
        """Return the logs of the slow-downs from which on each repetition fails: of the workload (repetitions,), of a query (..., Q)."""
        sessions = [self._sessions() for _ in range(repetitions)]
        alpha = (1 - self.confidence) / 2
        increases = [increases_until_certain(mean_log_ratios(*session), self.logs[1], alpha) for session in sessions]
        times_ms = [one.times_ms for one in self.noise]
        lows = lower_ends(list(zip(*sessions, strict=True)), times_ms, self.confidence)
        true = true_ratios(self.true, times_ms)
        return self.logs[0] - (lows - true).max(axis=1), self.differences + np.stack(increases)

    def _sessions(self) -> list[Floats]:
        """Return the (Q, R) log ratios of one repetition of each session."""
        luck = self.random.normal(0, BETWEEN_SESSIONS, len(self.noise))
        return [one.log_ratios(self.random, logs + its) for one, logs, its in zip(self.noise, self.true, luck, strict=True)]


def _largest_log(slow_down: float) -> float:
    """Return the log of the largest slow-down that is not above this one after it was rounded up."""
    return math.log1p((math.floor(slow_down / STEP) + 1e-9) * STEP)


def _may_miss(number: int) -> int:
    """Return how many of these slow-downs may be above their quantile."""
    return number - 1 - math.ceil(CAUGHT * (number - 1))


def _true_differences(ratios: MeanRatios) -> Floats:
    """Return the (Q,) log ratios around their mean, shrunken to the spread that remains of it without the noise."""
    centred: Floats = ratios.mean - ratios.mean.mean()
    spread = float(centred.var())
    return centred * math.sqrt(max(0.0, 1 - float((ratios.error**2).mean()) / spread)) if spread > 0 else centred
