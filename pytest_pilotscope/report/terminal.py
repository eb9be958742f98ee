"""The tables at the end of a run, as text."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import counted
from pytest_pilotscope.record.projection import is_comparison
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.report.figure_table import interval_text, text_tables, title_of
from pytest_pilotscope.report.remarks import all_remarks
from pytest_pilotscope.report.text_tables import text_table
from pytest_pilotscope.statistics.figures import SideSummary
from pytest_pilotscope.statistics.summary import Summary, summarize

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("side", "queries", "total s", "median ms", "p95 ms", "timeouts", "errors", "speed-up [95 %]", "won/lost/tied", "steered")

UNCUT = 100_000
"""A width larger than any table."""


def render_records(records: Sequence[Record], *, width: int | None, color: bool) -> str:
    """
    Return one table per record, with a row per side, or with a column per side for a comparison.

    Cut no cell. Split a comparison into tables that fit a terminal of `width` columns, unless that is None. Use ANSI colours if `color`.
    """
    from rich.console import Console

    buffer = StringIO()
    console = Console(file=buffer, width=UNCUT, force_terminal=color, no_color=not color, highlight=False)
    for record in records:
        summary = summarize(record)
        for table in text_tables(summary, width) if is_comparison(record.header) or record.slices else [_table(summary)]:
            console.print(table)
        for line in _remarks(record, summary):
            console.print(line, soft_wrap=True)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _table(summary: Summary) -> Table:
    return text_table(COLUMNS, [[name, *cells(side)] for name, side in summary.sides.items()], title=title_of(summary))


def cells(side: SideSummary) -> list[str]:
    """Return the cells of one side, for all COLUMNS but the first."""
    against = side.against
    bound = ">= " if side.lower_bound else ""
    return [
        str(side.query_count),
        f"{bound}{side.total_s:.3f}",
        f"{side.p50_s * 1e3:.2f}",
        f"{side.p95_s * 1e3:.2f}",
        str(side.timeout_count),
        str(side.error_count),
        interval_text(against.speedup) if against else "-",
        f"{against.wins}/{against.losses}/{against.ties}" if against else "-",
        "-" if side.steered_ratio is None else f"{side.steered_ratio:.1%}",
    ]


def _accuracy(name: str, side: SideSummary) -> list[str]:
    """Return a line with the q-errors and p-errors of a side, if it has any."""
    if side.q_errors is None:
        return []
    q, p = side.q_errors.nonempty or side.q_errors.all, side.p_errors
    line = f"{name}: q-error of {q.count} non-empty subplans p50 {q.p50:.2f}, p95 {q.p95:.1f}, max {q.max:.3g}"
    unknown = f"; p-error unknown for {counted(side.unknown_p_errors, 'query', 'queries')}" if side.unknown_p_errors else ""
    return [line + (f"; p-error p50 {p.p50:.2f}, p95 {p.p95:.2f}, max {p.max:.3g}" if p else "") + unknown]


def _remarks(record: Record, summary: Summary) -> list[str]:
    """Return the remarks below the table, as rich's markup."""
    accuracy = [] if is_comparison(record.header) else [line for name, side in summary.sides.items() for line in _accuracy(name, side)]
    found = all_remarks(record, summary)
    remarks = [f"[red]{_escaped(remark.text)}[/red]" if remark.bad else _escaped(remark.text) for remark in found]
    return [*accuracy, *remarks]


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
