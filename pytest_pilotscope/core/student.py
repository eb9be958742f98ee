"""Student's t distribution for whole degrees of freedom, by its finite series (Abramowitz and Stegun 26.7.3 and 26.7.4)."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from pytest_pilotscope.core.pairs import Floats


def upper_tail(t: Floats, freedom: int) -> Floats:
    """
    P(T > t) for any shape of `t`, infinities included. Absolute accuracy 1e-15.

    Raises ValueError for less than one degree of freedom.
    """
    if freedom < 1:
        raise ValueError(f"Student's t needs at least 1 degree of freedom, found {freedom}")
    angle = np.arctan(t / math.sqrt(freedom))
    cosine_squared = np.cos(angle) ** 2
    term = np.cos(angle) if freedom % 2 else np.ones_like(angle)
    series = np.zeros_like(angle) if freedom == 1 else term.copy()
    for k in range(3 if freedom % 2 else 2, freedom - 1, 2):
        term = term * cosine_squared * ((k - 1) / k)
        series += term
    inside = np.sin(angle) * series
    if freedom % 2:
        inside = (angle + inside) * (2 / math.pi)
    upper: Floats = np.clip((1 - inside) / 2, 0.0, 1.0)
    return upper


@cache
def quantile(probability: float, freedom: int) -> float:
    """
    The t with P(T <= t) = probability, by bisection; accurate to about 12 digits.

    Raises ValueError for a probability outside 0.5 <= p < 1 or less than one degree of freedom.
    """
    if not 0.5 <= probability < 1:
        raise ValueError(f"a quantile of Student's t is computed for 0.5 <= p < 1, found {probability}")
    low, high = 0.0, 1.0
    while _tail(high, freedom) > 1 - probability:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(middle, freedom) > 1 - probability else (low, middle)
    return (low + high) / 2


def _tail(t: float, freedom: int) -> float:
    return float(upper_tail(np.array(t), freedom))
