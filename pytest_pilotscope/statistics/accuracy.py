"""
How far estimates are from the truth: q-error and p-error, both at least 1.

Sources: Moerkotte et al., PVLDB 2(1), 2009 (q-error); Han et al., PVLDB 15(4), 2022 (p-error).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_pilotscope.record.results import SubplanEstimate
from pytest_pilotscope.statistics.pairs import Floats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """The quantiles that papers report, of `count` values. Interpolated linearly, as NumPy does."""

    count: int
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QErrors:
    """
    Q-errors of a set of subplans: all of them, those whose true result is not empty, and by number of joins.

    An estimator that says "one row" to everything is perfect on empty results, so `nonempty` is the one to compare by.
    """

    all: Quantiles
    nonempty: Quantiles | None
    by_joins: Mapping[int, Quantiles]


def q_error(estimated: ArrayLike, true: ArrayLike) -> Floats:
    """
    The factor between estimated and true rows, whichever is larger, elementwise.

    Both are taken as at least one row, as the planner does and as is usual; so 0 estimated for 0 true is 1. Raises ValueError for NaN,
    infinite or negative values on either side: a NaN estimate is a broken model, not an infinitely bad one.
    """
    guess = np.maximum(_checked(estimated, "estimated"), 1.0)
    truth = np.maximum(_checked(true, "true"), 1.0)
    return np.maximum(guess / truth, truth / guess)


def p_error(chosen_cost: ArrayLike, optimal_cost: ArrayLike) -> Floats:
    """
    How much more the plan chosen under the estimates costs than the one chosen under the truth, both costed with true cardinalities.

    The planner is a heuristic, so a plan found with wrong cardinalities can cost less than the one found with true ones; that counts as 1.
    Raises ValueError for costs that are not finite and positive.
    """
    chosen, optimal = (np.asarray(cost, dtype=np.float64) for cost in (chosen_cost, optimal_cost))
    if not all(np.all(np.isfinite(cost) & (cost > 0)) for cost in (chosen, optimal)):
        raise ValueError("plan costs must be finite and > 0")
    return np.maximum(chosen / optimal, 1.0)


def quantiles(values: ArrayLike) -> Quantiles:
    """The reported quantiles of values of any shape; raises ValueError if there are none."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    if not flat.size:
        raise ValueError("there are no quantiles of no values")
    p50, p90, p95, p99 = (float(q) for q in np.quantile(flat, [0.5, 0.9, 0.95, 0.99]))
    return Quantiles(count=int(flat.size), p50=p50, p90=p90, p95=p95, p99=p99, max=float(flat.max()))


def q_errors(estimates: Sequence[SubplanEstimate]) -> QErrors:
    """The q-errors of all subplans of all queries; raises ValueError if there are none."""
    true = np.array([estimate.true for estimate in estimates], dtype=np.float64)
    joins = np.array([estimate.joins for estimate in estimates], dtype=np.int64)
    errors = q_error([estimate.estimated for estimate in estimates], true)
    return QErrors(
        all=quantiles(errors),
        nonempty=quantiles(errors[true > 0]) if (true > 0).any() else None,
        by_joins={int(n): quantiles(errors[joins == n]) for n in np.unique(joins)},
    )


def _checked(rows: ArrayLike, which: str) -> Floats:
    values = np.asarray(rows, dtype=np.float64)
    if not np.all(np.isfinite(values) & (values >= 0)):
        raise ValueError(f"{which} cardinalities must be finite and >= 0")
    return values
