"""
The verdict on a record: the sentences that the terminal, the report and MLflow's description begin with.

They say for each side whether it is faster or slower than the baseline and how sure that is, then name its slowest and fastest queries.
A run that failed says what failed. PostgreSQL measured against itself says how noisy the machine is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, isfinite, isinf

from pytest_pilotscope.errors import counted, named
from pytest_pilotscope.record.conditions import conditions_text
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE, BASELINE_AGAIN, PARTIAL, MachineLoad, RunHeader
from pytest_pilotscope.statistics.figures import NOISE_FLOOR_MS, Against, SideSummary
from pytest_pilotscope.statistics.intervals import Interval, Outcome
from pytest_pilotscope.statistics.summary import Summary

LEAST_S = 0.0995
"""Shorter times are shown in ms."""

NO_SPREAD = "have no spread to judge by; measure more"
TOO_FEW = "too few rounds or queries to tell"

WIDEST = 10.0
"""An interval that reaches further than this factor from its estimate tells nothing, so its numbers are not shown."""


MOST_STOLEN = 0.02
"""A run says so if its hypervisor took a larger share of the processors' time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One or more sentences about a record; `bad` marks a problem."""

    text: str
    bad: bool = False


def verdict(record: Record, summary: Summary) -> tuple[Remark, ...]:
    """Return a paragraph on the run if it did not end well, then one on each side, the fastest first, then one on its queries."""
    sides = [side for name, side in summary.sides.items() if name != record.header.baseline_side]
    ranked = sorted(sides, key=lambda side: -side.against.speedup.estimate if side.against else 0.0)
    baseline = summary.sides[record.header.baseline_side]
    paragraphs = [_alone(summary.header, baseline)] if not ranked and baseline.queries else []
    for side in ranked:
        paragraphs += _of_side(record, baseline, side)
    return (*_ending(record, baseline), *paragraphs)


def name_of_baseline(header: RunHeader) -> str:
    """Return `PostgreSQL` with its version for the unsteered baseline, else the name of the baseline's side."""
    if header.baseline_side != BASELINE:
        return header.baseline_side
    return " ".join(("PostgreSQL", *str(header.server.get("version", "")).split()[:1]))


def times_text(value: float, *, digits: int = 2) -> str:
    """Return a factor with two decimals, or with as many as show that it is not 1."""
    while f"{value:.{digits}f}" == f"{1:.{digits}f}" and value != 1 and digits < 4:
        digits += 1
    return f"{value:,.0f}" if value >= 100 else f"{value:.{digits}f}"


def seconds_text(seconds: float) -> str:
    """Return seconds with two digits or more; in ms if they are under a tenth of a second."""
    if seconds < 1e-4:
        return "under 0.1 ms" if seconds > 0 else "0 s"
    if seconds < LEAST_S:
        return f"{seconds * 1e3:.2g} ms"
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2g} s"


def _ending(record: Record, baseline: SideSummary) -> Iterator[Remark]:
    """State the conditions under which no verdict is sure, and each failure once."""
    header, end = record.header, record.end
    if header.parallel:
        yield Remark(text="Measured beside other workers: these times are noise.", bad=True)
    if text := _machine_load(record):
        yield Remark(text=text, bad=True)
    if end is None or end.status == "KILLED":
        done = f"{len(baseline.queries)} of {counted(len(header.queries), 'query', 'queries')}"
        yield Remark(text=f"The run was interrupted; its figures cover what was measured. The baseline has all rounds of {done}.", bad=True)
    error = (end.error or "") if end and end.status == "FAILED" else ""
    if error:
        yield Remark(text=f"FAILED: {error}", bad=True)
    for side, text in (end.failure_texts() if end else {}).items():
        if end is not None and end.failures[side] not in error:
            yield Remark(text=text, bad=True)


def _machine_load(record: Record) -> str | None:
    """Return a sentence if more wanted to run than the machine has processors for, or if its hypervisor took some of their time."""
    start, end = record.header.machine_load, record.end and record.end.machine_load
    if start is None:
        return None
    conditions = record.header.conditions
    own = conditions.get("clients", 1) * (1 + conditions.get("parallel", 0))
    averages = [("at the start", start.load_average)] + ([("at the end", end.load_average)] if end else [])
    stolen = _stolen(start, end) if end else 0.0
    if max(average for _, average in averages) <= max(start.processors, own) and stolen < MOST_STOLEN:
        return None
    loads = " and ".join(f"{average:.1f} {when}" for when, average in averages)
    steal = f"; others had {stolen:.1%} of their time" if stolen >= MOST_STOLEN else ""
    return (
        f"Measured on a loaded machine (load average {loads}, {counted(start.processors, 'processor')}{steal}): absolute times, "
        "inference above all, are upper bounds; compare ratios, or measure on a quiet machine."
    )


def _stolen(start: MachineLoad, end: MachineLoad) -> float:
    """Return the share of the processors' time between two moments that the hypervisor took; 0 if it is not known."""
    if None in (start.stolen_s, start.elapsed_s, end.stolen_s, end.elapsed_s):
        return 0.0
    elapsed_s = (end.elapsed_s or 0.0) - (start.elapsed_s or 0.0)
    return ((end.stolen_s or 0.0) - (start.stolen_s or 0.0)) / elapsed_s if elapsed_s > 0 else 0.0


def _alone(header: RunHeader, side: SideSummary) -> Remark:
    queries = counted(len(side.queries), "query", "queries")
    return Remark(text=f"{name_of_baseline(header)} took {_bound(side)}{seconds_text(side.total_s)} for {queries} of {header.dataset}.")


def _of_side(record: Record, baseline: SideSummary, side: SideSummary) -> Iterator[Remark]:
    against = side.against
    if against is None:
        if record.end is not None and side.side not in record.end.failures and not record.end.error:
            yield Remark(text=f"{side.side} has no query to compare: {_left_out(side)}.", bad=True)
    elif side.side == BASELINE_AGAIN:
        yield from _noise(record.header, against)
    else:
        sentences = [_compared(record, baseline, side, against), *_limits(baseline, side, against), *_costs(side, against)]
        yield Remark(text=" ".join(sentences), bad=against.is_result and against.speedup.high < 1)
        yield from _queries(baseline, side, against)


def _compared(record: Record, baseline: SideSummary, side: SideSummary, against: Against) -> str:
    """Return the first sentence on a side: the speed-up of the total, its certainty, and its parts."""
    header, speedup = record.header, against.speedup
    other, where = name_of_baseline(header), _where(header)
    means = _parts(baseline, side)
    if isinf(speedup.high):
        return f"{side.side} cannot be told apart from {other}{where}: too few rounds {NO_SPREAD}."
    if against.below_noise_floor:
        means = f": they differ by {abs(against.difference_ms):.2f} ms per query, less than the noise floor of {NOISE_FLOOR_MS} ms"
    elif is_useless(speedup):
        if not against.is_result:
            return f"{side.side} cannot be told apart from {other}{where}: {TOO_FEW}."
        return f"{side.side} is {'faster' if speedup.estimate > 1 else 'slower'} than {other}{where}: {TOO_FEW} by how much."
    elif against.is_result:
        faster = speedup.estimate > 1
        shown = speedup if faster else speedup.inverse
        sure = "" if header.parallel else ", sure"
        words = f"is {times_text(shown.estimate)} times as fast as" if faster else f"takes {times_text(shown.estimate)} times as long as"
        return f"{side.side} {words} {other}{where} ({_range(shown)}{sure}){means}."
    between = "" if is_useless(speedup) else f" ({_range(speedup)} times as fast)"
    return f"{side.side} cannot be told apart from {other}{where}{between}{means}."


def is_useless(interval: Interval) -> bool:
    """Tell whether an interval is too wide to be shown."""
    return interval.high > WIDEST * interval.estimate or interval.estimate > WIDEST * interval.low


def _parts(baseline: SideSummary, side: SideSummary) -> str:
    """Return the server's time that a side saves, and the time that its inference takes; nothing without inference."""
    own = {query.query_id: query for query in baseline.queries}
    pairs = [(own[query.query_id], query) for query in side.queries if query.query_id in own]
    inference_s = sum(query.inference_ms for _, query in pairs) / 1e3
    if not inference_s:
        return ""
    saved_s = sum(one.planning_ms + one.execution_ms - query.planning_ms - query.execution_ms for one, query in pairs) / 1e3
    saved = f"saves {seconds_text(saved_s)}" if saved_s >= 0 else f"adds {seconds_text(-saved_s)}"
    processor_ms = [query.inference_processor_ms for _, query in pairs]
    known = None not in processor_ms
    processor = f" ({seconds_text(sum(ms or 0.0 for ms in processor_ms) / 1e3)} of processor time)" if known else ""
    return f": it {saved} of planning and execution and spends {seconds_text(inference_s)} on inference{processor}"


def _limits(baseline: SideSummary, side: SideSummary, against: Against) -> Iterator[str]:
    """State what the figures leave out: queries without times, time-outs, and estimates that PostgreSQL did not use."""
    if against.left_out:
        yield f"This leaves out {against.left_out} of its queries: {_left_out(side) or 'the baseline has no times for them'}."
    for timed_out, effect in ((side, "slower"), (baseline, "faster")):
        if timed_out.timeout_count:
            whose = "Its runs" if timed_out is side else "Runs of the baseline"
            yield f"{whose} timed out on {counted(timed_out.timeout_count, 'query', 'queries')}, so it may be {effect} still."
    if side.steered_ratio is not None and side.steered_ratio < 1:
        yield f"PostgreSQL used {side.steered_ratio:.1%} of its steering."


def _costs(side: SideSummary, against: Against) -> Iterator[str]:
    """State the plans that differ, and the training that a faster side pays off."""
    plans = against.plans
    if plans and plans.queries == 1:
        yield "Its plan is another one." if plans.changed else "Its plan is the same."
    elif plans:
        yield f"{plans.changed or 'None'} of its {plans.queries} plans {'differ' if plans.changed > 1 else 'differs'}."
    pays_off = against.break_even.estimate if against.break_even and against.is_result and against.speedup.low > 1 else float("inf")
    if isfinite(pays_off) and not is_useless(against.speedup) and side.training_s and side.training_s >= 1:
        runs = counted(ceil(pays_off), "execution")
        yield f"Its {seconds_text(side.training_s)} of training pay off after {runs} of the workload."


def _queries(baseline: SideSummary, side: SideSummary, against: Against) -> Iterator[Remark]:
    """Name the significantly slower queries, the most time lost first, then the faster ones."""
    own = {query.query_id: query for query in baseline.queries}
    measured = [query for query in side.queries if query.query_id in own]
    changes_ms = {query.query_id: query.end_to_end_ms - own[query.query_id].end_to_end_ms for query in measured}
    ratios = {query.query_id: query.ratio for query in against.queries}
    for outcome, word in _OUTCOMES.items():
        found = [query.query_id for query in against.queries if query.outcome == outcome]
        if found:
            found.sort(key=lambda id_: -abs(changes_ms[id_]))
            listed = named(f"{id_} ({changes_ms[id_]:+,.1f} ms, {_factor(ratios[id_], outcome)}x)" for id_ in found)
            count = f"{len(found)} of {counted(len(against.queries), 'query', 'queries')}"
            yield Remark(text=f"{side.side} is significantly {word} on {count}: {listed}", bad=outcome == "loss")


_OUTCOMES: Mapping[Outcome, str] = {"loss": "slower", "win": "faster"}


def _factor(ratio: Interval, outcome: Outcome) -> str:
    return times_text(ratio.estimate if outcome == "loss" else ratio.inverse.estimate)


def _noise(header: RunHeader, against: Against) -> Iterator[Remark]:
    """State the noise of the machine: PostgreSQL is neither faster nor slower than itself."""
    speedup, name = against.speedup, name_of_baseline(header)
    off = max(speedup.high, 1 / speedup.low if speedup.low > 0 else float("inf")) - 1
    if against.is_result:
        by = "" if is_useless(speedup) else f" by {abs(1 - speedup.estimate):.1%} ({_range(speedup)})"
        text = f"This machine is too noisy: {name}, measured against itself{_where(header)}, differs{by}"
        yield Remark(text=f"{text}; measure on a quiet machine, or more rounds.", bad=True)
    elif isinf(off):
        yield Remark(text=f"{name} was measured against itself{_where(header)}: too few rounds {NO_SPREAD}.")
    elif is_useless(speedup):
        yield Remark(text=f"{name} was measured against itself{_where(header)}: {TOO_FEW}.")
    else:
        text = f"{name}, measured against itself{_where(header)}, cannot be told apart ({_range(speedup)} times as fast)"
        least = f"{off:.1%}" if off < 1 else f"a factor of {times_text(1 + off)}"
        yield Remark(text=f"{text}: on this machine a difference of less than {least} is noise.")
    if noisy := against.noisy:
        worst = named(f"{id_} ({times_text(factor)}x)" for id_, factor in sorted(noisy.items(), key=lambda item: -item[1]))
        count = f"{len(noisy)} of {counted(len(against.queries), 'query', 'queries')}"
        yield Remark(text=f"This machine is too noisy for single queries: PostgreSQL differs from itself on {count}: {worst}", bad=True)


def _where(header: RunHeader) -> str:
    partial = header.tags.get(PARTIAL)
    conditions = f" with {conditions_text(header.conditions)}" if header.conditions else ""
    return (f" on {partial} of {header.dataset}" if partial else f" on {header.dataset}") + conditions


def _range(interval: Interval) -> str:
    high = "∞" if isinf(interval.high) else times_text(interval.high)
    return f"{times_text(interval.low)} to {high}"


def _bound(side: SideSummary) -> str:
    return "at least " if side.lower_bound else ""


def _left_out(side: SideSummary) -> str:
    parts = ((side.error_count, "failed"), (side.unmeasured_count, "not measured in every round"))
    return ", ".join(f"{count} {what}" for count, what in parts if count)
