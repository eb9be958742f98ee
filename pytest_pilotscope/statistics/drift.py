"""The figures of two records of one algorithm, before and after a drift: the loss, the cost of training again, and when it has paid off."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pytest_pilotscope.record.drift import drift_sides
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE, BASELINE_AGAIN
from pytest_pilotscope.statistics.figures import break_even
from pytest_pilotscope.statistics.intervals import Interval, unpaired, workload_ratios
from pytest_pilotscope.statistics.pairs import Pairs, pairs_of


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftedSide:
    """
    The `speedup` of a side over `baseline`, a side with the same data and statistics; `change` is that speed-up over the one before.

    `change` is below 1 for a loss, and None for PostgreSQL itself. It covers the queries of both records; if they have none in common, the
    speed-ups are compared without pairs.
    """

    side: str
    baseline: str
    speedup: Interval
    change: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of a step, `seconds`, and after how many executions of the workload it has paid off, compared with leaving it out."""

    side: str
    seconds: float
    without: str
    paid_off: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftFigures:
    """The speed-up before the drift, the sides after it, and the costs of ANALYZE and of training again."""

    before: Interval | None
    sides: tuple[DriftedSide, ...]
    costs: tuple[Cost, ...]


def drift_figures(before: Record | None, after: Record, algorithm: str) -> DriftFigures:
    """Return the figures of a record after a drift; without one from `before`, no loss is known. Sides without pairs are left out."""
    names = drift_sides(algorithm, changes_data=f"{BASELINE}-analyzed" in after.header.sides)
    earlier = pairs_of(before, BASELINE_AGAIN if algorithm == BASELINE else algorithm) if before else None
    if earlier is not None and not earlier.query_ids:
        earlier = None
    sides: list[DriftedSide] = []
    for side, baseline in dict.fromkeys(
        (
            (names.old, BASELINE),
            (names.baseline_analyzed, BASELINE),
            (names.old_analyzed, names.baseline_analyzed),
            (names.retrained, names.baseline_analyzed),
        )
    ):
        pairs = _pairs(after, side, baseline) if {side, baseline} <= set(after.header.sides) and side != baseline else None
        if pairs is not None and pairs.query_ids:
            learned = earlier if side != names.baseline_analyzed else None
            change = _change(learned, pairs, after.header.seed) if learned is not None else None
            sides.append(DriftedSide(side=side, baseline=baseline, speedup=_speedup(pairs, after.header.seed), change=change))
    return DriftFigures(
        before=_speedup(earlier, after.header.seed) if earlier is not None else None,
        sides=tuple(sides),
        costs=tuple(
            _cost(after, side, without)
            for side, without in ((names.baseline_analyzed, BASELINE), (names.retrained, names.old_analyzed))
            if side in after.header.sides and side != without
        ),
    )


def _pairs(record: Record, side: str, baseline: str) -> Pairs:
    return pairs_of(replace(record, header=replace(record.header, baseline_side=baseline)), side)


def _speedup(pairs: Pairs, seed: int) -> Interval:
    return workload_ratios(pairs, seed=seed).total.inverse


def _change(before: Pairs, after: Pairs, seed: int) -> Interval:
    both = [query_id for query_id in after.query_ids if query_id in set(before.query_ids)]
    if not both:
        return unpaired(_speedup(after, seed), _speedup(before, seed))
    return workload_ratios(after.restricted_to(both), before.restricted_to(both), seed=seed).total.inverse


def _cost(record: Record, side: str, without: str) -> Cost:
    seconds = sum(report.duration_s for report in record.training if report.side == side)
    pairs = _pairs(record, side, without)
    paid_off = break_even(pairs, seconds, _speedup(pairs, record.header.seed)) if pairs.query_ids else None
    return Cost(side=side, seconds=seconds, without=without, paid_off=paid_off)
