"""The verdict and the tables at the end of a run, as text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import counted
from pytest_pilotscope.record.projection import baselines_last, is_comparison
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE_AGAIN
from pytest_pilotscope.report.figure_table import interval_text, outcomes_text, text_tables, title_of
from pytest_pilotscope.report.remarks import all_remarks
from pytest_pilotscope.report.text_tables import fitting, text_table, wrapped
from pytest_pilotscope.statistics.figures import SideSummary
from pytest_pilotscope.statistics.summary import Summary, summarize
from pytest_pilotscope.statistics.verdict import Remark, verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLUMNS = ("side", "queries", "total s", "median ms", "p95 ms", "timeouts", "errors", "speed-up [95 %]", "won/lost/tied", "steered")
FIRST_TO_GO = ("p95 ms", "median ms", "queries", "steered", "won/lost/tied", "timeouts", "errors", "total s")
"""The columns that a narrow terminal does without, in this order."""

UNCUT = 100_000
"""A width larger than any table."""


Said = defaultdict[str, set[Remark]]
"""The remarks that were shown of runs with a shared baseline, by its name."""


def render_records(records: Sequence[Record], *, width: int | None, color: bool, said: Said | None = None) -> str:
    """
    Return the verdict on each record, then its table, with a row per side, or with a column per side for a comparison, then remarks.

    On a terminal of `width` columns, wrap sentences between words, drop columns of the table that do not fit, and split a comparison into
    tables that do. Cut no cell. A record without any times has no table. Use ANSI colours if `color`.
    Of runs that share a baseline, say once what holds for all, and the baseline alone last. `said` is what other calls have shown.
    """
    from rich.console import Console

    buffer = StringIO()
    console = Console(file=buffer, width=UNCUT, force_terminal=color, no_color=not color, highlight=False)
    said = defaultdict(set) if said is None else said
    for record in baselines_last(records):
        summary, shared = summarize(record), record.header.shared_baseline
        before = said[shared] if shared else set()
        _print(console, _new(verdict(record, summary), before), width)
        _print(console, [Remark(text=title_of(summary))], width)
        if any(side.queries for side in summary.sides.values()):
            for table in text_tables(summary, width) if is_comparison(record.header) or record.slices else [_table(summary, width)]:
                console.print(table)
        accuracy = [] if is_comparison(record.header) else _accuracies(summary)
        _print(console, _new([*accuracy, *all_remarks(record, summary)], before), width)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def _new(remarks: Iterable[Remark], said: set[Remark]) -> Iterator[Remark]:
    """Yield the remarks that were not said before, and add them: runs that share a baseline have many in common."""
    for remark in remarks:
        if remark not in said:
            said.add(remark)
            yield remark


def _print(console: Console, remarks: Iterable[Remark], width: int | None) -> None:
    for remark in remarks:
        for line in wrapped(remark.text, width):
            console.print(line, style="red" if remark.bad else None, markup=False, soft_wrap=True)


def _table(summary: Summary, width: int | None) -> Table:
    rows = [[name, *cells(side)] for name, side in summary.sides.items()]
    kept = fitting(COLUMNS, rows, width, first_to_go=FIRST_TO_GO)
    return text_table([COLUMNS[place] for place in kept], [[row[place] for place in kept] for row in rows])


def cells(side: SideSummary) -> list[str]:
    """Return the cells of one side, for all COLUMNS but the first."""
    against, bound = side.against, ">= " if side.lower_bound else ""
    times = (f"{bound}{side.total_s:.3f}", f"{side.p50_s * 1e3:.2f}", f"{side.p95_s * 1e3:.2f}") if side.queries else ("-",) * 3
    return [
        str(side.query_count),
        *times,
        str(side.timeout_count),
        str(side.error_count),
        interval_text(against.speedup) if against else "-",
        (against and outcomes_text(against)) or "-",
        "-" if side.steered_ratio is None else f"{side.steered_ratio:.1%}",
    ]


def _accuracies(summary: Summary) -> list[Remark]:
    """Return a line with the q-errors and p-errors of each side that has any; the second side of an A/A pair has the same ones."""
    lines = []
    for name, side in summary.sides.items():
        if side.q_errors is None or name == BASELINE_AGAIN:
            continue
        q, p = side.q_errors.nonempty or side.q_errors.all, side.p_errors
        line = f"{name}: q-error of {q.count} non-empty subplans p50 {q.p50:.2f}, p95 {q.p95:.1f}, max {q.max:.3g}"
        unknown = f"; p-error unknown for {counted(side.unknown_p_errors, 'query', 'queries')}" if side.unknown_p_errors else ""
        lines.append(Remark(text=line + (f"; p-error p50 {p.p50:.2f}, p95 {p.p95:.2f}, max {p.max:.3g}" if p else "") + unknown))
    return lines
