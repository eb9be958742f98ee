"""The plots of the report on axes of matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pytest_pilotscope.errors import RecordError, UnknownName
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.report.plots import draw_errors, draw_series, draw_speedups, side_colour
from pytest_pilotscope.report.svg import COLOURS
from pytest_pilotscope.statistics.accuracy import q_errors_by_joins
from pytest_pilotscope.statistics.summary import summarize

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Plots:
    """
    Draws plots of the newest of these records, on `ax`, or on a new figure without it.

    Raises `RecordError` if the record has no data for a plot, and `UnknownName` for a side or a metric that it does not have.
    """

    records: tuple[Record, ...]

    def speedup(self, side: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw the sorted speed-up of each query with a side (without a name the first that has pairs), with 95 % intervals."""
        compared = {name: found.against.queries for name, found in summarize(self._record).sides.items() if found.against}
        name = self._chosen("side", side, compared, "no side that was compared with the baseline")
        axes = _axes(ax)
        draw_speedups(axes, compared[name], name)
        return _coloured(axes)

    def qerror(self, *, ax: Axes | None = None) -> Axes:
        """Draw the q-errors of the subplans that are not empty, by side and number of joins."""
        errors = q_errors_by_joins(self._record)
        if not errors:
            raise self._without("no subplan with estimated and true rows")
        axes = _axes(ax)
        draw_errors(axes, self._record, errors, "q-error")
        return _coloured(axes)

    def training(self, metric: str | None = None, side: str | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw a metric of training by step: without names the first metric of the first side that has one."""
        series: dict[str, dict[str, Sequence[float]]] = {}
        for report in self._record.training:
            for key, values in report.metrics.items():
                series.setdefault(report.side, {})[f"{report.prefix}{key}"] = values
        its_side = self._chosen("side", side, series, "no metric of training")
        name = self._chosen("metric", metric, series[its_side], "no metric of training")
        axes = _axes(ax)
        draw_series(axes, series[its_side][name], name, colour=side_colour(self._record, its_side))
        return _coloured(axes)

    @property
    def _record(self) -> Record:
        return self.records[-1]

    def _chosen(self, kind: str, name: str | None, known: Iterable[str], missing: str) -> str:
        names = list(known)
        if not names:
            raise self._without(missing)
        if name is not None and name not in names:
            raise UnknownName(f"{kind} of {self._record.header.run_name}", name, names)
        return names[0] if name is None else name

    def _without(self, missing: str) -> RecordError:
        return RecordError(f"{self._record.header.run_name} has {missing}, so there is nothing to draw")


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]


def _coloured(axes: Axes) -> Axes:
    """Give everything on the axes that has a placeholder colour the colour of files."""
    from matplotlib.colors import to_hex

    for artist in axes.findobj():
        for part in ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor"):
            found = getattr(artist, f"get_{part}", lambda: None)()
            colour = found[0] if isinstance(found, np.ndarray) and found.ndim == 2 and len(found) else found
            if colour is not None and len(colour) and (known := COLOURS.get(to_hex(colour))):
                getattr(artist, f"set_{part}")(known[1])
    return axes
