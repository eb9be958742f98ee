"""The lines and the figure of a stream: the regret of each side."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.report.drawing import WIDE, add_legend, finished, new_figure
from pytest_pilotscope.report.svg import INK, SIDES, Plot
from pytest_pilotscope.statistics.stream import regrets_of


def stream_lines(record: Record) -> Iterator[str]:
    """Yield the lines about a stream, with the regret after each quarter of it."""
    regrets = regrets_of(record)
    if regrets:
        yield f"stream: {record.header.dataset}, {record.header.tags['stream']}"
    for regret in regrets.values():
        best_s = regret.against_best_ms[-1] / 1e3
        yield f"  {regret.side}: regret against PostgreSQL {_quarters(regret.against_baseline_ms)}; against the best known {best_s:+.3f} s"
        if regret.learning_ms:
            yield f"  {regret.side} learned on the way for {regret.learning_ms / 1e3:.3f} s, which is in no query's time"


def _quarters(values_ms: tuple[float, ...]) -> str:
    """Return the values after each quarter, in seconds."""
    places = dict.fromkeys(max(1, round(len(values_ms) * quarter / 4)) for quarter in range(1, 5))
    return ", ".join(f"{values_ms[place - 1] / 1e3:+.3f} s after {place}" for place in places)


def regret_plots(record: Record) -> Iterator[Plot]:
    """Plot the regret of each side over the stream."""
    regrets = regrets_of(record)
    if not regrets:
        return
    figure, axes = new_figure(WIDE)
    others = [name for name in record.header.sides if name != record.header.baseline_side]
    for side, regret in regrets.items():
        colour = SIDES[others.index(side) % len(SIDES)]
        places = range(1, len(regret.against_baseline_ms) + 1)
        axes.plot(places, [ms / 1e3 for ms in regret.against_baseline_ms], color=colour, linewidth=1.4, label=side)
        axes.plot(places, [ms / 1e3 for ms in regret.against_best_ms], ":", color=colour, linewidth=1.1)
    axes.axhline(0, color=INK, linewidth=0.8)
    steps = {step.query_id: step for step in record.steps if step.write is not None}
    for place, query_id in enumerate(record.header.queries, start=1):
        if query_id in steps:
            axes.axvline(place - 0.5, color=INK, linewidth=0.4, alpha=0.4)
    axes.set(xlabel="queries of the stream", ylabel="regret, s")
    add_legend(axes)
    caption = (
        "Time of a side minus that of PostgreSQL, summed up; a curve that falls saves time. Dotted: minus the best known time of each "
        "query. Vertical lines are writes."
    )
    yield finished("regret", "Regret over time", caption, figure)
