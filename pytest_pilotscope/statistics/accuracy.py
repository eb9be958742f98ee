"""The q-error of estimates (Moerkotte et al., PVLDB 2(1), 2009), and the quantiles that papers report of errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE_AGAIN, QueryReport, SubplanEstimate
from pytest_pilotscope.statistics.pairs import Floats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """The quantiles of `count` values, interpolated linearly as in NumPy."""

    count: int
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QErrors:
    """
    The q-errors of a set of subplans: of all, of those with a true result that is not empty, and by number of joins.

    Compare by `nonempty`: an estimator that always answers "one row" is perfect on empty results.
    """

    all: Quantiles
    nonempty: Quantiles | None
    by_joins: Mapping[int, Quantiles]


def q_error(estimated: ArrayLike, true: ArrayLike) -> Floats:
    """
    Return the larger of estimated / true and true / estimated rows, elementwise.

    Both count as at least one row, as in the planner and in the papers, so an estimate of 0 for a true 0 gives 1. Raise ValueError for NaN,
    infinite or negative values: a NaN estimate is a broken model, not an infinitely bad one.
    """
    guess = np.maximum(_checked(estimated, "estimated"), 1.0)
    truth = np.maximum(_checked(true, "true"), 1.0)
    return np.maximum(guess / truth, truth / guess)


def worst_q_error(report: QueryReport) -> float | None:
    """Return the largest q-error of a query's subplans; None without estimates."""
    estimates = report.estimates
    return float(q_error([one.estimated for one in estimates], [one.true for one in estimates]).max()) if estimates else None


def estimating_sides(record: Record) -> tuple[str, ...]:
    """
    Return the sides whose estimates a record is about: the steered ones, and the baselines beside them or by themselves.

    The plans of other sides, such as `index` and `knob`, come from PostgreSQL's estimates, whose errors say nothing about them.
    """
    baselines = {record.header.baseline_side, BASELINE_AGAIN}
    steered = {report.side for report in record.reports if report.steered_ratio is not None}
    estimating = steered | (baselines if steered or baselines.issuperset(record.header.sides) else set())
    return tuple(side for side in record.header.sides if side in estimating)


def quantiles(values: ArrayLike) -> Quantiles:
    """Return the quantiles of values of any shape; raise ValueError if there are none."""
    flat = np.asarray(values, dtype=np.float64).ravel()
    if not flat.size:
        raise ValueError("there are no quantiles of no values")
    p50, p90, p95, p99 = (float(q) for q in np.quantile(flat, [0.5, 0.9, 0.95, 0.99]))
    return Quantiles(count=int(flat.size), p50=p50, p90=p90, p95=p95, p99=p99, max=float(flat.max()))


def q_errors(estimates: Sequence[SubplanEstimate]) -> QErrors:
    """Return the q-errors of these subplans; raise ValueError if there are none."""
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
