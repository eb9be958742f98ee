"""What a reader must know beside the figures: what deciding cost, slower queries, failures, interruptions, unused cardinalities."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE_AGAIN, QueryReport, TrainingReport
from pytest_pilotscope.statistics.figures import NOISE_FLOOR_MS
from pytest_pilotscope.statistics.summary import Summary

NAMED = 5
"""So many queries are named in one remark."""


_CHOICES = {"validation_queries", "validation_top1_accuracy", "validation_regret", "validation_own_regret"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One sentence; `bad` where something went wrong."""

    text: str
    bad: bool = False


def all_remarks(record: Record, summary: Summary) -> tuple[Remark, ...]:
    """Everything there is to remark, in the order in which it is shown."""
    found = (uncertain_of(summary), decisions_of(record, summary), regressions_of(summary), results_of(record, summary), remarks_of(record))
    return tuple(remark for part in found for remark in part)


def decisions_of(record: Record, summary: Summary) -> Iterator[Remark]:
    """What deciding took of the time and what it brought, and how well plans were chosen where all candidates had been run."""
    baseline = {query.query_id: query for query in summary.sides[record.header.baseline_side].queries}
    for name, side in summary.sides.items():
        pairs = [(baseline[query.query_id], query) for query in side.queries if query.query_id in baseline]
        inference_s = sum(query.inference_ms for _, query in pairs) / 1e3
        if inference_s > 0:
            share = inference_s / (sum(query.end_to_end_ms for _, query in pairs) / 1e3)
            saved_s = sum(own.planning_ms + own.execution_ms - query.planning_ms - query.execution_ms for own, query in pairs) / 1e3
            brought = f"{abs(saved_s):.3f} s {'less' if saved_s >= 0 else 'more'} than the baseline's"
            yield Remark(text=f"{name}: deciding took {inference_s:.3f} s ({share:.1%} of its time); planning and execution took {brought}")
    for training in record.training:
        yield from _choices(training)


def _choices(training: TrainingReport) -> Iterator[Remark]:
    """The figures of an algorithm that chooses among candidate plans, on validation queries of which all candidates were run."""
    found = training.scalars
    if found.keys() >= _CHOICES:
        yield Remark(
            text=f"{training.side}: of {found['validation_queries']} validation queries whose candidate plans were all run, the "
            f"best-scored plan was the fastest in {found['validation_top1_accuracy']:.0%}; regret {found['validation_regret']:.1%} "
            f"(of PostgreSQL's own plans {found['validation_own_regret']:.1%})"
        )


def results_of(record: Record, summary: Summary) -> Iterator[Remark]:
    """Whether the figures are a result at all: not where queries find nothing, nor where the difference is below the noise floor."""
    found = [run.empty for run in record.runs if run.side == record.header.baseline_side and run.empty is not None]
    if sum(found) > len(found) / 2:
        yield Remark(
            text=f"{sum(found)} of {len(found)} queries ({sum(found) / len(found):.0%}) have an empty result: PostgreSQL stops as soon as "
            "it finds nothing to join, so these times say little about plans; this data is good for checking that everything works",
            bad=True,
        )
    for name, side in summary.sides.items():
        if side.against and side.against.below_noise_floor and name != BASELINE_AGAIN:
            yield Remark(
                text=f"{name}: no result: it differs from the baseline by {abs(side.against.difference_ms):.2f} ms per query, below the "
                f"noise floor of {NOISE_FLOOR_MS} ms",
                bad=True,
            )


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
    if record.truncated:
        yield Remark(text="The last line of the record is cut off and left out.")
    for kind, lines in record.ignored.items():
        yield Remark(text=f"{_counted(lines, 'line')} of the record left out: this version does not know the kind {kind!r}.")
    for side, reason in (end.failures if end else {}).items():
        yield Remark(text=f"{side} failed: {reason}", bad=True)
    yield from _without_p_error(record)
    for report in record.reports:
        if report.steered_ratio is not None and report.steered_ratio < 1:
            yield Remark(text=f"{report.query_id}: {report.side} {steered_text(report)}", bad=True)


def _without_p_error(record: Record) -> Iterator[Remark]:
    """Name the queries of each side whose p-error is not known, with the first reason."""
    for side in record.header.sides:
        lacking = [report for report in record.reports if report.side == side and report.p_error_reason is not None]
        if lacking:
            named = ", ".join(report.query_id for report in lacking[:NAMED])
            more = f" and {len(lacking) - NAMED} more" if len(lacking) > NAMED else ""
            yield Remark(text=f"{side}: p-error not known of {named}{more}: {lacking[0].p_error_reason}")


def uncertain_of(summary: Summary) -> Iterator[Remark]:
    """Say in words when an interval is so wide that it says nothing: a few rounds of a few queries."""
    for name, side in summary.sides.items():
        if side.against and side.against.speedup.low < 1 / 2 and side.against.speedup.high > 2:
            measured = f"{_counted(summary.header.rounds, 'round')} of {_counted(len(side.against.queries), 'query', 'queries')}"
            text = f"{name}: {measured} cannot tell twice as fast from twice as slow; more of either narrow the interval"
            yield Remark(text=text)


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


def _counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
