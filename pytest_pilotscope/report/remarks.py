"""Remarks below the figures: what limits them, and unused cardinalities. The verdict above them has failures and slower queries."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_pilotscope.errors import counted, named
from pytest_pilotscope.options.settings import FIRST_ROUNDS
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE_AGAIN, QueryReport, TrainingReport
from pytest_pilotscope.statistics.accuracy import estimating_sides
from pytest_pilotscope.statistics.intervals import FEWEST_ROUNDS
from pytest_pilotscope.statistics.load import MOST_ROUNDS, rounds_until
from pytest_pilotscope.statistics.summary import Summary
from pytest_pilotscope.statistics.verdict import Remark

MOST = 0.5
"""A query with a larger share of a total decides it."""

FEW = 2
"""Of so many queries one always has a large share."""

WIDE = 1.2
"""An interval of a ratio under load that reaches further than this factor needs more rounds."""

NARROW = 1.1
"""The advised rounds would make it reach as far as this factor."""

LONG_MS = 10_000
"""A limit of time is advisable for queries that take longer."""

_CHOICES = {"validation_queries", "validation_top1_accuracy", "validation_regret", "validation_own_regret"}


def all_remarks(record: Record, summary: Summary) -> tuple[Remark, ...]:
    """Return all remarks on a record, in the order of display."""
    found = (
        shared_baseline(record),
        variant_remarks(record, summary),
        write_remarks(summary),
        wide_intervals(summary),
        wide_load(summary),
        long_queries(summary),
        (remark for training in record.training for remark in choices(training)),
        no_results(record),
        record_remarks(record),
    )
    return tuple(remark for part in found for remark in part)


def shared_baseline(record: Record) -> Iterator[Remark]:
    """Say which runs have the same executions of the baseline."""
    if shared := record.header.shared_baseline:
        sides, _, _started_at = shared.rpartition(", ")
        yield Remark(text=f"Measured in turns against one baseline: {sides}. These runs have the same executions of it: one sample.")


def variant_remarks(record: Record, summary: Summary) -> Iterator[Remark]:
    """Say what each variant is, which pairs are between servers, and which plans differ by ties of cost only."""
    for name, difference in record.header.variants.items():
        apart = ", on a server of its own: its pairs are between servers, so differences of the servers count, too"
        yield Remark(text=f"{name}: {difference}{apart if name in record.header.other_servers else ''}")
    for name, side in summary.sides.items():
        if side.against and side.against.plans and (tied := side.against.plans.tied):
            yield Remark(text=f"{name}: plans that differ from the baseline's by ties of cost only: {named(tied)}")


def write_remarks(summary: Summary) -> Iterator[Remark]:
    """Say on which sides the scripts that write are certainly slower: the speed-up above is that of the queries."""
    for name, side in summary.sides.items():
        speedup = side.load.writes.speedup if side.load and side.load.writes else None
        if speedup is not None and speedup.high < 1:
            slower = speedup.inverse
            yield Remark(
                text=f"{name}: a script of --writes takes {slower.estimate:.2f} times as long as on the baseline [{slower.low:.2f}, "
                f"{slower.high:.2f}]",
                bad=True,
            )


def choices(training: TrainingReport) -> Iterator[Remark]:
    """State how well an algorithm chooses among candidate plans, on validation queries with all candidates executed."""
    found = training.scalars
    if found.keys() >= _CHOICES:
        yield Remark(
            text=f"{training.side}: the best-scored plan was the fastest in {found['validation_top1_accuracy']:.0%} of "
            f"{found['validation_queries']} validation queries with all candidate plans executed; regret {found['validation_regret']:.1%} "
            f"(PostgreSQL's own plans: {found['validation_own_regret']:.1%})"
        )


def no_results(record: Record) -> Iterator[Remark]:
    """Warn if most queries find nothing, so that their times are no result."""
    found = [run.empty for run in record.runs if run.side == record.header.baseline_side and run.empty is not None]
    if sum(found) > len(found) / 2:
        yield Remark(
            text=f"{sum(found)} of {len(found)} queries ({sum(found) / len(found):.0%}) have an empty result: PostgreSQL stops as soon as "
            "it finds nothing to join, so these times say little about plans; use this data only to check that everything works",
            bad=True,
        )


def record_remarks(record: Record) -> Iterator[Remark]:
    """Remark on the record itself: lines that are left out, unknown accuracies, answers that differ, and unused steering."""
    if BASELINE_AGAIN in record.header.sides:
        yield Remark(text="An A/A pair: both sides are plain PostgreSQL, so the interval is the noise of this machine.")
    if record.truncated:
        yield Remark(text="The last line of the record is cut off and left out.")
    for kind, lines in record.ignored.items():
        yield Remark(text=f"{counted(lines, 'line')} of the record left out: this version does not know the kind {kind!r}.")
    yield from _without_p_error(record)
    yield from _without_q_error(record)
    yield from _not_comparable(record)
    for report in record.reports:
        if report.steered_ratio is not None and report.steered_ratio < 1:
            yield Remark(text=f"{report.query_id}: {report.side} {_steered(report)}", bad=True)


def _without_p_error(record: Record) -> Iterator[Remark]:
    """Name the queries of each side with an unknown p-error, and the first reason."""
    for side in estimating_sides(record):
        lacking = [report for report in record.reports if report.side == side and report.p_error_reason is not None]
        if lacking:
            yield Remark(text=f"{side}: unknown p-error of {named(report.query_id for report in lacking)}: {lacking[0].p_error_reason}")


def _without_q_error(record: Record) -> Iterator[Remark]:
    """Name the queries of each side that is judged on others, but not on these, because PostgreSQL plans them with other sets there."""
    judged = {report.query_id for report in record.reports if report.side == record.header.baseline_side and report.estimates}
    for side in estimating_sides(record):
        reports = [report for report in record.reports if report.side == side and report.plan is not None]
        lacking = [report.query_id for report in reports if report.estimates is None and report.query_id in judged]
        if lacking and any(report.estimates for report in reports):
            why = "PostgreSQL does not consider the same sets of relations there as on the baseline"
            yield Remark(text=f"{side}: no q-error of {named(lacking)}: {why}")


def _not_comparable(record: Record) -> Iterator[Remark]:
    """Name the queries of each side whose answers SQL leaves open, by the reason."""
    reasons = dict.fromkeys((report.side, report.not_comparable) for report in record.reports if report.not_comparable is not None)
    for side, reason in reasons:
        queries = named(report.query_id for report in record.reports if (report.side, report.not_comparable) == (side, reason))
        yield Remark(text=f"{side}: the answer of {queries} is not comparable with the baseline's: {reason}")


def wide_intervals(summary: Summary) -> Iterator[Remark]:
    """Warn if an interval is too wide to be useful."""
    for name, side in summary.sides.items():
        if side.against and side.against.speedup.low < 1 / 2 and side.against.speedup.high > 2:
            measured = f"{counted(summary.header.rounds, 'round')} of {counted(len(side.against.queries), 'query', 'queries')}"
            yield Remark(text=f"{name}: the interval of {measured} is too wide to be useful; measure more rounds or more queries")


def wide_load(summary: Summary) -> Iterator[Remark]:
    """Say how little the rounds tell about throughput and scripts, whose pairs are the slices, and how many rounds would tell more."""
    rounds = summary.header.rounds
    for name, load in ((name, side.load) for name, side in summary.sides.items() if side.load):
        ratios = {"throughput": load.throughput, "write speed-up": load.writes.speedup if load.writes else None}
        wide = {figure: ratio for figure, ratio in ratios.items() if ratio and ratio.high > WIDE * ratio.estimate}
        told = f"{name}: {counted(rounds, 'round')} of slices tell"
        if wide and rounds < FEWEST_ROUNDS:
            yield Remark(text=f"{told} no interval of {' and '.join(wide)}; measure with --rounds {FIRST_ROUNDS} or more")
        elif wide:
            factors = " and ".join(f"the {figure} within a factor of {ratio.high / ratio.estimate:.2f}" for figure, ratio in wide.items())
            needed = [rounds_until(ratio, rounds, NARROW) for ratio in wide.values()]
            many = f"over {MOST_ROUNDS:,}" if None in needed else f"about {max(filter(None, needed)):,}"
            yield Remark(text=f"{told} {factors} only; with this noise {many} would tell within {NARROW - 1:.0%}")


def long_queries(summary: Summary) -> Iterator[Remark]:
    """Name the query that makes up most of a side's total, and those that take so long that a limit of time is advisable."""
    shares: dict[str, list[str]] = {}
    for name, side in summary.sides.items():
        largest = max(side.queries, key=lambda query: query.end_to_end_ms, default=None)
        if largest and len(side.queries) > FEW and (share := largest.end_to_end_ms / 1e3 / side.total_s) > MOST:
            shares.setdefault(largest.query_id, []).append(f"{share:.0%} of the total of {name}")
    for query_id, parts in shares.items():
        text = f"{query_id} alone takes {' and '.join(parts)}, so it decides the total; the speed-up per query counts all queries alike"
        yield Remark(text=text)
    long = {query.query_id for side in summary.sides.values() for query in side.queries if query.end_to_end_ms > LONG_MS}
    if long and summary.header.timeout_ms is None:
        takes = "takes" if len(long) == 1 else "take"
        yield Remark(text=f"{named(sorted(long))} {takes} over {LONG_MS // 1000} s; limit such queries with --query-timeout-ms")


def _steered(report: QueryReport) -> str:
    reasons = "; ".join(report.steering_reasons) or "no reason known"
    return f"steered {report.steered_ratio:.1%}: {reasons}"
