"""Tables of one record as text: the quality of estimates, and the cost of inference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from io import StringIO
from statistics import median

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryRun
from pytest_pilotscope.report.text_tables import text_table
from pytest_pilotscope.statistics.accuracy import Quantiles, estimating_sides, q_errors, quantiles


def estimation_view(record: Record) -> str | None:
    """Return a table of every side's q-errors (non-empty subplans) and p-errors by number of joins; None without true cardinalities."""
    joins = record.joins()
    rows = []
    for name in estimating_sides(record):
        reports = [report for report in record.reports if report.side == name]
        nonempty = [estimate for report in reports for estimate in report.estimates or () if estimate.true > 0]
        found: dict[str, Quantiles] = {str(count): errors for count, errors in q_errors(nonempty).by_joins.items()} if nonempty else {}
        p_errors = [(joins.get(report.query_id), report.p_error) for report in reports if report.p_error is not None]
        for count in sorted({count for count, _ in p_errors if count is not None}):
            found[f"p-error, {count}"] = quantiles([p_error for of, p_error in p_errors if of == count])
        if p_errors:
            found["p-error, all"] = quantiles([p_error for _, p_error in p_errors])
        rows += [
            [name, joins_or_p_error, str(errors.count), *(f"{value:.2f}" for value in (errors.p50, errors.p90, errors.p95, errors.max))]
            for joins_or_p_error, errors in found.items()
        ]
    return _table(("side", "joins", "count", "p50", "p90", "p95", "max"), rows) if rows else None


def inference_view(record: Record) -> str | None:
    """Return a table of each side's inference time by number of relations in the query; None if no side has any."""
    from pytest_pilotscope.statistics.figures import median_if_all  # it needs SciPy, which collecting tests does not

    plans = {report.query_id: report.plan for report in record.reports if report.side == record.header.baseline_side and report.plan}
    relations = {query_id: sum(node.alias is not None for _, node in plan.nodes()) for query_id, plan in plans.items()}
    rows = []
    for side in record.header.sides:
        by_relations: dict[int, list[QueryRun]] = defaultdict(list)
        for run in record.measured(side):
            if run.inference_ms > 0:
                by_relations[relations.get(run.query_id, 0)].append(run)
        for count, runs in sorted(by_relations.items()):
            share = sum(run.inference_ms for run in runs) / sum(run.end_to_end_ms for run in runs)
            processor_ms = median_if_all([run.inference_processor_ms for run in runs])
            times = (median(run.inference_ms for run in runs), processor_ms)
            rows.append([side, str(count), str(len(runs)), *("" if ms is None else f"{ms:.2f}" for ms in times), f"{share:.1%}"])
    columns = ("side", "relations", "runs", "inference ms", "processor ms", "share of time")
    return _table(columns, rows) if rows else None


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from rich.console import Console

    buffer = StringIO()
    Console(file=buffer, width=120, color_system=None).print(text_table(columns, rows))
    return buffer.getvalue().rstrip()
