"""
The workload's intervals of many repetitions of a run at once.

A repetition has the intervals of `intervals.workload_ratios`, but draws no noise: the spread of a sum over resampled queries follows from
their variances (by Fenton, 1960, a sum of lognormal times is nearly lognormal). All repetitions resample the same queries, as every gate
does, so the sums of all of them are products of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit

from pytest_pilotscope.statistics.intervals import REPLICATES, effective_queries, mean_log_ratios, moments, resampled
from pytest_pilotscope.statistics.pairs import Floats


def true_ratios(true: Sequence[Floats], times_ms: Sequence[Floats]) -> Floats:
    """Return the logs of the geometric mean and of the ratio of totals, if these (Q,) log ratios have no noise."""
    totals = [np.log((of_ms * np.exp(ratios)).sum() / of_ms.sum()) for ratios, of_ms in zip(true, times_ms, strict=True)]
    return np.array([_difference([ratios.mean() for ratios in true]), _difference(totals)])


def lower_ends(sessions: Sequence[Sequence[Floats]], times_ms: Sequence[Floats], confidence: float) -> Floats:
    """
    Return the lower ends of the intervals of the geometric mean and of the ratio of totals, as logs (repetitions, 2).

    `sessions` has the (Q, R) log ratios of each repetition, for the run and for its reference if there is one; `times_ms` has the (Q,)
    baseline times of each of the two.
    """
    medians_ms = [of_ms * np.exp(np.median(np.stack(one), axis=2)) for one, of_ms in zip(sessions, times_ms, strict=True)]
    totals = _difference([np.log(ms.sum(axis=1) / of_ms.sum()) for ms, of_ms in zip(medians_ms, times_ms, strict=True)])
    if (queries := len(times_ms[0])) == 1:  # there are no queries to resample, only rounds
        own = [mean_log_ratios(*repetition) for repetition in zip(*sessions, strict=True)]
        margin = np.stack([one.margin(confidence) for one in own])
        return np.stack([one.mean for one in own]) * [1, 0] + totals[:, None] * [0, 1] - margin
    of_sessions = [[np.stack(values) for values in zip(*map(moments, one), strict=True)] for one in sessions]
    means = _difference([mean for mean, _ in of_sessions])
    noise = sum(variance.mean(axis=1) for _, variance in of_sessions)
    spread = (means.var(axis=1) + noise) / queries
    of_totals = _variance_of_totals(medians_ms, [variance for _, variance in of_sessions], times_ms)
    margins = [
        stdtrit(max(1, round(number) - 1), (1 + confidence) / 2) * np.sqrt(variance * queries / (queries - 1))
        for number, variance in ((queries, spread), (min(map(effective_queries, times_ms)), of_totals))
    ]
    lows: Floats = np.stack([means.mean(axis=1), totals], axis=1) - np.stack(margins, axis=1)
    return lows


def _variance_of_totals(medians_ms: Sequence[Floats], variances: Sequence[Floats], times_ms: Sequence[Floats]) -> Floats:
    """Return the (repetitions,) variances of the logs of the ratios of totals, over the resampled queries and their noise."""
    queries, repetitions = len(times_ms[0]), len(medians_ms[0])
    counts = np.stack([np.bincount(row, minlength=queries) for row in resampled(queries, REPLICATES, 0)], axis=1).astype(np.float64)
    expected_ms = np.stack(medians_ms) * np.exp(np.stack(variances) / 2)
    summands = np.concatenate([expected_ms, expected_ms**2 * np.expm1(variances), np.stack(times_ms)[:, None]], axis=1)
    sums = (summands.reshape(-1, queries) @ counts).reshape(
        *summands.shape[:2], REPLICATES
    )  # one product: threads of each wait for the last
    sums_ms, squares, baselines_ms = np.split(sums, [repetitions, 2 * repetitions], axis=1)
    noise = np.log1p(squares / sums_ms**2)
    logs = np.log(sums_ms / baselines_ms) - noise / 2
    variances_of_logs: Floats = _difference(logs).var(axis=1, ddof=1) + noise.mean(axis=2).sum(axis=0)
    return variances_of_logs


def _difference(values: Sequence[Floats] | Floats) -> Floats:
    return values[0] if len(values) == 1 else values[0] - values[1]
