"""
Variances of many small samples, each moderated by all the others (Smyth, Statistical Applications in Genetics 3(1), 2004).

Five rounds show little of the noise of one query, but a hundred queries show the usual noise and how much it differs between queries. The
less it differs, the more each query's own variance moves towards the usual one, and the more degrees of freedom it gets. If the noise
differs much between queries, nearly nothing changes.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import digamma, zeta

from pytest_pilotscope.statistics.pairs import Floats

FEWEST = 5
"""Fewer variances do not show how alike they are, so they stay unchanged."""

LARGEST_FREEDOM = 1000.0
"""Beyond this, Student's t equals the normal distribution."""


def moderated(variances: Floats, freedom: int) -> tuple[Floats, float]:
    """
    Return the moderated variances and their degrees of freedom.

    Each variance has `freedom` degrees of freedom. Variances of zero do not count for the usual variance, but move towards it like the
    others.
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
    """Return the usual variance, and the likeness of the true variances in degrees of freedom: infinite if all are equal."""
    half = freedom / 2
    logs = np.log(variances) - float(digamma(half)) + math.log(half)
    excess = float(logs.var(ddof=1)) - trigamma(half)
    if excess <= 0:
        return float(np.exp(logs.mean())), math.inf
    alike = 2 * inverse_trigamma(excess)
    return float(np.exp(logs.mean() + float(digamma(alike / 2)) - math.log(alike / 2))), alike


def trigamma(x: float) -> float:
    """Return the derivative of digamma, which is a Hurwitz zeta function."""
    return float(zeta(2, x))


def inverse_trigamma(value: float) -> float:
    """Return the x > 0 with trigamma(x) = value > 0, by Newton's steps of 1 / trigamma, which is convex (Smyth, 2004, appendix)."""
    if not 1e-7 < value < 1e7:
        return 1 / value if value < 1 else 1 / math.sqrt(value)
    x = 0.5 + 1 / value
    for _ in range(50):
        found = trigamma(x)
        step = found * (1 - found / value) / (-2 * float(zeta(3, x)))
        x += step
        if abs(step) < 1e-12 * x:
            break
    return x
