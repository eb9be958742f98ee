"""
Simulated measurements with the noise of real machines.

The figures are those the protocol was designed on: the log ratio of two executions of the same query has a standard deviation of 0.037 when
they are measured apart and 0.023 when they take turns, so there is a fast part, which is independent from run to run, and a slow one that
neighbouring runs share. Besides, the whole session drifts by some percent, some executions are disturbed (1 in 100, by 70 % on average),
and the second connection may be a little luckier than the first for as long as it lives (0.3 %).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pytest_pilotscope.statistics.pairs import Floats, Pairs

APART, IN_TURNS = 0.037, 0.023
FAST = IN_TURNS / np.sqrt(2)
SLOW = np.sqrt((APART**2 - IN_TURNS**2) / 2)
MEMORY = 0.98
DRIFT = 0.05
DISTURBED, DISTURBANCE = 0.01, 0.7
LUCK = 0.003


def recorded(name: str = "recorded_noise") -> Pairs:
    """
    Return a real A/A run.

    `recorded_noise` is from a machine that was busy with other work. `quiet_noise` had two cores to itself (real-time priority), and
    `loaded_noise` shared them with four busy processes. `python -m tests.gate.power RECORD` makes such a file.
    """
    file = json.loads(Path(__file__).with_name(f"{name}.json").read_text(encoding="utf-8"))
    times_ms = np.array(file["relative_times"]) * np.array(file["median_ms"])[:, None, None]  # (query, side, round)
    return a_against_a(times_ms[:, 0], times_ms[:, 1])


def a_against_a(baseline_ms: Floats, candidate_ms: Floats) -> Pairs:
    """Return pairs without time-outs."""
    nothing = np.zeros(baseline_ms.shape, dtype=np.bool_)
    return Pairs(
        query_ids=tuple(f"q{n}" for n in range(len(baseline_ms))),
        baseline_ms=baseline_ms,
        candidate_ms=candidate_ms,
        baseline_timed_out=nothing,
        candidate_timed_out=nothing,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A workload of `queries` with unevenly long times, measured in `rounds`; `unlike` is the spread of the log noise of its queries."""

    queries: int = 50
    rounds: int = 5
    unevenness: float = 1.3
    unlike: float = 0.0

    def sessions(self, number: int, random: np.random.Generator, *, slowdown: float = 1.0, slow_query: float = 1.0) -> Iterator[Pairs]:
        """
        Yield A/A sessions of two connections whose order alternates from round to round.

        `slowdown` is the true ratio of the whole workload, `slow_query` that of the query in the middle (by position).
        """
        noise = self._noise(number, random)
        true_ms = np.exp(np.random.default_rng(1).normal(np.log(15), self.unevenness, self.queries))[:, None]
        ratios = np.full((self.queries, 1), slowdown)
        ratios[self.queries // 2] *= slow_query
        luck = np.exp(random.normal(0, LUCK, number))
        for i in range(number):
            yield a_against_a(true_ms * noise[i, :, :, 0], true_ms * ratios * luck[i] * noise[i, :, :, 1])

    def _noise(self, number: int, random: np.random.Generator) -> Floats:
        """Return (number, queries, rounds, 2) factors on the true times; the sides take turns at being first."""
        runs = self.queries * self.rounds * 2
        slow = np.empty((number, runs))
        state = random.normal(0, SLOW, number)
        for i in range(runs):
            state = MEMORY * state + random.normal(0, SLOW * np.sqrt(1 - MEMORY**2), number)
            slow[:, i] = state
        drift = np.linspace(0, 1, runs) * random.normal(0, DRIFT, (number, 1))
        disturbance = np.where(random.random(slow.shape) < DISTURBED, 1 + random.exponential(DISTURBANCE, slow.shape), 1)
        noisiness = np.repeat(np.exp(np.random.default_rng(2).normal(0, self.unlike, self.queries)), self.rounds * 2)
        factors = np.exp(slow + drift + random.normal(0, FAST, slow.shape) * noisiness) * disturbance
        in_order: Floats = factors.reshape(number, self.queries, self.rounds, 2)
        in_order[:, :, 1::2] = in_order[:, :, 1::2, ::-1]
        return in_order
