"""Tables of one record as text: the quality of estimates, and the cost of inference."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from itertools import chain
from statistics import median

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryRun
from pytest_pilotscope.report.text_tables import text_table
from pytest_pilotscope.statistics.accuracy import (
    ErrorsByJoins,
    estimating_sides,
    in_ranges,
    p_errors_by_joins,
    q_errors_by_joins,
    quantiles,
    size_ranges,
)


def estimation_view(record: Record) -> str | None:
    """Return tables of every side's q-errors (non-empty subplans) and p-errors by number of joins; None without true cardinalities."""
    tables = [
        _errors("q-error of subplans that are not empty", record, q_errors_by_joins(record)),
        _errors("p-error of queries", record, p_errors_by_joins(record)),
    ]
    return "\n\n".join(table for table in tables if table) or None


def _errors(title: str, record: Record, errors: ErrorsByJoins) -> str | None:
    sides = [name for name in estimating_sides(record) if errors.get(name)]
    ranges = size_ranges(size for name in sides for size in errors[name])
    rows = []
    for name in sides:
        found = in_ranges(errors[name], ranges)
        for joins, values in {**found, "all": list(chain.from_iterable(found.values()))}.items():
            its = quantiles(values)
            rows.append([name, joins, str(its.count), *(f"{value:.2f}" for value in (its.p50, its.p90, its.p95, its.max))])
    return _table(("side", "joins", "count", "p50", "p90", "p95", "max"), rows, title=title) if rows else None


def inference_view(record: Record) -> str | None:
    """Return a table of each side's inference time by number of relations in the query; None if no side has any."""
    from pytest_pilotscope.statistics.figures import median_if_all  # it needs SciPy, which collecting tests does not

    plans = {report.query_id: report.plan for report in record.reports if report.side == record.header.baseline_side and report.plan}
    relations = {query_id: sum(node.alias is not None for _, node in plan.nodes()) for query_id, plan in plans.items()}
    ranges = size_ranges(relations.get(run.query_id, 0) for run in record.runs if run.inference_ms > 0)
    rows = []
    for side in record.header.sides:
        by_relations: dict[str, list[QueryRun]] = {name: [] for name in ranges.values()}
        for run in record.measured(side):
            if run.inference_ms > 0:
                by_relations[ranges[relations.get(run.query_id, 0)]].append(run)
        for count, runs in ((count, runs) for count, runs in by_relations.items() if runs):
            share = sum(run.inference_ms for run in runs) / sum(run.end_to_end_ms for run in runs)
            processor_ms = median_if_all([run.inference_processor_ms for run in runs])
            times = (median(run.inference_ms for run in runs), processor_ms)
            rows.append([side, count, str(len(runs)), *("" if ms is None else f"{ms:.2f}" for ms in times), f"{share:.1%}"])
    columns = ("side", "relations", "runs", "inference ms", "processor ms", "share of time")
    return _table(columns, rows) if rows else None


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "") -> str:
    from rich.console import Console

    buffer = StringIO()
    Console(file=buffer, width=120, color_system=None).print(text_table(columns, rows))
    return f"{title}\n{buffer.getvalue().rstrip()}" if title else buffer.getvalue().rstrip()
