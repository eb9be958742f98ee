"""
The table of a comparison: a column for each side and a row for each figure, so that it fits a terminal with any number of figures.

The terminal, the Markdown file and the page show the same cells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from math import ceil, isinf
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import counted
from pytest_pilotscope.record.conditions import conditions_text
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import RunHeader
from pytest_pilotscope.report.remarks import all_remarks
from pytest_pilotscope.report.text_tables import GAP, text_table
from pytest_pilotscope.statistics.accuracy import Quantiles
from pytest_pilotscope.statistics.figures import Against, SideSummary
from pytest_pilotscope.statistics.intervals import Interval
from pytest_pilotscope.statistics.load import QUANTILES, Load, WriteLoad
from pytest_pilotscope.statistics.ranking import ranks
from pytest_pilotscope.statistics.summary import Summary, summarize
from pytest_pilotscope.statistics.verdict import Remark, is_useless, verdict

if TYPE_CHECKING:
    from rich.table import Table

NOTHING = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure: its name, its meaning in a sentence, and a function that returns the cell of a side, or None if it does not apply."""

    name: str
    meaning: str
    cell: Callable[[SideSummary], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureTable:
    """A table: each of the `rows` is a figure and its cells, in the order of `sides`. Figures that apply to no side are left out."""

    sides: tuple[str, ...]
    rows: tuple[tuple[Figure, tuple[str, ...]], ...]


def figure_table(summary: Summary) -> FigureTable:
    """Return all figures of all sides of a record."""
    ranking = ranks(summary) if len(summary.sides) > 1 else {}

    def rank(side: SideSummary) -> str | None:
        return str(ranking[side.side]) if side.side in ranking else None

    first = Figure(name="rank", meaning="by speed-up; sides with overlapping intervals share ranks", cell=rank)
    rows = [(figure, [figure.cell(side) for side in summary.sides.values()]) for figure in (first, *FIGURES, *LOAD_FIGURES)]
    return FigureTable(
        sides=tuple(summary.sides),
        rows=tuple((figure, tuple(cell or NOTHING for cell in cells)) for figure, cells in rows if any(cells)),
    )


def text_tables(summary: Summary, width: int | None) -> Iterator[Table]:
    """Yield the table for a terminal of `width` columns, in as many parts as fit without cutting cells; in one part without a width."""
    table = figure_table(summary)
    for columns in _fitting(table, width):
        rows = [[figure.name, *cells[columns]] for figure, cells in table.rows]
        yield text_table(["", *table.sides[columns]], rows)


def _fitting(table: FigureTable, width: int | None) -> Iterator[slice]:
    """Yield the groups of sides that fit next to each other, at least one side each."""
    names = max(len(figure.name) for figure, _ in table.rows) + GAP
    start, used = 0, names
    for column, side in enumerate(table.sides):
        own = max(len(side), *(len(cells[column]) for _, cells in table.rows)) + GAP
        if width is not None and column > start and used + own > width:
            yield slice(start, column)
            start, used = column, names
        used += own
    yield slice(start, len(table.sides))


def title_of(summary: Summary) -> str:
    """Return the name of the run, its status, and the parameters of the measurement."""
    header = summary.header
    conditions = f", {conditions_text(header.conditions)}" if header.conditions else ""
    if (writes := header.parameters.get("writes")) is not None:
        conditions += f" --writes {writes} --writes-per-query {header.parameters['writes_per_query']:g}"
    return f"{header.run_name}: {summary.status}, {counted(header.rounds, 'round')}, seed {header.seed}{conditions}"


def started_text(header: RunHeader) -> str:
    """Return the moment when a run started, to the minute."""
    return f"{datetime.fromisoformat(header.started_at).astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"


def markdown(record: Record) -> str:
    """Return the table as a Markdown document, with the remarks and the meanings of the figures."""
    summary = summarize(record)
    header, table = record.header, figure_table(summary)
    lines = [
        f"# {header.dataset}: {', '.join(table.sides)}",
        "",
        *_listed(verdict(record, summary)),
        "",
        f"{title_of(summary)}; {counted(len(header.queries), 'query', 'queries')}, taking turns within each; "
        f"started {started_text(header)}; PostgreSQL {header.server.get('version', 'unknown')}; pytest-pilotscope {header.suite_version}.",
        "",
        _row(["", *table.sides]),
        _row(["---", *("---:" for _ in table.sides)]),
        *(_row([figure.name, *cells]) for figure, cells in table.rows),
        "",
        *_listed(all_remarks(record, summary)),
        "",
        *(f"*{figure.name}*: {figure.meaning}.  " for figure, _ in table.rows),
    ]
    return "\n".join(lines) + "\n"


def _listed(remarks: Iterable[Remark]) -> list[str]:
    return [f"- {'**' if remark.bad else ''}{_escaped(remark.text)}{'**' if remark.bad else ''}" for remark in remarks]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_escaped(cell) for cell in cells)} |"


def _escaped(text: str) -> str:
    """Escape text for Markdown."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def interval_text(interval: Interval) -> str:
    """Format a ratio with its interval."""
    return f"{interval.estimate:.3f} [{bound_text(interval.low)}, {bound_text(interval.high)}]"


def slices_text(ratio: Interval) -> str:
    """Format a ratio whose pairs are time slices; without the ends of an interval that tells nothing."""
    return f"{ratio.estimate:.3f} [unknown]" if is_useless(ratio) else interval_text(ratio)


def bound_text(value: float) -> str:
    """Format one end of an interval."""
    return "∞" if isinf(value) else f"{value:.3f}" if value < 100 else f"{value:.3g}"


def factor_text(value: float) -> str:
    """Format an error or another factor to three digits, or to the last one before the point."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def outcomes_text(against: Against) -> str | None:
    """Format the numbers of faster, slower and equal queries; None for PostgreSQL, which neither wins nor loses against itself."""
    return None if against.itself else f"{against.wins}/{against.losses}/{against.ties}"


def executions_text(number: Interval) -> str:
    """Format a number of executions with its interval; `never` if it is certain that no number suffices."""
    estimate, low, high = ("never" if isinf(value) else f"{ceil(value):,}" for value in (number.estimate, number.low, number.high))
    return "never" if low == "never" else f"{estimate} [{low}, {high}]"


def _seconds(side: SideSummary, value_s: float) -> str | None:
    return f"{'>= ' if side.lower_bound else ''}{value_s:.3f}" if side.queries else None


def _milliseconds(side: SideSummary, value_s: float) -> str | None:
    return f"{value_s * 1e3:.2f}" if side.queries else None


def _compared(cell: Callable[[Against], str | None]) -> Callable[[SideSummary], str | None]:
    return lambda side: cell(side.against) if side.against else None


def _share(side: SideSummary) -> str | None:
    whole_s = side.inference_s + side.planning_s + side.execution_s
    return f"{(side.inference_s + side.planning_s) / whole_s:.1%}" if whole_s > 0 else None


def _plans(against: Against) -> str | None:
    plans = against.plans
    return f"{plans.changed} of {plans.queries}{f', {len(plans.tied)} tied' if plans.tied else ''}" if plans else None


def _changed_outcomes(against: Against) -> str | None:
    plans = against.plans
    return f"{plans.faster}/{plans.slower}" if plans and plans.changed and not against.itself else None


def _quantiles(values: Quantiles | None) -> str | None:
    return " / ".join(factor_text(value) for value in (values.p50, values.p95, values.max)) if values else None


def _p_errors(side: SideSummary) -> str | None:
    """Return the quantiles of the p-errors that are known, and the number of queries without one."""
    unknown = f"{side.unknown_p_errors} unknown" if side.unknown_p_errors else None
    return ", ".join(filter(None, (_quantiles(side.p_errors), unknown))) or None


def _q_errors(side: SideSummary) -> str | None:
    return _quantiles(side.q_errors.nonempty or side.q_errors.all) if side.q_errors else None


def _under_load(cell: Callable[[Load], str | None]) -> Callable[[SideSummary], str | None]:
    return lambda side: cell(side.load) if side.load else None


def _latency_speedup(quantile: int) -> Figure:
    return Figure(
        name=f"latency p{quantile} [95 %]",
        meaning=f"the baseline's p{quantile} latency over this side's, paired slice by slice; above 1 is faster",
        cell=_under_load(lambda load: slices_text(load.speedups[quantile]) if load.speedups else None),
    )


def _writing(cell: Callable[[WriteLoad], str | None]) -> Callable[[SideSummary], str | None]:
    return _under_load(lambda load: cell(load.writes) if load.writes else None)


def _write_latency_speedup(quantile: int) -> Figure:
    return Figure(
        name=f"write latency p{quantile} [95 %]",
        meaning=f"the baseline's p{quantile} latency of the scripts over this side's, paired slice by slice; above 1 is faster",
        cell=_writing(lambda writes: slices_text(writes.speedups[quantile]) if writes.speedups else None),
    )


FIGURES: tuple[Figure, ...] = (
    Figure(name="queries", meaning="queries that ran to the end in every round", cell=lambda side: str(side.query_count)),
    Figure(name="timeouts", meaning="queries that timed out at least once", cell=lambda side: str(side.timeout_count)),
    Figure(name="errors", meaning="queries that failed", cell=lambda side: str(side.error_count)),
    Figure(
        name="total s",
        meaning="sum over the queries of the median end-to-end time (inference, planning, execution); a lower bound after time-outs",
        cell=lambda side: _seconds(side, side.total_s),
    ),
    Figure(name="average ms", meaning="the same, per query", cell=lambda side: _milliseconds(side, side.average_s)),
    Figure(name="p50 ms", meaning="median over the queries", cell=lambda side: _milliseconds(side, side.p50_s)),
    Figure(name="p95 ms", meaning="95 of 100 queries are faster", cell=lambda side: _milliseconds(side, side.p95_s)),
    Figure(name="p99 ms", meaning="99 of 100 queries are faster", cell=lambda side: _milliseconds(side, side.p99_s)),
    Figure(
        name="speed-up [95 %]",
        meaning="total of the baseline over total of this side, with its interval; above 1 is faster",
        cell=_compared(lambda against: interval_text(against.speedup)),
    ),
    Figure(
        name="per query [95 %]",
        meaning="geometric mean of the queries' speed-ups; short queries count as much as long ones",
        cell=_compared(lambda against: interval_text(against.geometric_speedup)),
    ),
    Figure(
        name="won/lost/tied",
        meaning="queries that are significantly faster or slower than the baseline, corrected for multiple tests",
        cell=_compared(outcomes_text),
    ),
    Figure(
        name="plans changed",
        meaning="queries with another plan than the baseline's; tied are those whose plan costs the same",
        cell=_compared(_plans),
    ),
    Figure(
        name="of these won/lost",
        meaning="queries with another plan that are significantly faster or slower than the baseline",
        cell=_compared(_changed_outcomes),
    ),
    Figure(name="planning + inference", meaning="share of the time that is not execution", cell=_share),
    Figure(
        name="steered",
        meaning="share of the injected cardinalities or hints that PostgreSQL really used",
        cell=lambda side: None if side.steered_ratio is None else f"{side.steered_ratio:.1%}",
    ),
    Figure(
        name="training s",
        meaning="duration of learning or searching",
        cell=lambda side: None if side.training_s is None else f"{side.training_s:.1f}",
    ),
    Figure(
        name="break-even [95 %]",
        meaning="executions of the workload that pay for the training; never if the side is not certainly faster",
        cell=_compared(lambda against: executions_text(against.break_even) if against.break_even else None),
    ),
    Figure(
        name="q-error",
        meaning="p50 / p95 / max over subplans that are not empty: the factor between estimated and true rows",
        cell=_q_errors,
    ),
    Figure(
        name="p-error",
        meaning="p50 / p95 / max over queries: cost of the plan over cost of the best plan, both with true rows",
        cell=_p_errors,
    ),
)
"""All figures of every run but the rank, in the order of the table."""

LOAD_FIGURES: tuple[Figure, ...] = (
    Figure(
        name="executions/s",
        meaning="throughput: executions of all clients that ended, per second",
        cell=_under_load(lambda load: f"{load.throughput_per_s:.2f}"),
    ),
    Figure(
        name="throughput [95 %]",
        meaning="throughput of this side over the baseline's, paired slice by slice; above 1 is faster",
        cell=_under_load(lambda load: slices_text(load.throughput) if load.throughput else None),
    ),
    Figure(
        name="latency ms",
        meaning="p50 / p95 / p99 over all executions of all clients, end to end",
        cell=_under_load(lambda load: " / ".join(f"{load.latency_ms[quantile]:.2f}" for quantile in QUANTILES)),
    ),
    *map(_latency_speedup, QUANTILES),
    Figure(
        name="writes/s",
        meaning="runs of the scripts of --writes of all clients, per second of the slices, in which the clients run the queries, too",
        cell=_writing(lambda writes: f"{writes.throughput_per_s:.2f}"),
    ),
    Figure(
        name="write speed-up [95 %]",
        meaning="the baseline's mean time of a script over this side's, paired slice by slice; above 1 is faster",
        cell=_writing(lambda writes: slices_text(writes.speedup) if writes.speedup else None),
    ),
    Figure(
        name="write latency ms",
        meaning="p50 / p95 / p99 over all runs of the scripts, as their clients waited",
        cell=_writing(lambda writes: " / ".join(f"{writes.latency_ms[quantile]:.2f}" for quantile in QUANTILES)),
    ),
    *map(_write_latency_speedup, QUANTILES),
)
"""The figures of a run with several clients, and of the scripts that write."""

_BY_NAME = {figure.name: figure for figure in (*FIGURES, *LOAD_FIGURES)}


def cell_of(name: str, side: SideSummary) -> str:
    """Return the cell of a side for the figure of this name."""
    return _BY_NAME[name].cell(side) or NOTHING
