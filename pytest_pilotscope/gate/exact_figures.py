"""Figures that are the same in every execution, so that the gate compares them exactly."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from pytest_pilotscope.errors import named
from pytest_pilotscope.gate.comparable import State
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryReport, Scalar
from pytest_pilotscope.statistics.accuracy import worst_q_error
from pytest_pilotscope.statistics.intervals import Interval

ROUNDING = 1e-9
"""The largest relative difference that the order of a summation may cause between machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """
    A figure that got worse, of a query or (`query_id` None) of the whole workload.

    For times, `ratio` is the slow-down with its interval, and `allowed` is the largest ratio that passes. For exact figures, time-outs and
    failures, `before` and `after` are the values.
    """

    side: str
    figure: str
    query_id: str | None = None
    before: Scalar = None
    after: Scalar = None
    ratio: Interval | None = None
    allowed: float | None = None


def _unsteered(report: QueryReport) -> float | None:
    return None if report.steered_ratio is None else 1 - report.steered_ratio


Figure = Callable[[QueryReport], float | str | None]

OF_QUERIES: Mapping[str, Figure] = {
    "q-error": worst_q_error,
    "p-error": attrgetter("p_error"),
    "unsteered share": _unsteered,
    "plan shape": attrgetter("plan_shape"),
    "plan cost": attrgetter("plan_cost"),
}
"""A larger number is worse; a different text is worse."""

OF_TRAINING: Mapping[str, str] = {"what-if calls": "whatif_calls"}
"""The names of exact training scalars; larger is worse."""

FIGURES = frozenset([*OF_QUERIES, *OF_TRAINING])
"""All exact figures that the gate can compare."""


def exact_regressions(
    candidate: Record, reference: Record, side: str, queries: Collection[str], figures: Collection[str]
) -> Iterator[Regression | State]:
    """
    Yield the exact `figures` of one side that got worse on these queries; lower values pass.

    If the candidate lacks a figure of the reference, yield a State, so that no figure disappears silently. If the shape of a plan changed,
    do not compare its cost, which adds nothing.
    """
    ours, theirs = _reports(candidate, side, queries), _reports(reference, side, queries)
    reshaped: set[str] = set()
    for name, figure in OF_QUERIES.items():
        if name not in figures:
            continue
        worse, missing = _compare(name, figure, side, ours, theirs)
        if name == "plan shape":
            reshaped = {regression.query_id for regression in worse if regression.query_id is not None}
        yield from (regression for regression in worse if name != "plan cost" or regression.query_id not in reshaped)
        if missing:
            yield State(kind="missing-figures", text=f"the reference has the {name} of {side} for {named(missing)}, this run does not")
    yield from _training(candidate, reference, side, figures)


def _reports(record: Record, side: str, queries: Collection[str]) -> dict[str, QueryReport]:
    return {report.query_id: report for report in record.reports if report.side == side and report.query_id in queries}


def _compare(
    name: str, figure: Figure, side: str, ours: Mapping[str, QueryReport], theirs: Mapping[str, QueryReport]
) -> tuple[Sequence[Regression], Sequence[str]]:
    worse, missing = [], []
    for query_id, report in theirs.items():
        before = figure(report)
        after = figure(ours[query_id]) if query_id in ours else None
        if before is not None and after is None:
            missing.append(query_id)
        elif before is not None and after is not None and _is_worse(before, after):
            worse.append(Regression(side=side, figure=name, query_id=query_id, before=before, after=after))
    return worse, missing


def _is_worse(before: float | str, after: float | str) -> bool:
    if isinstance(before, str) or isinstance(after, str):
        return before != after
    return after > before + ROUNDING * max(abs(before), 1.0)


def _training(candidate: Record, reference: Record, side: str, figures: Collection[str]) -> Iterator[Regression | State]:
    ours, theirs = _scalars(candidate, side), _scalars(reference, side)
    for name, scalar in OF_TRAINING.items():
        if name not in figures or scalar not in theirs:
            continue
        if scalar not in ours:
            yield State(kind="missing-figures", text=f"the reference has the {name} of {side}, this run does not")
        elif ours[scalar] > theirs[scalar]:
            yield Regression(side=side, figure=name, before=theirs[scalar], after=ours[scalar])


def _scalars(record: Record, side: str) -> dict[str, int | float]:
    return {name: value for report in record.training if report.side == side for name, value in report.scalars.items()}
