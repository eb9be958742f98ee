"""The plots of a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from textwrap import wrap
from typing import TYPE_CHECKING

import numpy as np

from pytest_pilotscope.errors import counted
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.report.drawing import FIRST, SMALL, TALL, WIDE, add_legend, drawing, finished, make_logarithmic, new_figure
from pytest_pilotscope.report.stream import regret_plots
from pytest_pilotscope.report.svg import INK, OUTCOMES, QUIET, SIDES, Plot, link_to
from pytest_pilotscope.statistics.accuracy import (
    ErrorsByJoins,
    estimating_sides,
    in_ranges,
    p_errors_by_joins,
    q_errors_by_joins,
    size_ranges,
)
from pytest_pilotscope.statistics.intervals import QueryRatio
from pytest_pilotscope.statistics.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

IMPORTANCE = "_importance_"
MOST_SHARES = 15

_LABEL = 24  # characters of the label of an axis that a small chart has room for


def plots_of(record: Record, summary: Summary) -> tuple[Plot, ...]:
    """Return every plot for which this record has data."""
    with drawing():
        return tuple(
            plot
            for plots in (
                _speedups(summary),
                regret_plots(record),
                _scatter(record, summary),
                _q_errors(record),
                _p_errors(record),
                _training(record),
                _importances(record),
            )
            for plot in plots
        )


def _speedups(summary: Summary) -> Iterator[Plot]:
    """Yield the sorted speed-ups of every query, with intervals, for each side."""
    for name, side in summary.sides.items():
        if side.against is None or not side.against.queries:
            continue
        queries = [replace(query, outcome="tie") for query in side.against.queries] if side.against.itself else side.against.queries
        figure, axes = new_figure(FIRST)
        draw_speedups(axes, queries, name)
        yield finished(
            f"speedup-{name}",
            f"Speed-up of each query with {name}",
            f"Sorted, with the 95 % interval of each query; above 1 is faster. {_coloured(len(queries))}",
            figure,
            titles={f"{query.query_id}@{name}": _said(query) for query in queries},
            first=True,
        )


def _coloured(queries: int) -> str:
    """Return a sentence about the colours of a chart of so many queries."""
    if queries == 1:
        return "The bar has a colour if the interval excludes 1."
    return (
        f"Of {queries} intervals some exclude 1 by chance, so a bar has a colour only if its difference is significant among all "
        f"{queries} queries."
    )


def draw_speedups(axes: Axes, queries: Sequence[QueryRatio], name: str) -> None:
    """Draw the sorted speed-ups of these queries with the side `name`, with their intervals."""
    from matplotlib.patches import Rectangle

    ratios = sorted(queries, key=lambda query: -query.ratio.estimate)
    inverses = [query.ratio.inverse for query in ratios]
    estimates = np.array([inverse.estimate for inverse in inverses])
    most = max(2.0, float(np.max(np.maximum(estimates, 1 / estimates)))) * 1.6
    ends = np.clip([[inverse.low for inverse in inverses], [inverse.high for inverse in inverses]], 1 / most / 2, most * 2)
    places = np.arange(len(ratios))
    for place, estimate, query in zip(places, estimates, ratios, strict=True):  # axes.bar asks for the limits of each
        bar = Rectangle((place - 0.4, 1), 0.8, estimate - 1, facecolor=OUTCOMES[query.outcome], linewidth=0)
        bar.set_url(link_to(f"{query.query_id}@{name}"))
        bar.set_clip_on(False)
        bar.set_in_layout(False)
        axes.add_artist(bar)
    thickness = min(1.2, 60 / len(ratios))
    gap = np.full(len(ratios), np.nan)
    axes.plot(np.repeat(places, 3), np.stack([*ends, gap], axis=1).ravel(), color=INK, linewidth=thickness, solid_capstyle="butt")
    axes.axhline(1, color=INK, linewidth=0.8)
    make_logarithmic(axes, "y", 1 / most, most)
    axes.set(xlim=(-0.7, len(ratios) - 0.3), xlabel=counted(len(ratios), "query", "queries"), ylabel=f"speed-up with {name}")
    axes.set_xticks([])


def _scatter(record: Record, summary: Summary) -> Iterator[Plot]:
    """Plot every query by its time on the baseline and on each other side."""
    baseline = {query.query_id: query.end_to_end_ms for query in summary.sides[record.header.baseline_side].queries}
    figure, axes = new_figure(TALL)
    titles: dict[str, str] = {}
    shown: list[float] = []
    others = [side for name, side in summary.sides.items() if name != record.header.baseline_side]
    for side, colour in zip(others, SIDES * len(others), strict=False):
        points = [(baseline[query.query_id], query) for query in side.queries if query.query_id in baseline]
        if not points:
            continue
        x_ms, y_ms = [ms for ms, _ in points], [query.end_to_end_ms for _, query in points]
        dots = axes.scatter(x_ms, y_ms, s=16, color=colour, alpha=0.75, linewidths=0, label=side.side)
        dots.set_clip_on(False)
        dots.set_urls([link_to(f"{query.query_id}@{side.side}") for _, query in points])
        titles |= {f"{q.query_id}@{side.side}": f"{q.query_id}: {ms:.2f} ms, {side.side} {q.end_to_end_ms:.2f} ms" for ms, q in points}
        shown += [*x_ms, *y_ms]
    if not shown:
        return
    low, high = min(shown) / 1.5, max(shown) * 1.5
    for factor, style in ((1, "-"), (2, ":"), (0.5, ":")):
        axes.plot([low, high], [low * factor, high * factor], style, color=QUIET, linewidth=0.8, zorder=0)
    make_logarithmic(axes, "x", low, high)
    make_logarithmic(axes, "y", low, high)
    axes.set(xlabel="baseline, ms", ylabel="ms")
    add_legend(axes)
    caption = "Median end-to-end time on the baseline (x) and on the other sides (y). Below the line is faster; dots at 2x."
    yield finished("scatter", "Time of each query", caption, figure, titles=titles)


def _q_errors(record: Record) -> Iterator[Plot]:
    """Plot the q-errors of subplans that are not empty, by number of joins and side."""
    estimating = estimating_sides(record)
    if errors := {side: of_side for side, of_side in q_errors_by_joins(record).items() if side in estimating}:
        yield _by_joins(record, errors, "q-error", "Q-error of subplans that are not empty")


def _p_errors(record: Record) -> Iterator[Plot]:
    """Plot the p-errors of queries, by number of joins and side."""
    estimating = estimating_sides(record)
    if errors := {side: of_side for side, of_side in p_errors_by_joins(record).items() if side in estimating}:
        yield _by_joins(record, errors, "p-error", "P-error of queries")


def _by_joins(record: Record, errors: ErrorsByJoins, name: str, subject: str) -> Plot:
    figure, axes = new_figure(WIDE)
    draw_errors(axes, record, errors, name)
    caption = "Boxes from the 25th to the 75th percentile, whiskers from the 5th to the 95th."
    return finished(f"{name}s", f"{subject}, by number of joins", caption, figure)


def draw_errors(axes: Axes, record: Record, errors: ErrorsByJoins, name: str) -> None:
    """Draw boxes of errors (25th to 75th percentile, whiskers 5th to 95th) by number of joins, one colour for each side."""
    sides = [side for side in record.header.sides if side in errors]
    ranges = size_ranges(number for by_joins in errors.values() for number in by_joins)
    joins = list(dict.fromkeys(ranges.values()))
    grouped = {side: in_ranges(by_joins, ranges) for side, by_joins in errors.items()}
    width = 0.8 / len(sides)
    for i, side in enumerate(sides):
        _boxes(axes, grouped[side], joins, offset=(i - (len(sides) - 1) / 2) * width, width=width * 0.8, colour=side_colour(record, side))
        axes.plot([], [], "s", color=side_colour(record, side), label=side)
    whiskers = [float(np.quantile(values, 0.95)) for by_range in grouped.values() for values in by_range.values()]
    make_logarithmic(axes, "y", 0.9, max(2.0, *whiskers) * 1.3)
    axes.set_xticks(range(len(joins)), joins)
    axes.set(xlabel="joins", ylabel=name)
    add_legend(axes)


def _boxes(axes: Axes, by_range: Mapping[str, Sequence[float]], joins: Sequence[str], *, offset: float, width: float, colour: str) -> None:
    line = {"color": colour, "linewidth": 1.2}
    present = [(place, by_range[name]) for place, name in enumerate(joins) if name in by_range]
    axes.boxplot(
        [values for _, values in present],
        positions=[place + offset for place, _ in present],
        widths=width,
        whis=(5, 95),
        showfliers=False,
        boxprops=line,
        whiskerprops=line,
        capprops=line,
        medianprops={"color": colour, "linewidth": 2.2},
        manage_ticks=False,
    )


def _training(record: Record) -> Iterator[Plot]:
    """Yield one plot for each series of the training."""
    for report in record.training:
        for metric, values in report.metrics.items():
            if sum(map(isfinite, values)) < 2:  # a single value is no series
                continue
            figure, axes = new_figure(SMALL)
            draw_series(axes, values, metric, colour=side_colour(record, report.side))
            name = f"{report.prefix}{metric}"
            caption = "During training, per epoch, trial or update."
            yield finished(f"training-{report.side}-{name}", f"{report.side}: {name}", caption, figure, small=True)


def draw_series(axes: Axes, values: Sequence[float], metric: str, *, colour: str) -> None:
    """Draw the values of a metric by step; infinite ones are gaps."""
    from matplotlib.ticker import MaxNLocator

    finite = np.array([value if isfinite(value) else np.nan for value in values])
    axes.plot(finite, color=colour, linewidth=1.4, marker="o" if len(finite) <= 60 else "", markersize=2.5)
    if np.nanmin(finite) > 0 and np.nanmax(finite) > 30 * np.nanmin(finite):
        make_logarithmic(axes, "y", float(np.nanmin(finite)) / 1.2, float(np.nanmax(finite)) * 1.2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="step", ylabel="\n".join(part.replace("_ ", "_") for part in wrap(metric.replace("_", "_ "), _LABEL)))


def _importances(record: Record) -> Iterator[Plot]:
    """Plot the largest of the shares that training recorded as `<kind>_importance_<name>`."""
    for report in record.training:
        shares = {name.partition(IMPORTANCE)[2]: share for name, share in report.scalars.items() if IMPORTANCE in name}
        if not any(shares.values()):
            continue
        largest = sorted(shares, key=lambda name: -shares[name])[:MOST_SHARES][::-1]
        figure, axes = new_figure(TALL)
        axes.barh(largest, [shares[name] for name in largest], color=side_colour(record, report.side))
        axes.grid(visible=False, axis="y")
        axes.set(xlabel=f"importance with {report.side}, share of all {len(shares)}", xlim=(0, None))
        caption = f"Change of its model's predictions if the values of one input are shuffled; the {len(largest)} largest."
        yield finished(f"importance-{report.side}{report.prefix}", f"{report.side}: importance of its inputs", caption, figure)


def side_colour(record: Record, side: str) -> str:
    """Return the colour of a side in all plots of its record."""
    others = [name for name in record.header.sides if name != record.header.baseline_side]
    return SIDES[others.index(side) % len(SIDES)] if side in others else QUIET


def _said(query: QueryRatio) -> str:
    speedup = query.ratio.inverse
    return f"{query.query_id}: {speedup.estimate:.2f}x ({speedup.low:.2f} to {speedup.high:.2f}), {query.outcome}"
