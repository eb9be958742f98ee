"""The q-error of estimates (Moerkotte et al., PVLDB 2(1), 2009), and the quantiles that papers report of errors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE_AGAIN, QueryReport, SubplanEstimate
from pytest_pilotscope.statistics.pairs import Floats

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


ErrorsByJoins = Mapping[str, Mapping[int, Sequence[float]]]
"""Errors by side and number of joins."""

MOST_SIZES = 8
"""A table or picture by number of joins has no more of them than this, each by itself; of more it has ranges."""


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
    The q-errors of a set of subplans: of all, and of those with a true result that is not empty.

    Compare by `nonempty`: an estimator that always answers "one row" is perfect on empty results.
    """

    all: Quantiles
    nonempty: Quantiles | None


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


def in_ranges(by_size: Mapping[int, Sequence[float]], ranges: Mapping[int, str]) -> dict[str, list[float]]:
    """Return the values of each range that has any, in the order of the ranges."""
    found: dict[str, list[float]] = {}
    for size, name in ranges.items():
        if size in by_size:
            found.setdefault(name, []).extend(by_size[size])
    return found


def size_ranges(sizes: Iterable[int]) -> dict[int, str]:
    """
    Return the name of the range that each size is in, the smallest first.

    Up to `MOST_SIZES` different ones each have their own. More are in ranges that end at powers of two: 0, 1, 2, 3-4, 5-8, 9-16.
    """
    found = sorted(set(sizes))
    if len(found) <= MOST_SIZES:
        return {size: str(size) for size in found}
    together: dict[int, list[int]] = {}
    for size in found:
        together.setdefault(size if size < 1 else (size - 1).bit_length() + 1, []).append(size)
    return {size: str(size) if len(members) == 1 else f"{members[0]}-{members[-1]}" for members in together.values() for size in members}


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
    errors = q_error([estimate.estimated for estimate in estimates], true)
    return QErrors(all=quantiles(errors), nonempty=quantiles(errors[true > 0]) if (true > 0).any() else None)


def q_errors_by_joins(record: Record) -> ErrorsByJoins:
    """Return the q-errors of the subplans that are not empty."""
    errors: dict[str, dict[int, list[float]]] = {}
    for report in record.reports:
        nonempty = [estimate for estimate in report.estimates or () if estimate.true > 0]
        found = q_error([estimate.estimated for estimate in nonempty], [estimate.true for estimate in nonempty])
        for estimate, error in zip(nonempty, found.tolist(), strict=True):
            errors.setdefault(report.side, {}).setdefault(estimate.joins, []).append(error)
    return errors


def p_errors_by_joins(record: Record) -> ErrorsByJoins:
    """Return the p-errors of the queries whose number of joins is known."""
    errors: dict[str, dict[int, list[float]]] = {}
    joins = record.joins()
    for report in record.reports:
        if report.p_error is not None and report.query_id in joins:
            errors.setdefault(report.side, {}).setdefault(joins[report.query_id], []).append(report.p_error)
    return errors


def _checked(rows: ArrayLike, which: str) -> Floats:
    values = np.asarray(rows, dtype=np.float64)
    if not np.all(np.isfinite(values) & (values >= 0)):
        raise ValueError(f"{which} cardinalities must be finite and >= 0")
    return values
