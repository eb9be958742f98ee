"""The lines about a drift: speed-ups before and after, their loss, and what ANALYZE and training again cost."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.report.figure_table import executions_text, interval_text
from pytest_pilotscope.statistics.drift import Cost, DriftedSide, drift_figures
from pytest_pilotscope.statistics.intervals import Interval
from pytest_pilotscope.statistics.verdict import TOO_FEW, is_useless


def drift_lines(before: Record | None, after: Record, algorithm: str) -> Iterator[str]:
    """Yield the lines about an algorithm, measured before a drift (None if that has no record) and after it."""
    tags = after.header.tags
    model = f"; the model: {tags['drift.model']}" if "drift.model" in tags else ""
    figures = drift_figures(before, after, algorithm)
    yield f"drift {tags['drift']}: {algorithm} on {after.header.dataset} ({tags.get('drift.rows') or tags['drift.templates']}){model}"
    if figures.before is not None:
        yield f"  before: speed-up {_known(figures.before)}"
    else:
        yield "  before: not measured, so no loss is known"
    yield from map(_side, figures.sides)
    yield from map(_cost, figures.costs)


def _known(ratio: Interval) -> str:
    """Return a ratio with its interval, or that the interval is too wide to be shown."""
    return f"unknown, {TOO_FEW}" if is_useless(ratio) else interval_text(ratio)


def _side(side: DriftedSide) -> str:
    change = ""
    if side.change is not None:
        change = f"; the loss is unknown, {TOO_FEW}" if is_useless(side.change) else f"; {interval_text(side.change)} of that before"
    return f"  after: {side.side} against {side.baseline}: speed-up {_known(side.speedup)}{change}"


def _cost(cost: Cost) -> str:
    step = "training again" if cost.side.endswith("-retrained") else "ANALYZE"
    paid_off = executions_text(cost.paid_off) if cost.paid_off is not None else "unknown, because there are no pairs"
    return f"  {step} took {cost.seconds:.1f} s; paid off after executions of the workload, against {cost.without}: {paid_off}"
