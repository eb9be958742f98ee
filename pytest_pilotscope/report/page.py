"""
The report: one HTML file with everything in it. It loads nothing from the network, and its content policy forbids that.

Jinja2 escapes all texts of a record. On a page of many queries their details are packed, and a script shows those of an opened query.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import counted
from pytest_pilotscope.places.privatefiles import private_folder, write_private
from pytest_pilotscope.record.projection import baselines_last
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import RunHeader, Scalar
from pytest_pilotscope.report.content import OFF, QueryContent, queries_of
from pytest_pilotscope.report.figure_table import FigureTable, bound_text, factor_text, figure_table, started_text, title_of
from pytest_pilotscope.report.plots import plots_of
from pytest_pilotscope.report.remarks import all_remarks
from pytest_pilotscope.report.svg import Plot
from pytest_pilotscope.statistics.intervals import Interval
from pytest_pilotscope.statistics.summary import Summary, summarize
from pytest_pilotscope.statistics.verdict import Remark, verdict

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE, DETAIL, STYLE, SCRIPT = "page.html.j2", "detail.html.j2", "page.css", "page.js"
PACKED_FROM = 500_000
"""The length of the HTML of all details from which on they are packed."""
MANY = 10
"""The number of remarks that the page shows without a click."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContent:
    """
    One record on the page. Its anchors start with `prefix`, so that they differ from those of other records.

    `details` are the rows below the queries, as HTML. If they are long, `packed` has them with the SQL, by anchor: JSON, gzip, base64.
    """

    prefix: str
    record: Record
    title: str
    facts: tuple[tuple[str, str], ...]
    table: FigureTable
    verdict: tuple[Remark, ...]
    remarks: tuple[Remark, ...]
    plots: tuple[Plot, ...]
    queries: tuple[QueryContent, ...]
    details: Mapping[str, str]
    packed: str


def write_page(path: Path, records: Sequence[Record], *, plots: Sequence[Plot] | None = None) -> Path:
    """
    Write the page of these records, in this order, create its folder if necessary, and return the path.

    `plots` are those of a single record if they are drawn already.
    """
    private_folder(path.parent)
    write_private(path, page(records, plots=plots))
    return path


def drawn(record: Record) -> tuple[Plot, ...]:
    """Draw every plot of a record."""
    return plots_of(record, summarize(record))


def write_plots(folder: Path, plots: Sequence[Plot]) -> Path:
    """Write plots as SVG files, and return the folder."""
    private_folder(folder)
    for plot in plots:
        write_private(folder / f"{plot.name}.svg", plot.for_file())
    return folder


def page(records: Sequence[Record], *, plots: Sequence[Plot] | None = None) -> str:
    """Return the text of the page."""
    templates = environment()
    runs = [_content(record, f"r{number}-", templates, plots) for number, record in enumerate(baselines_last(records))]
    return (
        templates.get_template(TEMPLATE).render(
            runs=runs, title=_title(records), style=resource(STYLE), script=resource(SCRIPT), off=OFF, many=MANY
        )
        + "\n"
    )


def _content(record: Record, prefix: str, templates: Environment, plots: Sequence[Plot] | None) -> RunContent:
    summary = summarize(record)
    queries = tuple(sorted(queries_of(record, summary), key=lambda query: -query.most_lost_ms))
    detail = templates.get_template(DETAIL).module.detail  # type: ignore[attr-defined]  # a macro
    details = {query.id: detail(query, record.header.baseline_side, OFF) for query in queries}
    return RunContent(
        prefix=prefix,
        record=record,
        title=title_of(summary),
        facts=tuple(_facts(record.header, summary)),
        table=figure_table(summary),
        verdict=verdict(record, summary),
        remarks=all_remarks(record, summary),
        plots=tuple(plots_of(record, summary) if plots is None else plots),
        queries=queries,
        details=details,
        packed=_packed({f"{prefix}{query.id}": (query.sql, details[query.id]) for query in queries}),
    )


def _packed(details: Mapping[str, tuple[str, str]]) -> str:
    if sum(len(detail) for _, detail in details.values()) < PACKED_FROM:
        return ""
    return base64.b64encode(gzip.compress(json.dumps(details).encode(), mtime=0)).decode()


def _facts(header: RunHeader, summary: Summary) -> list[tuple[str, str]]:
    server = header.server
    settings = ", ".join(f"{name} = {value}" for name, value in header.settings.items())
    facts = [
        ("started", started_text(header)),
        ("dataset", f"{header.dataset}, {counted(len(header.queries), 'query', 'queries')}"),
        ("PostgreSQL", f"{server.get('version', 'unknown')} ({server.get('provider', 'unknown')})"),
        ("limit per statement", f"{header.timeout_ms:g} ms" if header.timeout_ms else "10 x the slowest baseline, at least 1 s"),
        ("pytest-pilotscope", header.suite_version),
        ("git commit", str(header.parameters.get("git_commit") or "unknown")),
        ("fingerprints", ", ".join(f"{part} {value}" for part, value in header.fingerprints.items())),
        ("settings", settings),
    ]
    return [(name, value) for name, value in facts if value]


def _title(records: Sequence[Record]) -> str:
    sides = dict.fromkeys(side for record in records for side in record.header.sides)
    datasets = dict.fromkeys(record.header.dataset for record in records)
    return f"{', '.join(sides)} on {', '.join(datasets)}"


def environment() -> Environment:
    """Return Jinja2's environment for our templates, which escapes all texts."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(resource), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "interval": _interval,
        "ms": _ms,
        "rows": _rows,
        "signed": _signed,
        "ratio": factor_text,
        "fact": _fact,
    }
    return environment


def resource(name: str) -> str:
    """Return the text of a file of this room."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _interval(value: Interval | None) -> str:
    return "" if value is None else f"{bound_text(value.low)} to {bound_text(value.high)}"


def _ms(value: float) -> str:
    return f"{value:,.2f}"


def _signed(value: float) -> str:
    return f"{value:+,.2f}"


def _fact(value: Scalar) -> str:
    if value is None or isinstance(value, bool):
        return "none" if value is None else "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _rows(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"
