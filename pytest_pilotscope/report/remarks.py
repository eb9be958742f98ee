"""What a reader must know beside the figures: failures, interruptions, cardinalities that were not used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_pilotscope.core.record import Record
from pytest_pilotscope.core.results import BASELINE_AGAIN, QueryReport
from pytest_pilotscope.core.summary import Summary

NAMED = 5
"""So many queries are named in one remark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One sentence; `bad` where something went wrong."""

    text: str
    bad: bool = False


def remarks_of(record: Record) -> Iterator[Remark]:
    """All that there is to remark on a record, the gravest last."""
    if BASELINE_AGAIN in record.header.sides:
        yield Remark(text="An A/A pair: both sides are plain PostgreSQL, so the interval is the noise of this machine.")
    if record.header.parallel:
        yield Remark(text="Measured beside other workers: these times are noise.", bad=True)
    end = record.end
    if end is None:
        yield Remark(text="The run was interrupted; its figures cover what was measured.")
    elif end.error:
        yield Remark(text=f"{end.status}: {end.error}", bad=True)
    for side, reason in (end.failures if end else {}).items():
        yield Remark(text=f"{side} failed: {reason}", bad=True)
    for report in record.reports:
        if report.steered_ratio is not None and report.steered_ratio < 1:
            yield Remark(text=f"{report.query_id}: {report.side} {steered_text(report)}", bad=True)


def regressions_of(summary: Summary) -> Iterator[Remark]:
    """Name the queries that a side made slower beyond noise, the worst first."""
    for name, side in summary.sides.items():
        slower = sorted(side.against.regressions.items(), key=lambda item: -item[1]) if side.against else []
        if slower and side.against:
            named = ", ".join(f"{query_id} ({ratio:.2f}x)" for query_id, ratio in slower[:NAMED])
            more = f" and {len(slower) - NAMED} more" if len(slower) > NAMED else ""
            count = f"{len(slower)} of {len(side.against.queries)} queries"
            yield Remark(text=f"{name} made {count} slower beyond noise: {named}{more}", bad=True)


def steered_text(report: QueryReport) -> str:
    """How far PostgreSQL did what it was told, and why not further."""
    reasons = "; ".join(report.steering_reasons) or "no reason known"
    return f"steered {report.steered_ratio:.1%}: {reasons}"
