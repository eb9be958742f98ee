"""The sentences that the terminal, the report and MLflow's description begin with."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from pytest_pilotscope.record.conditions import conditions_text
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import PARTIAL, MachineLoad, QueryReport, RunEnd, SubplanEstimate, TrainingReport
from pytest_pilotscope.report.figure_table import figure_table
from pytest_pilotscope.report.terminal import render_records
from pytest_pilotscope.statistics.intervals import Interval
from pytest_pilotscope.statistics.summary import metrics, summarize, summary_json
from pytest_pilotscope.statistics.verdict import seconds_text, times_text, verdict
from tests.record.building import FINISHED, record_of
from tests.statistics.test_ranking import record_of_sides


def texts(record: Record) -> list[str]:
    """Return the paragraphs of the verdict."""
    return [remark.text for remark in verdict(record, summarize(record))]


def measured(algorithm: str, **sides: list[float]) -> Record:
    """Return six queries whose times on each side are these factors of 20, 30, ... ms, with 0.5 % of noise."""
    random = np.random.default_rng(1)
    return record_of(
        {
            side.replace("_", "-"): {
                f"q{i}": [(20 + 10 * i) * factor * float(np.exp(random.normal(0, 0.005))) for _ in range(5)]
                for i, factor in enumerate(factors)
            }
            for side, factors in {"baseline": [1.0] * 6, **sides}.items()
        },
        algorithm=algorithm,
    )


def of_server(record: Record) -> Record:
    """Return the record with the version of its server."""
    return replace(record, header=replace(record.header, server={"version": "18.4 (Debian 18.4-1)"}))


def test_a_faster_side_begins_with_its_speedup_its_certainty_and_its_parts() -> None:
    """The first paragraph can be read without the table: how fast, on what, how sure, where the time went, and the plans that differ."""
    record = of_server(record_of_sides(oracle=0.5))
    shapes = (("q0", "baseline", "a"), ("q0", "oracle", "b"), ("q1", "baseline", "a"), ("q1", "oracle", "a"))
    reports = tuple(QueryReport(query_id=query_id, side=side, plan_shape=shape) for query_id, side, shape in shapes)
    first, faster = texts(replace(record, reports=reports))
    assert first == (
        "oracle is 2.00 times as fast as PostgreSQL 18.4 on stats_tiny (1.99 to 2.01, sure): "
        "it saves 0.32 s of planning and execution and spends 20 ms on inference. 1 of its 2 plans differs."
    )
    assert faster.startswith("oracle is significantly faster on 20 of 20 queries: q19 (-19.")


@pytest.mark.parametrize(
    ("count", "changed", "sentence"),
    [
        (1, 0, "Its plan is the same."),
        (1, 1, "Its plan is another one."),
        (2, 0, "None of its 2 plans differs."),
        (2, 1, "1 of its 2 plans differs."),
        (2, 2, "2 of its 2 plans differ."),
    ],
)
def test_the_plans_that_differ_are_counted_in_words(count: int, changed: int, sentence: str) -> None:
    """No plan is none, one plan differs, and of a single one nothing is counted."""
    reports = tuple(
        QueryReport(query_id=f"q{place}", side=side, plan_shape="b" if side == "oracle" and place < changed else "a")
        for place in range(count)
        for side in ("baseline", "oracle")
    )
    assert texts(replace(record_of_sides(oracle=0.5), reports=reports))[0].endswith(f"on inference. {sentence}")


def test_a_slower_side_is_a_problem() -> None:
    """It takes longer, and the queries that lose the most time come first."""
    record = record_of_sides(slow=2.0)
    first, slower = verdict(record, summarize(record))
    assert first.bad
    assert first.text.startswith("slow takes 2.00 times as long as PostgreSQL on stats_tiny (1.99 to 2.01, sure): it adds 0.57 s of ")
    assert slower.bad
    assert slower.text.startswith("slow is significantly slower on 20 of 20 queries: q19 (+38.")
    assert slower.text.endswith("x) and 15 more")
    lost_ms = [float(part.split("(+")[1].split(" ms")[0]) for part in slower.text.split(": ")[1].split("), ")]
    assert lost_ms == sorted(lost_ms, reverse=True)
    assert summary_json(record)["extra_info"]["regressions"]["slow"]["q1"] == pytest.approx(2.0, rel=0.1)


def test_a_side_within_noise_cannot_be_told_apart() -> None:
    """Its interval includes 1, and it is neither faster nor slower; no query is named."""
    random = np.random.default_rng(0)
    times = {side: {f"q{i}": list(random.normal(100, 15, 5)) for i in range(8)} for side in ("baseline", "mscn")}
    record = record_of(times)
    (told,) = texts(record)
    assert told.startswith("mscn cannot be told apart from PostgreSQL on stats_tiny (0.")
    assert " times as fast): it " in told
    assert "sure" not in told


def test_one_round_says_nothing() -> None:
    """A single round has no spread, whatever its ratio."""
    record = record_of({"baseline": {"q": [100.0]}, "mscn": {"q": [1.0]}})
    assert texts(record) == [
        "mscn cannot be told apart from PostgreSQL on stats_tiny: too few rounds have no spread to judge by; measure more."
    ]


@pytest.mark.parametrize(
    ("side", "told"), [("mscn", "mscn cannot be told apart from PostgreSQL"), ("baseline-again", "PostgreSQL was measured")]
)
@pytest.mark.parametrize("other", [[[700.0, 1.0], [3.0, 600.0]], [[100.0, 100.1], [1.0, 1.0]]])
def test_an_interval_that_tells_nothing_is_not_shown(side: str, told: str, other: list[list[float]]) -> None:
    """An interval that spans factors of 10 to a side has no numbers in the verdict, on a side and on PostgreSQL itself."""
    own = [[1.0, 900.0], [800.0, 2.0]] if other[0][0] == 700 else [[100.0, 100.1], [9e6, 9e6]]
    times = {name: {f"q{i}": list(ms) for i, ms in enumerate(found)} for name, found in (("baseline", own), (side, other))}
    first = texts(record_of(times, algorithm=side.removesuffix("-again")))[0]
    assert first.startswith(told)
    assert first.endswith(" on stats_tiny: too few rounds or queries to tell.")


def test_a_side_that_is_faster_by_nobody_knows_how_much_is_faster() -> None:
    """It is sure that it is faster, and the factor is not shown."""
    speedup = Interval(estimate=900.0, low=2.0, high=400_000.0)
    record = record_of_sides(fast=0.5)
    summary = summarize(record)
    side = summary.sides["fast"]
    assert side.against is not None
    wide = {**summary.sides, "fast": replace(side, against=replace(side.against, speedup=speedup))}
    first = verdict(record, replace(summary, sides=wide))[0].text
    assert first == "fast is faster than PostgreSQL on stats_tiny: too few rounds or queries to tell by how much."


def test_what_the_figures_leave_out_is_said() -> None:
    """Failed queries, time-outs on either side and unused steering are in the paragraph."""
    times = {"q1": [100.0] * 5, "q2": [100.0, 101.0, 99.0, 100.0, 100.0], "q3": [50.0] * 5, "q4": [80.0, 81.0, 80.0, 79.0, 80.0]}
    record = record_of({"baseline": times, "mscn": {**times, "q1": ["boom"] * 5, "q3": [">500"] * 5}})
    report = QueryReport(query_id="q2", side="mscn", steered_ratio=0.931)
    told = texts(replace(record, reports=(report,)))[0]
    assert "This leaves out 1 of its queries: 1 failed." in told
    assert "Its runs timed out on 1 query, so it may be slower still." in told
    assert "PostgreSQL used 93.1% of its steering." in told


def test_training_that_pays_off_is_said() -> None:
    """A faster side names its training and the executions that pay for it; another one does not."""
    record = record_of_sides(fast=0.5, same=1.0)
    training = tuple(TrainingReport(side=side, duration_s=12.0) for side in ("fast", "same"))
    told = texts(replace(record, training=training))
    assert "Its 12 s of training pay off after 41 executions of the workload." in told[0]
    assert "pay off" not in "".join(told[1:])


def test_the_fastest_side_comes_first() -> None:
    """A comparison has a paragraph for each side, in the order of their speed-ups."""
    told = texts(record_of_sides(slow=2.0, fast=0.5))
    assert [line.split()[0] for line in told] == ["fast", "fast", "slow", "slow"]


def test_a_part_of_the_workload_is_said() -> None:
    """With --limit the verdict is on those queries, and the baseline by itself has a verdict, too."""
    record = record_of_sides(fast=0.5)
    header = replace(record.header, tags={PARTIAL: "20 of 146 queries"})
    assert "PostgreSQL on 20 of 146 queries of stats_tiny (" in texts(replace(record, header=header))[0]
    alone = replace(record, header=replace(record.header, sides=("baseline",)), runs=tuple(r for r in record.runs if r.side == "baseline"))
    assert texts(alone) == ["PostgreSQL took 0.59 s for 20 queries of stats_tiny."]


def test_conditions_of_production_are_said() -> None:
    """A verdict holds for the conditions of the run, so it names them."""
    record = record_of_sides(fast=0.5)
    header = replace(record.header, conditions={"clients": 4})
    assert f"as PostgreSQL on stats_tiny with {conditions_text(header.conditions)} (" in texts(replace(record, header=header))[0]


def test_postgresql_is_not_accused_by_itself() -> None:
    """An A/A pair states the noise of the machine."""
    record = of_server(measured("baseline", baseline_again=[1.0] * 6))
    (told,) = texts(record)
    assert told.startswith("PostgreSQL 18.4, measured against itself on stats_tiny, cannot be told apart (0.99")
    assert told.endswith("% is noise.")


def test_noise_beyond_a_hundred_per_cent_is_a_factor() -> None:
    """A difference of `400%` of a time is hard to read; it is a factor then."""
    (told, *_) = texts(of_server(measured("baseline", baseline_again=[0.3, 3.0, 0.3, 3.0, 0.4, 2.5])))
    assert re.search(r": on this machine a difference of less than a factor of [2-9]\.\d\d is noise\.$", told), told


@pytest.mark.parametrize("factor", [1.5, 0.5])
def test_a_query_that_differs_from_itself_shows_a_noisy_machine(factor: float) -> None:
    """Neither text, table, page nor summary says that PostgreSQL is slower, or faster, than itself; the noise has its size."""
    record = measured("baseline", baseline_again=[1.0, 1.0, 1.0, 1.0, 1.0, factor])
    summary = summarize(record)
    told = verdict(record, summary)
    expected = f"{max(factor, 1 / factor):.1f}"
    assert told[-1].bad
    assert told[-1].text.startswith(
        f"This machine is too noisy for single queries: PostgreSQL differs from itself on 1 of 6 queries: q5 ({expected}"
    )
    shown = render_records([record], width=None, color=False)
    assert "slower" not in shown
    assert "faster" not in shown
    assert "0/1/5" not in shown
    assert "1/0/5" not in shown
    assert "won/lost/tied" not in {figure.name for figure, _ in figure_table(summary).rows}
    assert summary_json(record)["extra_info"]["regressions"] == {"baseline-again": {}}


def test_a_workload_that_differs_from_itself_shows_a_noisy_machine() -> None:
    """If the interval of the pair excludes 1, the machine is too noisy, by so much."""
    record = measured("baseline", baseline_again=[1.1] * 6)
    told = verdict(record, summarize(record))[0]
    assert told.bad
    assert told.text.startswith("This machine is too noisy: PostgreSQL, measured against itself on stats_tiny, differs by 9.")
    assert told.text.endswith("; measure on a quiet machine, or more rounds.")


def test_a_failed_run_says_so_once_and_shows_no_zeros() -> None:
    """The failure is there once, and there is no table."""
    record = record_of({"baseline": {}, "mscn": {}})
    end = RunEnd(status="FAILED", finished_at="2025-01-01T00:10:00+00:00", error="ModelError: mscn: the network is gone; train it")
    shown = render_records([replace(record, end=end)], width=None, color=False)
    assert shown.splitlines() == [
        "FAILED: ModelError: mscn: the network is gone; train it",
        "mscn_stats_tiny_20250101_000000: FAILED, 5 rounds, seed 0",
    ]
    both = replace(end, error="SideFailed: mscn: boom", failures={"mscn": "boom"})
    assert texts(replace(record, end=both)) == ["FAILED: SideFailed: mscn: boom"]
    sides = replace(end, error=None, failures={"mscn": "mscn left 1 of 1 query to PostgreSQL", "other": "KeyError: 'oops'"})
    assert texts(replace(record, end=sides)) == ["mscn left 1 of 1 query to PostgreSQL", "other failed: KeyError: 'oops'"]


def test_a_side_that_failed_has_no_zeros_beside_one_that_did_not() -> None:
    """Its times are dashes."""
    record = record_of({"baseline": {"q": [10.0, 10.0]}, "mscn": {"q": ["boom", "boom"]}})
    row = [line.split() for line in render_records([record], width=None, color=False).splitlines() if line.strip().startswith("mscn  ")]
    assert row == [["mscn", "0", "-", "-", "-", "0", "1", "-", "-", "-"]]


def test_an_interrupted_run_says_how_far_it_came() -> None:
    """Times beside other workers are noise, which is said, too."""
    record = record_of({"baseline": {"q": [10.0, 10.0]}, "mscn": {"q": [10.0, 10.0]}})
    unfinished = replace(record, end=None, header=replace(record.header, queries={"q": "", "r": ""}, parallel=True))
    assert texts(unfinished)[:2] == [
        "Measured beside other workers: these times are noise.",
        "The run was interrupted; its figures cover what was measured. The baseline has all rounds of 1 of 2 queries.",
    ]


def test_errors_of_estimates_are_of_sides_that_estimate() -> None:
    """`index` and `knob` plan with PostgreSQL's estimates, whose errors are neither in the text nor among the metrics."""
    estimate = SubplanEstimate(aliases=("u",), estimated=10, true=20)
    sides = ("baseline", "index", "mscn")
    reports = tuple(QueryReport(query_id="q0", side=side, estimates=(estimate,), p_error=1.5) for side in sides)
    without = replace(record_of_sides(index=0.5), reports=reports[:2])
    assert "q-error" not in render_records([without], width=None, color=False)
    assert not [
        name for side in ("baseline", "index") for name in metrics(summarize(without), side) if "perror" in name or "qerror" in name
    ]
    steered = replace(record_of_sides(index=0.5, mscn=0.5), reports=(*reports[:2], replace(reports[2], steered_ratio=1.0)))
    cells = {figure.name: cells for figure, cells in figure_table(summarize(steered)).rows}
    assert cells["q-error"] == ("2.00 / 2.00 / 2.00", "-", "2.00 / 2.00 / 2.00")
    assert cells["p-error"] == ("1.50 / 1.50 / 1.50", "-", "1.50 / 1.50 / 1.50")


def test_factors_show_that_they_are_not_one() -> None:
    """More digits where two would hide the difference, fewer where they say nothing."""
    assert [times_text(value) for value in (1.0, 1.004, 1.35, 99.5, 1234.5)] == ["1.00", "1.004", "1.35", "99.50", "1,234"]
    assert [seconds_text(value) for value in (0.0, 1e-6, 0.0003, 0.0413, 0.09949, 0.0996, 0.77, 2.71, 26.4, 12345.6)] == [
        "0 s",
        "under 0.1 ms",
        "0.3 ms",
        "41 ms",
        "99 ms",
        "0.1 s",
        "0.77 s",
        "2.7 s",
        "26 s",
        "12,346 s",
    ]


def loaded(start: float, end: float | None, *, stolen_s: float | None = 0.0, processors: int = 2, **conditions: int) -> Record:
    """Return a record with these load averages; both processors had 100 s in all."""
    record = record_of_sides(oracle=0.5)
    known = stolen_s is not None
    first = MachineLoad(processors=processors, load_average=start, stolen_s=50.0 if known else None, elapsed_s=900.0 if known else None)
    header = replace(record.header, machine_load=first, conditions=conditions)
    last = None if end is None else replace(first, load_average=end)
    if last is not None and stolen_s is not None:
        last = replace(last, stolen_s=50.0 + stolen_s, elapsed_s=1000.0)
    return replace(record, header=header, end=replace(FINISHED, machine_load=last))


LOADED = "absolute times, inference above all, are upper bounds; compare ratios, or measure on a quiet machine."


@pytest.mark.parametrize(
    ("record", "load"),
    [
        (loaded(7.14, 1.0), "load average 7.1 at the start and 1.0 at the end, 2 processors"),
        (loaded(1.0, 2.6), "load average 1.0 at the start and 2.6 at the end, 2 processors"),
        (loaded(1.5, 1.0, processors=1), "load average 1.5 at the start and 1.0 at the end, 1 processor"),
        (loaded(3.0, None), "load average 3.0 at the start, 2 processors"),
        (loaded(0.5, 1.0, stolen_s=4.0), "load average 0.5 at the start and 1.0 at the end, 2 processors; others had 4.0% of their time"),
        (loaded(9.0, 9.0, clients=4, parallel=1), "load average 9.0 at the start and 9.0 at the end, 2 processors"),
        (loaded(9.0, 9.0, stolen_s=None), "load average 9.0 at the start and 9.0 at the end, 2 processors"),
    ],
)
def test_a_run_on_a_loaded_machine_says_so(record: Record, load: str) -> None:
    """The first sentence has the load at both ends, and the time that the hypervisor took, if it is much."""
    first = verdict(record, summarize(record))[0]
    assert (first.bad, first.text) == (True, f"Measured on a loaded machine ({load}): {LOADED}")


@pytest.mark.parametrize(
    "record",
    [
        loaded(2.0, 2.0),
        loaded(8.0, 8.0, clients=4, parallel=1),  # its own
        loaded(0.5, 1.0, stolen_s=1.9),
        loaded(0.5, 1.0, stolen_s=None),
        record_of_sides(oracle=0.5),  # an older record
    ],
)
def test_a_run_on_a_quiet_machine_says_nothing_about_it(record: Record) -> None:
    """Its own processes are not load, and neither is what is not known."""
    assert not any("loaded" in text for text in texts(record))


def test_the_processor_time_of_inference_stands_beside_its_time() -> None:
    """If all runs have it; older records do not."""
    record = record_of_sides(oracle=0.5)
    runs = tuple(replace(run, inference_processor_ms=0.0 if run.side == "baseline" else 0.25) for run in record.runs)
    assert "spends 20 ms on inference (5 ms of processor time)." in texts(replace(record, runs=runs))[0]
    older = (*runs[:-1], replace(runs[-1], inference_processor_ms=None))
    assert "spends 20 ms on inference." in texts(replace(record, runs=older))[0]
