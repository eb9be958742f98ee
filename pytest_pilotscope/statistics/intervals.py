"""
Ratios of times with confidence intervals, for the workload and for single queries, corrected for multiple tests.

All functions use log(candidate / baseline) of pairs from the same round. The ratio of a query is the geometric mean of its pairs. Its
interval is Student's t with a moderated variance: five values are too few to resample.

The workload's interval comes from a hierarchical bootstrap: it resamples queries, and moves each resampled query within its own error.
(Resampling five rounds instead picks the same outlier twice in a quarter of all cases and makes the interval 3-10 times too wide.)
In the geometric mean, a query counts with the mean of its rounds without the highest and lowest fifth, and with the error of that mean
(Yuen, Biometrika 1974), so that one disturbed execution among five neither makes nor hides a difference. The interval is Student's t with
the spread of the draws, because their percentiles are far too narrow for few queries, and for a total that a few slow queries dominate.

Queries that ran at once share what disturbs their round, so resampling them makes the interval too narrow: it is then at least as wide as
Student's t from round to round.

With a reference, the ratio is the pairs' ratio divided by the reference's ratio, which is comparable between machines. The tests check the
coverage of all intervals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from pytest_pilotscope.statistics.moderation import moderated
from pytest_pilotscope.statistics.pairs import Floats, Pairs

CONFIDENCE = 0.95
REPLICATES = 500
"""Draws of the bootstrap: enough to know their standard deviation, the only value used, within 3 %."""

TRIMMED = 0.2
"""The share of a query's rounds left out at either end in means over queries."""

FEWEST_ROUNDS = 3
"""Fewer rounds do not show how much they differ: two that happen to be alike would have an interval of no width."""

MEDIAN_ERROR = math.sqrt(math.pi / 2)
"""The standard error of a median over that of a mean. The total is of medians."""

DISCARDED = 0.5
"""Hypotheses with larger p-values are discarded: the ratio is below the limit that it is tested against."""

LARGEST_LOG = 700.0
"""The exponential of a larger log is infinite in floating point."""

Outcome = Literal["win", "loss", "tie"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A ratio with the ends of its confidence interval; the ends are 0 and infinity if the data have no spread to estimate it from."""

    estimate: float
    low: float
    high: float

    @property
    def inverse(self) -> Interval:
        """The interval of 1 / ratio: a speed-up for a slow-down."""
        return Interval(estimate=1 / self.estimate, low=1 / self.high, high=1 / self.low if self.low > 0 else math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRatios:
    """Candidate / baseline over the whole workload: the geometric mean of the queries' ratios, and the ratio of the total times."""

    geometric_mean: Interval
    total: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRatio:
    """Candidate / baseline of one query, and its significance after correction for all queries."""

    query_id: str
    ratio: Interval
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeanRatios:
    """The mean log ratio of each query, its moderated standard error, and the degrees of freedom of that error; each (Q,)."""

    mean: Floats
    error: Floats
    freedom: npt.NDArray[np.int64]

    def p_above(self, threshold: float) -> Floats:
        """Return the (Q,) one-sided p-values of the hypothesis that the log ratio is at most `threshold`."""
        return self._tail(_studentized(self.mean - threshold, self.error))

    def p_different(self) -> Floats:
        """Return the (Q,) two-sided p-values of the hypothesis that there is no difference."""
        return np.minimum(1.0, 2 * self._tail(np.abs(_studentized(self.mean, self.error))))

    def _tail(self, t: Floats) -> Floats:
        """Return the upper tail probabilities of Student's t; 1 if a single round leaves no degree of freedom."""
        return np.where(self.freedom > 0, stdtr(np.maximum(self.freedom, 1), -t), 1.0)

    def margin(self, confidence: float) -> Floats:
        """Return (Q,) half the width of the interval of each log ratio; infinite for a single round."""
        quantiles = stdtrit(np.maximum(self.freedom, 1), (1 + confidence) / 2)
        return np.where(self.freedom > 0, quantiles * self.error, math.inf)


def workload_ratios(
    pairs: Pairs, reference: Pairs | None = None, *, confidence: float = CONFIDENCE, replicates: int = REPLICATES, seed: int = 0
) -> WorkloadRatios:
    """
    Return the workload's ratios and their intervals.

    A `reference` has the same queries in the same order. Raise ValueError for pairs without queries.
    """
    if not pairs.query_ids:
        raise ValueError("there is no pair to compare: no query ran to the end on both sides")
    sessions = [pairs] if reference is None else [pairs, reference]
    geometric, total = (float(estimate) for estimate in _differences([_log_estimates(session) for session in sessions]))
    if len(pairs.query_ids) == 1:  # there are no queries to resample, only rounds
        own = mean_ratios(pairs, reference)
        margin = float(own.margin(confidence)[0])
        return WorkloadRatios(geometric_mean=exponentiated(float(own.mean[0]), margin), total=exponentiated(total, margin))
    draws = _differences([_bootstrap(session, replicates, seed, salt) for salt, session in enumerate(sessions)])
    effective = min(effective_queries(np.median(session.baseline_ms, axis=1)) for session in sessions)
    margins = [
        float(stdtrit(max(1, round(number) - 1), (1 + confidence) / 2)) * float(np.std(draw, ddof=1))
        for draw, number in zip(draws, (len(pairs.query_ids), effective), strict=True)
    ]
    unbiased = math.sqrt(len(pairs.query_ids) / (len(pairs.query_ids) - 1))
    shared = _shared_margins(sessions, confidence) if pairs.at_once else np.zeros(2)
    of_mean, of_total = (max(margin * unbiased, float(other)) for margin, other in zip(margins, shared, strict=True))
    return WorkloadRatios(geometric_mean=exponentiated(geometric, of_mean), total=exponentiated(total, of_total))


def _shared_margins(sessions: Sequence[Pairs], confidence: float) -> Floats:
    """Return (2,) half the widths of the log intervals of both ratios from how rounds differ; infinite for less than `FEWEST_ROUNDS`."""
    fewest = min(session.rounds for session in sessions)
    if fewest < FEWEST_ROUNDS:
        return np.full(2, math.inf)
    variance = np.zeros(2)
    for session in sessions:
        totals = np.log(session.candidate_ms.sum(axis=0) / session.baseline_ms.sum(axis=0))
        variance += np.stack([session.log_ratios.mean(axis=0), totals]).var(axis=1, ddof=1) / session.rounds
    return np.sqrt(variance) * float(stdtrit(fewest - 1, (1 + confidence) / 2)) * [1.0, MEDIAN_ERROR]


def unpaired(one: Interval, other: Interval) -> Interval:
    """Return `one` over `other`, ratios of different queries: their logs differ independently (MOVER; Zou and Donner, 2008)."""
    (a, b), (low, high), (their_low, their_high) = (
        [_log(value) for value in values] for values in ((one.estimate, other.estimate), (one.low, one.high), (other.low, other.high))
    )
    below, above = math.hypot(a - low, their_high - b), math.hypot(high - a, b - their_low)
    return Interval(estimate=math.exp(a - b), low=math.exp(a - b - below), high=exponentiated(a - b, above).high)


def _log(ratio: float) -> float:
    return math.log(ratio) if ratio > 0 else -math.inf


def mean_ratios(pairs: Pairs, reference: Pairs | None = None) -> MeanRatios:
    """Return each query's mean log ratio over the rounds, minus that of the reference if there is one (with Welch's freedom)."""
    return mean_log_ratios(pairs.log_ratios, None if reference is None else reference.log_ratios)


def mean_log_ratios(log_ratios: Floats, reference: Floats | None = None) -> MeanRatios:
    """Return `mean_ratios` of sessions with these (Q, R) log ratios."""
    mean, variance, freedom = _moderated_means(log_ratios)
    whole = np.full(len(mean), int(freedom), dtype=np.int64)
    if reference is not None:
        reference_mean, reference_variance, reference_freedom = _moderated_means(reference)
        whole = _welch(variance, freedom, reference_variance, reference_freedom)
        mean, variance = mean - reference_mean, variance + reference_variance
    return MeanRatios(mean=mean, error=np.sqrt(variance), freedom=whole)


def query_ratios(pairs: Pairs, reference: Pairs | None = None) -> tuple[QueryRatio, ...]:
    """
    Return each query's ratio with its own interval, and its outcome.

    The intervals are not corrected: of 100 queries without any difference, 5 exclude 1. The outcomes are (Holm): with no difference
    anywhere, all are ties in 95 % of the runs.
    """
    ratios = mean_ratios(pairs, reference)
    margin = ratios.margin(CONFIDENCE)
    different = holm(ratios.p_different()) <= 1 - CONFIDENCE
    return tuple(
        QueryRatio(
            query_id=query_id,
            ratio=exponentiated(float(ratios.mean[i]), float(margin[i])),
            outcome=_outcome(bool(different[i]), float(ratios.mean[i])),
        )
        for i, query_id in enumerate(pairs.query_ids)
    )


def holm(p_values: Floats) -> Floats:
    """Return Holm's adjusted p-values (1979), in the same order: rejecting those <= alpha keeps the chance of any false one below alpha."""
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p_values[order] * factors))
    return adjusted


def holm_after_discarding(p_values: Floats) -> Floats:
    """
    Return Holm's adjusted p-values after discarding the hypotheses with p > DISCARDED, which get 1 (Zhao, Small and Su, JASA 2019).

    The method needs uniformly conservative p-values of the true hypotheses. T-tests against a limit far above most queries have them.
    Dividing the kept p-values by DISCARDED keeps the chance of any false rejection below alpha. So a single slow query need not be hundreds
    of times more certain because the workload has many fast queries.
    """
    adjusted = np.ones_like(p_values)
    kept = p_values <= DISCARDED
    adjusted[kept] = holm(p_values[kept] / DISCARDED)
    return adjusted


def increases_until_certain(ratios: MeanRatios, threshold: float, alpha: float) -> Floats:
    """Return (Q,) by how much each log ratio by itself must grow for `holm_after_discarding` to find it above `threshold`."""
    kept = (ratios.freedom > 0) & (ratios.mean >= threshold)  # p <= DISCARDED, which is a half
    number = int(kept.sum())
    freedom, which = np.unique(np.maximum(ratios.freedom, 1), return_inverse=True)  # few, and each quantile takes a microsecond
    tested = np.array([[number + 1], [max(number, 1)]])  # with a query that was discarded before, and with one that is among them
    quantiles = -stdtrit(freedom, alpha * DISCARDED / tested)[kept.astype(int), which]
    return np.where(ratios.freedom > 0, threshold - ratios.mean + quantiles * ratios.error, math.inf)


def exponentiated(estimate: float, margin: float) -> Interval:
    """Return the interval of a ratio, given its log and half the width of the log's interval."""
    high = math.exp(estimate + margin) if estimate + margin < LARGEST_LOG else math.inf
    return Interval(estimate=math.exp(estimate), low=math.exp(estimate - margin), high=high)


def _log_estimates(pairs: Pairs) -> Floats:
    total = np.log(np.median(pairs.candidate_ms, axis=1).sum() / np.median(pairs.baseline_ms, axis=1).sum())
    return np.array([moments(pairs.log_ratios)[0].mean(), total])


def _bootstrap(pairs: Pairs, replicates: int, seed: int, salt: int) -> Floats:
    """Return (2, replicates) resampled logs of the geometric mean and of the ratio of totals; the same seed resamples the same queries."""
    mean, variance = moments(pairs.log_ratios)
    chosen = resampled(len(mean), replicates, seed)
    noise = np.random.default_rng((seed, salt)).standard_normal(chosen.shape) * np.sqrt(variance)[chosen]
    baseline, candidate = (np.median(times, axis=1)[chosen] for times in (pairs.baseline_ms, pairs.candidate_ms))
    totals = np.log((candidate * np.exp(noise)).sum(axis=1) / baseline.sum(axis=1))
    return np.stack([(mean[chosen] + noise).mean(axis=1), totals])


def _differences(values: Sequence[Floats]) -> Floats:
    return values[0] if len(values) == 1 else values[0] - values[1]


def resampled(queries: int, replicates: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the (replicates, Q) rows of the queries that each draw has."""
    return np.random.default_rng(seed).integers(queries, size=(replicates, queries))


def effective_queries(times_ms: Floats) -> float:
    """Return Kish's effective number of queries: the certainty of the total grows with it, not with the number of queries."""
    return float(times_ms.sum() ** 2 / (times_ms**2).sum())


def moments(log_ratios: Floats) -> tuple[Floats, Floats]:
    """Return (Q,) trimmed means of (Q, R) log ratios, and the variances of these means by Yuen's formula from the winsorized rounds."""
    rounds = log_ratios.shape[1]
    cut = int(TRIMMED * rounds + 1e-9)
    ordered = np.sort(log_ratios, axis=1)
    means = ordered[:, cut : rounds - cut].mean(axis=1)
    if rounds == 1:
        return means, np.zeros_like(means)
    winsorized = ordered[:, np.clip(np.arange(rounds), cut, rounds - 1 - cut)]
    return means, winsorized.var(axis=1, ddof=1) / (rounds * (1 - 2 * cut / rounds) ** 2)


def _moderated_means(ratios: Floats) -> tuple[Floats, Floats, float]:
    """Return (Q,) means of the log ratios, (Q,) variances of these means, and the degrees of freedom of each; 0 for a single round."""
    rounds = ratios.shape[1]
    if rounds == 1:
        return ratios.mean(axis=1), np.zeros(len(ratios)), 0.0
    variance, freedom = moderated(ratios.var(axis=1, ddof=1), rounds - 1)
    return ratios.mean(axis=1), variance / rounds, freedom


def _welch(a: Floats, freedom_a: float, b: Floats, freedom_b: float) -> npt.NDArray[np.int64]:
    """Return Welch's degrees of freedom, rounded down; 0 if either has a single round."""
    least = min(freedom_a, freedom_b)
    if least < 1:
        return np.zeros(len(a), dtype=np.int64)
    spread = a**2 / freedom_a + b**2 / freedom_b
    freedom = np.divide((a + b) ** 2, spread, out=np.full(len(a), least), where=spread > 0)
    whole: npt.NDArray[np.int64] = np.floor(freedom + 1e-9).astype(np.int64)
    return whole


def _studentized(difference: Floats, error: Floats) -> Floats:
    """Return difference / error; without any spread, a difference gives infinity, and no difference gives 0."""
    without_spread = np.where(difference == 0, 0.0, np.copysign(np.inf, difference))
    return np.divide(difference, error, out=without_spread, where=error > 0)


def _outcome(different: bool, mean: float) -> Outcome:
    if not different:
        return "tie"
    return "loss" if mean > 0 else "win"
