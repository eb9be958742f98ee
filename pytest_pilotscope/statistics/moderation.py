"""
Variances of many small samples, each moderated by all the others (Smyth, Statistical Applications in Genetics 3(1), 2004).

Five rounds say little about the noise of one query, but a hundred queries say a lot about how noisy queries are, and how unlike they are in
that. The more alike, the more a query's own variance is drawn towards what is usual, and the more degrees of freedom stand behind it; where
the noise is very unlike from query to query, next to nothing changes.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import digamma, zeta

from pytest_pilotscope.statistics.pairs import Floats

FEWEST = 5
"""Fewer variances say nothing about how alike they are; they stay as they are."""

LARGEST_FREEDOM = 1000.0
"""Beyond, Student's t is the normal distribution."""


def moderated(variances: Floats, freedom: int) -> tuple[Floats, float]:
    """
    The moderated variances and their degrees of freedom.

    `freedom` is that of each variance. Variances of zero take no part in telling what is usual, but are drawn towards it like all others.
    """
    positive = variances[variances > 0]
    if freedom < 1 or positive.size < FEWEST:
        return variances, float(freedom)
    usual, alike = _prior(positive, freedom)
    most = min(float(freedom * positive.size), LARGEST_FREEDOM)
    if math.isinf(alike):
        return np.full_like(variances, usual), most
    return (alike * usual + freedom * variances) / (alike + freedom), min(alike + freedom, most)


def _prior(variances: Floats, freedom: int) -> tuple[float, float]:
    """The usual variance and, in degrees of freedom, how alike the true variances are: infinitely, where all are the same."""
    half = freedom / 2
    logs = np.log(variances) - float(digamma(half)) + math.log(half)
    excess = float(logs.var(ddof=1)) - trigamma(half)
    if excess <= 0:
        return float(np.exp(logs.mean())), math.inf
    alike = 2 * inverse_trigamma(excess)
    return float(np.exp(logs.mean() + float(digamma(alike / 2)) - math.log(alike / 2))), alike


def trigamma(x: float) -> float:
    """Return the derivative of digamma, which is a zeta function of Hurwitz."""
    return float(zeta(2, x))


def inverse_trigamma(value: float) -> float:
    """Return the x > 0 with trigamma(x) = value > 0, by bisection of its logarithm."""
    low, high = -40.0, 40.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if trigamma(math.exp(middle)) > value else (low, middle)
    return math.exp((low + high) / 2)
