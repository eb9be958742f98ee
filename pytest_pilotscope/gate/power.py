"""
The smallest slow-down that a run would have caught in 19 of 20 cases.

Simulated repetitions of the run, and of its reference, have their queries and their noise, and go through the rule of the gate. A slow-down
moves every interval by its logarithm and changes no width, so each repetition tells the slow-down from which on it fails.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pytest_pilotscope.gate.noise import Noise, rounded_up
from pytest_pilotscope.statistics.intervals import (
    CONFIDENCE,
    LARGEST_LOG,
    MeanRatios,
    WorkloadRatios,
    increases_until_certain,
    mean_ratios,
    workload_ratios,
)
from pytest_pilotscope.statistics.pairs import Floats, Pairs

CAUGHT = 0.95
"""The share of repetitions that catch the slow-down."""

REPETITIONS = 200
REPLICATES = 200
"""Draws of each bootstrap of a repetition."""

SHORT = 100
"""Repetitions to decide between two rounds if there are more to come."""

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


def power_of(
    pairs: Pairs,
    reference: Pairs | None,
    delta: float,
    query_delta: float,
    confidence: float = CONFIDENCE,
    *,
    repetitions: int = REPETITIONS,
) -> Power:
    """Simulate repetitions of a run, and of its reference if there is one; `reference` has the same queries in the same order."""
    random = np.random.default_rng(0)
    noise = [Noise.of(session) for session in (pairs, reference) if session is not None]
    differences = _true_differences(mean_ratios(pairs, reference))
    before = np.zeros_like(differences) if reference is None else np.median(reference.log_ratios, axis=1)
    true = [before + differences, before][: len(noise)]
    without_noise = workload_ratios(*(_undisturbed(one, log_ratios) for one, log_ratios in zip(noise, true, strict=True)), replicates=2)
    lows = np.empty(repetitions)
    queries = np.empty((repetitions, len(differences)))
    for i in range(repetitions):
        luck = random.normal(0, BETWEEN_SESSIONS, len(noise))
        sessions = [one.session(random, log_ratios + its) for one, log_ratios, its in zip(noise, true, luck, strict=True)]
        lows[i] = _low(workload_ratios(*sessions, confidence=confidence, replicates=REPLICATES, seed=i), without_noise)
        queries[i] = differences + increases_until_certain(mean_ratios(*sessions), math.log1p(query_delta), (1 - confidence) / 2)
    low = float(np.quantile(lows, 1 - CAUGHT, method="lower"))
    query = float(np.quantile(queries, CAUGHT, method="higher"))
    return Power(
        workload=rounded_up((1 + delta) / low - 1) if low > 0 else math.inf,
        query=rounded_up(math.expm1(query)) if query < LARGEST_LOG else math.inf,
    )


def sees_enough(pairs: Pairs, delta: float, query_delta: float) -> bool:
    """
    Tell whether a gate between this run and another one with the same noise would not be blind.

    The run is compared with itself, so only the widths of its intervals count, never their positions: a run does not end because its result
    is a fortunate one.
    """
    if not pairs.query_ids:
        return True
    power = power_of(pairs, pairs, delta, query_delta, repetitions=SHORT)
    return power.workload <= largest_seen(delta) and power.query <= largest_seen(query_delta)


def _true_differences(ratios: MeanRatios) -> Floats:
    """Return the (Q,) log ratios around their mean, shrunken to the spread that remains of it without the noise."""
    centred: Floats = ratios.mean - ratios.mean.mean()
    spread = float(centred.var())
    return centred * math.sqrt(max(0.0, 1 - float((ratios.error**2).mean()) / spread)) if spread > 0 else centred


def _undisturbed(noise: Noise, log_ratios: Floats) -> Pairs:
    silent = Noise(times_ms=noise.times_ms, disturbances=np.zeros_like(noise.disturbances), bias=0.0, rounds=noise.rounds)
    return silent.session(np.random.default_rng(0), log_ratios)


def _low(ratios: WorkloadRatios, true: WorkloadRatios) -> float:
    """Return the larger lower end of the two ratios to their true values: the gate fails if either is above the limit."""
    return max(ratios.geometric_mean.low / true.geometric_mean.estimate, ratios.total.low / true.total.estimate)
