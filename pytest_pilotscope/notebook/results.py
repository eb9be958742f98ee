"""Records as pandas frames, as a table of a notebook, and as a table of a paper."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import RecordError, counted
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.record.results import QueryRun
from pytest_pilotscope.report.figure_table import cell_of
from pytest_pilotscope.report.terminal import COLUMNS, cells
from pytest_pilotscope.statistics.accuracy import q_error
from pytest_pilotscope.statistics.figures import SideSummary
from pytest_pilotscope.statistics.summary import Summary, metrics, summarize

if TYPE_CHECKING:
    from pandas import DataFrame

    from pytest_pilotscope.notebook.plotting import Plots

Row = Mapping[str, Any]

QUERY_COLUMNS = (
    *("run", "query_id", "side", "joins", "rounds", "end_to_end_ms", "inference_ms", "planning_ms", "execution_ms", "timed_out", "error"),
    *("speedup", "speedup_low", "speedup_high", "outcome", "steered_ratio", "p_error", "plan_cost", "plan_shape", "sql"),
)
"""The columns of `Results.queries`, also without rows."""

SUBPLAN_COLUMNS = ("run", "query_id", "side", "aliases", "joins", "estimated", "true", "q_error")
"""The columns of `Results.subplans`, also without rows."""

PAPER: Mapping[str, Callable[[SideSummary], str]] = {
    **{name: partial(cell_of, name) for name in ("total s", "speed-up [95 %]", "per query [95 %]", "won/lost/tied")},
    "q-error p50": lambda side: f"{(side.q_errors.nonempty or side.q_errors.all).p50:.2f}" if side.q_errors else "-",
    "q-error p95": lambda side: f"{(side.q_errors.nonempty or side.q_errors.all).p95:.1f}" if side.q_errors else "-",
    "p-error p95": lambda side: f"{side.p_errors.p95:.2f}" if side.p_errors else "-",
}
"""The columns of `to_latex`."""


@dataclass(frozen=True)
class Results:
    """
    The records of one or several runs. Times are in ms, except those of `summary`, which have MLflow's names and are in seconds.

    Each frame has the columns `run` and `side`; those of queries have `query_id`. `read_record` has what the frames leave out.
    """

    records: tuple[Record, ...]

    @cached_property
    def _summaries(self) -> tuple[Summary, ...]:
        return tuple(map(summarize, self.records))

    @cached_property
    def queries(self) -> DataFrame:
        """
        A row for each query and side, in the order of measuring.

        Times are medians over the rounds, and NaN for a query that failed or lacks rounds. `speedup` with `speedup_low` and `speedup_high`
        (95 %) is baseline / side, and `outcome` is win, loss or tie after correcting for multiple tests; the baseline has none of these.
        `p_error`, `steered_ratio`, `plan_cost` and `plan_shape` are those of the record.
        """
        return _frame(QUERY_COLUMNS, (_query_rows(summary, record) for summary, record in zip(self._summaries, self.records, strict=True)))

    @cached_property
    def executions(self) -> DataFrame:
        """A row for each execution, warm-ups (`repetition` 0) included, with the fields of a record's `query_run`."""
        columns = ("run", *(field.name for field in fields(QueryRun)))
        return _frame(columns, ([{"run": record.header.run_name, **asdict(run)} for run in record.runs] for record in self.records))

    @cached_property
    def subplans(self) -> DataFrame:
        """A row for each subplan that a side estimated: `aliases`, `joins`, `estimated` and `true` rows, and `q_error`."""
        return _frame(SUBPLAN_COLUMNS, map(_subplan_rows, self.records))

    @cached_property
    def training(self) -> DataFrame:
        """A row for each `step` of each `metric` of a training, with its `value`."""
        return _frame(
            ("run", "side", "metric", "step", "value"),
            (
                [
                    {"run": record.header.run_name, "side": report.side, "metric": f"{report.prefix}{metric}", "step": step, "value": value}
                    for report in record.training
                    for metric, values in report.metrics.items()
                    for step, value in enumerate(values)
                ]
                for record in self.records
            ),
        )

    @cached_property
    def summary(self) -> DataFrame:
        """A row for each side, with the status of the run, and the figures that MLflow gets (`test_total_time`, `test_speedup` ...)."""
        return _frame(
            ("run", "side", "dataset", "status"),
            (
                [
                    {
                        "run": summary.header.run_name,
                        "side": side,
                        "dataset": summary.header.dataset,
                        "status": summary.status,
                        **metrics(summary, side),
                    }
                    for side in summary.sides
                ]
                for summary in self._summaries
            ),
        )

    @property
    def plot(self) -> Plots:
        """The plots of the report, drawn on axes of matplotlib."""
        from pytest_pilotscope.notebook.plotting import Plots

        return Plots(self.records)

    def to_latex(self) -> str:
        """Return the table of a paper: a row for each side, for LaTeX with the package booktabs."""
        rows = (
            {"run": summary.header.run_name, "side": name, **{column: cell(side) for column, cell in PAPER.items()}}
            for summary in self._summaries
            for name, side in summary.sides.items()
        )
        frame = _frame((), [rows])
        left_out = [] if len(self.records) > 1 else ["run"]
        text: str = frame.drop(columns=left_out).to_latex(index=False, escape=True)
        return text

    def __repr__(self) -> str:
        """Return one line."""
        runs = [f"{record.header.run_name} ({', '.join(record.header.sides)}; {record.status})" for record in self.records]
        return f"<Results of {counted(len(runs), 'run', 'runs')}: {', '.join(runs[:3])}{', ...' if len(runs) > 3 else ''}>"

    def _repr_html_(self) -> str:
        """Return the verdict, the tables of the terminal and the remarks, for a notebook."""
        from html import escape

        from pandas import DataFrame

        from pytest_pilotscope.report.remarks import all_remarks
        from pytest_pilotscope.statistics.verdict import verdict

        parts = []
        for summary, record in zip(self._summaries, self.records, strict=True):
            table = DataFrame([[name, *cells(side)] for name, side in summary.sides.items()], columns=list(COLUMNS))
            sentences, remarks = (
                "<br>".join(escape(remark.text) for remark in found) for found in (verdict(record, summary), all_remarks(record, summary))
            )
            title = f"<b>{escape(record.header.run_name)}</b>: {escape(record.status)}"
            parts.append(f"<p>{title}</p><p>{sentences}</p>{table.to_html(index=False)}<p>{remarks}</p>")
        return "".join(parts)


def read_results(path: str | Path) -> Results:
    """
    Return the records of a file, of a folder (`results`), or of all files that a pattern matches (`results/mscn_*.jsonl`), by their start.

    Raise `RecordError` if there is none, and for a file that is no record.
    """
    found = Path(path)
    paths = (
        sorted(found.glob("*.jsonl")) if found.is_dir() else [found] if found.exists() else map(Path, glob.glob(str(path), recursive=True))
    )
    records = sorted(map(read_record, paths), key=lambda record: record.header.started_at)
    if not records:
        raise RecordError(f"{path}: no record is there; measure first, or name a file, a folder or a pattern such as results/*.jsonl")
    return Results(records=tuple(records))


def _frame(columns: Sequence[str], parts: Iterable[Iterable[Row]]) -> DataFrame:
    """Return the rows as a frame; without any, it has at least these columns."""
    from pandas import DataFrame

    rows = [row for part in parts for row in part]
    frame: DataFrame = DataFrame(rows) if rows else DataFrame(columns=list(columns))
    return frame


def _query_rows(summary: Summary, record: Record) -> Iterator[Row]:
    reports = {(report.query_id, report.side): report for report in record.reports}
    errors = {(run.query_id, run.side): run.error for run in record.runs if run.error is not None}
    joins = record.joins()
    for name, side in summary.sides.items():
        times = {query.query_id: query for query in side.queries}
        ratios = {query.query_id: query for query in side.against.queries} if side.against else {}
        for query_id in record.query_ids():
            of_query, ratio, report = times.get(query_id), ratios.get(query_id), reports.get((query_id, name))
            speedup = ratio.ratio.inverse if ratio else None
            yield {
                "run": record.header.run_name,
                "query_id": query_id,
                "side": name,
                "joins": joins.get(query_id),
                "rounds": of_query.rounds if of_query else 0,
                **{f"{part}_ms": getattr(of_query, f"{part}_ms", None) for part in ("end_to_end", "inference", "planning", "execution")},
                "timed_out": of_query.timed_out if of_query else 0,
                "error": errors.get((query_id, name)),
                "speedup": speedup.estimate if speedup else None,
                "speedup_low": speedup.low if speedup else None,
                "speedup_high": speedup.high if speedup else None,
                "outcome": ratio.outcome if ratio else None,
                **{field: getattr(report, field, None) for field in ("steered_ratio", "p_error", "plan_cost", "plan_shape")},
                "sql": record.header.queries.get(query_id),
            }


def _subplan_rows(record: Record) -> Iterator[Row]:
    for report in record.reports:
        for estimate in report.estimates or ():
            yield {
                "run": record.header.run_name,
                "query_id": report.query_id,
                "side": report.side,
                "aliases": estimate.aliases,
                "joins": estimate.joins,
                "estimated": estimate.estimated,
                "true": estimate.true,
                "q_error": float(q_error(estimate.estimated, estimate.true)),
            }
