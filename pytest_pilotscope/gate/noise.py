"""
The noise of a run, and simulated sessions with it.

A simulated session draws for each round a disturbance of one of the queries with the most similar noise. (Drawing from a query's own five
rounds would repeat some of them, and sessions would look less noisy than they are.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.statistics.intervals import LARGEST_LOG
from pytest_pilotscope.statistics.pairs import Floats, Pairs

Indices = npt.NDArray[np.int64]

NEIGHBOURS = 5
"""The number of queries with similar noise that share their disturbances."""

STEP = 0.001
"""The precision of slow-downs, which are rounded up."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Noise:
    """
    The noise of a run, in log ratios.

    `times_ms` (Q,) are the median times of the queries. `disturbances` (Q, NEIGHBOURS * R) are the deviations from the query's median, in
    the rounds of each query and of those with the most similar noise. `bias` is the slow-down of the second side over all queries.
    """

    times_ms: Floats
    disturbances: Floats
    bias: float
    rounds: int

    @classmethod
    def of(cls, pairs: Pairs) -> Noise:
        """Return the noise of a run."""
        ratios = pairs.log_ratios
        medians = np.median(ratios, axis=1, keepdims=True)
        deviations = ratios - medians
        order = np.argsort(np.median(np.abs(deviations), axis=1))
        window = np.clip(np.arange(len(order))[:, None] + np.arange(NEIGHBOURS) - NEIGHBOURS // 2, 0, len(order) - 1)
        disturbances = np.empty((len(order), NEIGHBOURS * pairs.rounds))
        disturbances[order] = deviations[order[window]].reshape(disturbances.shape)
        times_ms = np.median(pairs.baseline_ms, axis=1)
        return cls(times_ms=times_ms, disturbances=disturbances, bias=float(medians.mean()), rounds=pairs.rounds)

    def sessions(self, random: np.random.Generator) -> tuple[Pairs, Pairs]:
        """
        Draw queries, and return two independent sessions of them for an A/A run.

        Each keeps the total difference between the sides, but with a random sign, because in the next run the other of two equal sides may
        be the slower one.
        """
        rows = random.integers(len(self.times_ms), size=(len(self.times_ms),))
        signs = random.choice([-1.0, 1.0], size=2)
        now, before = (self._session(random, rows, np.full(len(rows), self.bias), sign) for sign in signs)
        return now, before

    def session(self, random: np.random.Generator, log_ratios: Floats) -> Pairs:
        """Return a session of the same queries whose true log ratios are these."""
        return self._session(random, np.arange(len(self.times_ms)), log_ratios, 1.0)

    def log_ratios(self, random: np.random.Generator, true: Floats) -> Floats:
        """Return the (Q, R) log ratios of a session of the same queries whose true log ratios are these."""
        return self._disturbed(random, np.arange(len(self.times_ms)), true)

    def _disturbed(self, random: np.random.Generator, rows: Indices, log_ratios: Floats) -> Floats:
        shape = (len(rows), self.rounds)
        chosen = random.integers(self.disturbances.shape[1], size=shape)
        return log_ratios[:, None] + self.disturbances[rows[:, None], chosen]

    def _session(self, random: np.random.Generator, rows: Indices, log_ratios: Floats, sign: float) -> Pairs:
        shape = (len(rows), self.rounds)
        baseline_ms = np.repeat(self.times_ms[rows, None], self.rounds, axis=1)
        nothing = np.zeros(shape, dtype=np.bool_)
        return Pairs(
            query_ids=tuple(map(str, rows.tolist())),
            baseline_ms=baseline_ms,
            candidate_ms=baseline_ms * np.exp(self._disturbed(random, rows, log_ratios) * sign),
            baseline_timed_out=nothing,
            candidate_timed_out=nothing,
        )


def slow_down(log: float) -> float:
    """Return the slow-down of a log ratio, rounded up; infinite for one that no number holds."""
    return rounded_up(math.expm1(log)) if log < LARGEST_LOG else math.inf


def rounded_up(slow_down: float) -> float:
    """Return a slow-down rounded up to a multiple of STEP."""
    return math.ceil(slow_down / STEP - 1e-9) * STEP if math.isfinite(slow_down) else math.inf
