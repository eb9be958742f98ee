"""
Drawing with matplotlib as SVG, in one style.

Figures are made directly, without pyplot, so they do not affect a user's own plots.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from io import StringIO
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.report.svg import INK, LINE, QUIET, Plot, plot_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST = (11.0, 3.2)
WIDE = (5.6, 3.4)
TALL = (5.6, 4.2)
SMALL = (3.6, 2.4)


def drawing() -> AbstractContextManager[None]:
    """Use the settings of our plots within a block."""
    from matplotlib import rc_context

    settings: Any = {  # newer versions know the names of all settings as types, older ones want plain text
        "svg.fonttype": "none",
        "svg.hashsalt": "pilotscope",
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": QUIET,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "savefig.facecolor": "none",
        "text.parse_math": False,
    }
    return rc_context(settings)


def new_figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """Return an empty figure of a size in inches, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def add_legend(axes: Axes) -> None:
    """Name what is drawn, if there are at least two of them."""
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, loc="best", labelcolor=INK)


def make_logarithmic(axes: Axes, which: str, low: float, high: float) -> None:
    """Make an axis logarithmic, with decimal numbers as labels."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low = max(low, 1e-9)  # times of zero have no logarithm
    high = max(high, 2 * low)
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)  # first: matplotlib warns of data that are all zero otherwise
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 100 else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def finished(name: str, title: str, caption: str, figure: Figure, **described: Any) -> Plot:
    """Return the plot of a figure; `Plot` explains the arguments."""
    buffer = StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return plot_of(name, buffer.getvalue(), title=title, caption=caption, **described)
