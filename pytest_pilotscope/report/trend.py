"""The page of a trend: one figure of an experiment from run to run, with its intervals and change points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import numpy as np

from pytest_pilotscope.errors import counted
from pytest_pilotscope.places.privatefiles import private_folder, write_private
from pytest_pilotscope.report.drawing import add_legend, drawing, finished, new_figure
from pytest_pilotscope.report.page import STYLE, environment, resource
from pytest_pilotscope.report.svg import INK, QUIET, SIDES, Plot, link_to
from pytest_pilotscope.statistics.change_points import change_points

TEMPLATE = "trend.html.j2"
SIZE = (9.0, 3.6)
LABELS = 8
"""The largest number of dates on the axis."""

METHOD = (
    "A run begins a new level if the energy distance between the runs before and after it is larger than in 95 % of random orders of these "
    "runs (E-divisive; Matteson and James, JASA 109, 2014; as Daly et al., ICPE 2020)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrendRun:
    """
    One run: its name, start, figure and, if there is one, the interval of it.

    `conditions` are its fingerprints and the part of the queries that it measured, by name: runs with equal ones are comparable.
    """

    name: str
    started_at: datetime
    value: float
    low: float | None = None
    high: float | None = None
    commit: str | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change on a line: the first run after it, the medians before and after it up to the next changes, and its p-value."""

    line: str
    run: TrendRun
    before: float
    after: float
    p_value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Comparable runs, the oldest first. `about` tells how they differ from those of the other lines."""

    name: str
    runs: tuple[TrendRun, ...]
    about: str

    def changes(self) -> tuple[Change, ...]:
        """Return the changes; ratios and times are compared by their logarithms."""
        values = np.array([run.value for run in self.runs])
        found = change_points((np.log(values) if (values > 0).all() else values).tolist())
        ends = [0, *(one.position for one in found), len(values)]
        medians = [float(np.median(values[start:end])) for start, end in pairwise(ends)]
        return tuple(
            Change(line=self.name, run=self.runs[one.position], before=before, after=after, p_value=one.p_value)
            for one, (before, after) in zip(found, pairwise(medians), strict=True)
        )


def lines_of(runs: Sequence[TrendRun]) -> tuple[tuple[Line, ...], tuple[str, ...]]:
    """Return a line for each set of equal conditions, that of the oldest run first, and the names of the conditions that differ."""
    grouped: dict[tuple[tuple[str, str], ...], list[TrendRun]] = {}
    for run in sorted(runs, key=lambda run: (run.started_at, run.name)):
        grouped.setdefault(tuple(sorted(run.conditions.items())), []).append(run)
    conditions = [dict(key) for key in grouped]
    names = sorted({name for one in conditions for name in one})
    differing = tuple(name for name in names if len({one.get(name) for one in conditions}) > 1)
    return (
        tuple(
            Line(name=str(number), runs=tuple(members), about=_about(members, of, differing))
            for number, (members, of) in enumerate(zip(grouped.values(), conditions, strict=True), start=1)
        ),
        differing,
    )


def _about(runs: Sequence[TrendRun], conditions: Mapping[str, str], differing: Sequence[str]) -> str:
    return ", ".join([counted(len(runs), "run"), *(f"{name} {conditions.get(name, 'unknown')}" for name in differing)])


def write_trend(path: Path, title: str, metric: str, runs: Sequence[TrendRun], *, left_out: Mapping[str, str]) -> tuple[Change, ...]:
    """Write the page of these runs, create its folder if necessary, and return the changes. `left_out` maps other runs to the reason."""
    lines, differing = lines_of(runs)
    changes = tuple(change for line in lines for change in line.changes())
    made = environment()
    made.filters["value"] = "{:.6g}".format
    page = made.get_template(TEMPLATE).render(
        title=title,
        metric=metric,
        style=resource(STYLE),
        plot=_plot(metric, lines, changes),
        changes=changes,
        method=METHOD,
        lines=lines,
        differing=differing,
        runs=sorted(((line.name, run) for line in lines for run in line.runs), key=lambda row: row[1].started_at, reverse=True),
        left_out=left_out,
    )
    private_folder(path.parent)
    write_private(path, page + "\n")
    return changes


def _plot(metric: str, lines: Sequence[Line], changes: Sequence[Change]) -> Plot:
    """Plot the runs side by side in the order of their starts, because they come in bunches; dates are below."""
    ordered = sorted((run for line in lines for run in line.runs), key=lambda run: (run.started_at, run.name))
    with drawing():
        figure, axes = new_figure(SIZE)
        for line, colour in zip(lines, SIDES * len(lines), strict=False):
            places, values = [ordered.index(run) for run in line.runs], [run.value for run in line.runs]
            axes.plot(places, values, color=colour, linewidth=0.8, alpha=0.6, label=f"line {line.name}")
            axes.vlines(places, [_end(run.low, run) for run in line.runs], [_end(run.high, run) for run in line.runs], color=colour)
            axes.scatter(places, values, s=22, color=colour, zorder=3).set_urls([link_to(f"{run.name}@") for run in line.runs])
        for change in changes:
            axes.axvline(ordered.index(change.run) - 0.5, color=INK, linewidth=1, linestyle=":")
        if metric.endswith("speedup"):
            axes.axhline(1, color=QUIET, linewidth=0.8)
        step = max(1, -(-len(ordered) // LABELS))
        axes.set_xticks(range(0, len(ordered), step), [f"{run.started_at:%Y-%m-%d}" for run in ordered[::step]])
        axes.set(ylabel=metric, xlim=(-0.7, len(ordered) - 0.3))
        add_legend(axes)
        caption = "With 95 % intervals where there are any, in the order of their starts; dotted: change points."
        return finished("trend", f"{metric} of each run", caption, figure, titles={f"{run.name}@": _said(run) for run in ordered})


def _end(end: float | None, run: TrendRun) -> float:
    return run.value if end is None else end


def _said(run: TrendRun) -> str:
    interval = f" ({run.low:.4g} to {run.high:.4g})" if run.low is not None and run.high is not None else ""
    return f"{run.name}: {run.value:.4g}{interval}"
