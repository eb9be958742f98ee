"""The gate's decisions; nothing passes silently."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from pytest_pilotscope.gate.exact_figures import FIGURES, Regression
from pytest_pilotscope.gate.rules import GateReport, Policy, decide, decide_against_baseline, describe, describe_power
from pytest_pilotscope.gate.writes import SCRIPTS, ComparedWrites, judged_writes
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryReport, RunEnd, Scalar, SubplanEstimate, TrainingReport, WriteRun
from tests.record.building import record_of, run_of

QUERIES = tuple(f"q{i}" for i in range(20))


def measured(seed: int, *, factors: Mapping[str, float] | None = None, slowdown: float = 1.0, queries: tuple[str, ...] = QUERIES) -> Record:
    """Return a run of mscn over the queries with 2 % noise, in which some queries take `factors` times as long and all `slowdown` times."""
    random = np.random.default_rng(seed)
    true_ms = {query_id: 10.0 + 5 * i for i, query_id in enumerate(queries)}
    times = {
        side: {
            query_id: [
                true * (slowdown * (factors or {}).get(query_id, 1.0) if side == "mscn" else 1.0) * float(np.exp(random.normal(0, 0.02)))
                for _ in range(5)
            ]
            for query_id, true in true_ms.items()
        }
        for side in ("baseline", "mscn")
    }
    return record_of(times)


def changed(record: Record, **changes: object) -> Record:
    """Return the record with another header."""
    return replace(record, header=replace(record.header, **changes))  # type: ignore[arg-type]  # the names are the tests' own


def reported(record: Record, *reports: QueryReport, scalars: Mapping[str, int | float] | None = None) -> Record:
    """Return the record with exact figures."""
    training = (TrainingReport(side="mscn", duration_s=1.0, scalars=scalars),) if scalars else ()
    return replace(record, reports=reports, training=training)


def kinds(report: GateReport) -> list[str]:
    """Return the names of a report's states."""
    return [state.kind for state in report.states]


def test_an_unchanged_program_passes() -> None:
    """Two runs of the same thing differ by noise only: exit 0, nothing reported, and all queries were compared."""
    report = decide(measured(1), measured(2), Policy())
    assert (report.verdict, report.exit_code, report.regressions, report.states) == ("PASSED", 0, (), ())
    assert [(compared.side, compared.queries) for compared in report.compared] == [("mscn", 20)]


def test_a_slower_workload_regresses() -> None:
    """10 % more everywhere: both figures of the workload clear 3 %, no single query clears 20 %."""
    report = decide(measured(1, slowdown=1.1), measured(2), Policy())
    assert (report.verdict, report.exit_code) == ("REGRESSED", 1)
    assert [(regression.figure, regression.query_id) for regression in report.regressions] == [
        ("geometric mean", None),
        ("total time", None),
    ]


def test_a_slower_query_regresses_by_name() -> None:
    """One query at twice its time is named, with its ratio and interval, and the others are not."""
    report = decide(measured(1, factors={"q7": 2.0}), measured(2), Policy())
    [regression] = [regression for regression in report.regressions if regression.query_id]
    assert (regression.side, regression.figure, regression.query_id, regression.allowed) == ("mscn", "time", "q7", 1.2)
    assert regression.ratio is not None
    assert 1.2 < regression.ratio.low < 2 < regression.ratio.high


def test_a_faster_program_passes() -> None:
    """A faster run passes."""
    assert decide(measured(1, slowdown=0.5), measured(2), Policy()).verdict == "PASSED"


def test_deltas_are_the_users() -> None:
    """10 % more passes where 15 % are allowed, and a doubled query where 200 % are."""
    assert decide(measured(1, slowdown=1.1), measured(2), Policy(delta=0.15)).verdict == "PASSED"
    assert decide(measured(1, factors={"q7": 2.0}), measured(2), Policy(delta=0.5, query_delta=2.0)).verdict == "PASSED"


def test_a_slower_machine_is_no_regression() -> None:
    """The ratio to each run's own baseline is compared, so a machine at a third of the speed passes."""
    slow = measured(1)
    runs = tuple(
        replace(run, inference_ms=3 * run.inference_ms, planning_ms=3 * run.planning_ms, execution_ms=3 * run.execution_ms)
        for run in slow.runs
    )
    assert decide(replace(slow, runs=runs), measured(2), Policy()).verdict == "PASSED"


def test_being_slower_than_the_baseline_all_along_is_no_regression() -> None:
    """A method that was and is twice as slow as plain PostgreSQL passes against its stored run, and fails against its own baseline."""
    today, yesterday = measured(1, slowdown=2.0), measured(2, slowdown=2.0)
    assert decide(today, yesterday, Policy()).verdict == "PASSED"
    report = decide_against_baseline(today, Policy())
    assert (report.verdict, report.against) == ("REGRESSED", "baseline")
    assert decide_against_baseline(measured(1), Policy()).verdict == "PASSED"


@pytest.mark.parametrize("decision", ["fail", "warn"])
def test_no_baseline_is_a_state(decision: Literal["fail", "warn"]) -> None:
    """Without a reference the gate fails, or warns and passes, as the policy says."""
    report = decide(measured(1), None, Policy(on_missing=decision))
    assert kinds(report) == ["missing-reference"]
    expected = {"fail": ("NOT COMPARABLE", 1), "warn": ("PASSED WITH RESERVATIONS", 0)}
    assert (report.verdict, report.exit_code) == expected[decision]


NEW = "SELECT 1"


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"parallel": True}, "parallel", "the run measured beside other workers; measure without -n"),
        (
            {"server": {"debug_assertions": True}},
            "debug-build",
            "the run used a PostgreSQL built with assertions, which is 3-4 times slower; use a release build",
        ),
        (
            {"fingerprints": {"build": "17.2", "statistics": "aa", "data": "bb"}},
            "other-build",
            "the runs differ in build: 17.2 here, 16.4 in the reference",
        ),
        (
            {"fingerprints": {"build": "16.4", "statistics": "zz", "data": "bb"}},
            "other-statistics",
            "the runs differ in statistics: zz here, aa in the reference",
        ),
        (
            {"fingerprints": {"build": "16.4", "statistics": "aa"}},
            "other-data",
            "the runs differ in data: unknown here, bb in the reference",
        ),
        (
            {"fingerprints": {"build": "16.4", "statistics": "aa", "data": "bb", "settings": "ff"}},
            "other-conditions",
            "the runs differ in settings: ff here, unknown in the reference",
        ),
        ({"sides": ("baseline", "mscn", "lero")}, "missing-side", "this run measured lero, the reference did not"),
        ({"queries": {"q0": "SELECT count(*) FROM q0"}}, "missing-queries", "1 query of the reference not in this run: q1"),
        (
            {"queries": {"q0": "SELECT count(*) FROM q0", "q1": "SELECT count(*) FROM q1", "q2": NEW}},
            "new-queries",
            "1 query of this run not in the reference: q2",
        ),
        (
            {"queries": {"q0": "SELECT count(*) FROM q0", "first": "SELECT count(*) FROM q1"}},
            "renamed-queries",
            "1 query of the reference renamed: q1 is now first",
        ),
        ({"queries": {"q0": "SELECT count(*) FROM q0", "q1": NEW}}, "changed-queries", "1 query with other SQL under the same id: q1"),
    ],
)
def test_what_differs_is_a_state_of_its_own(change: dict[str, object], kind: str, text: str) -> None:
    """Each difference between the runs has a name and a sentence, and fails the gate unless states only warn."""
    candidate, reference = (measured(seed, queries=("q0", "q1")) for seed in (1, 2))
    report = decide(changed(candidate, **change), reference, Policy())
    assert (kind, text) in [(state.kind, state.text) for state in report.states]
    assert report.exit_code == 1
    assert decide(changed(candidate, **change), reference, Policy(on_missing="warn")).exit_code == 0


def test_a_reference_is_as_suspect_as_a_run() -> None:
    """A reference that did not finish, was measured in parallel or lacks a side is rejected."""
    reference = changed(replace(measured(2), end=None), parallel=True, sides=("baseline", "mscn", "lero"))
    assert kinds(decide(measured(1), reference, Policy())) == ["unfinished-baseline", "parallel", "missing-side"]


def test_a_run_that_did_not_finish_never_passes() -> None:
    """An interrupted or failed run fails the gate even if states only warn."""
    for end in (None, RunEnd(status="FAILED", finished_at="2025-01-01T00:00:00+00:00")):
        report = decide(replace(measured(1), end=end), measured(2), Policy(on_missing="warn"))
        assert (kinds(report), report.exit_code) == (["unfinished"], 1)


def test_a_deselected_query_is_not_a_pass() -> None:
    """A run of half the workload compares that half and names the missing queries."""
    report = decide(measured(1, queries=QUERIES[:10]), measured(2), Policy())
    assert (report.verdict, report.compared[0].queries) == ("NOT COMPARABLE", 10)
    assert report.states[0].text == "10 queries of the reference not in this run: q10, q11, q12, q13, q14 and 5 more"


def test_an_empty_selection_is_not_a_pass() -> None:
    """No common query, no query at all, and only the baseline: each gives the state `empty`, and none passes."""
    assert "empty" in kinds(decide(measured(1, queries=("a",)), measured(2, queries=("b",)), Policy()))
    assert kinds(decide_against_baseline(record_of({"baseline": {}, "mscn": {}}), Policy())) == ["empty"]
    alone = record_of({"baseline": {"q1": [1.0] * 5}})
    for report in (decide(alone, alone, Policy()), decide_against_baseline(alone, Policy())):
        assert [state.text for state in report.states] == ["the run measured only its baseline; nothing was gated"]


def test_rounds_that_are_missing_are_not_a_pass() -> None:
    """A state names a query that lacks rounds and so has no verdict."""
    run = measured(1)
    cut = replace(run, runs=run.runs[:-1])
    for report in (decide(cut, measured(2), Policy()), decide_against_baseline(cut, Policy())):
        assert [state.text for state in report.states] == ["1 query of mscn without all rounds on both sides: q19"]


@pytest.mark.parametrize(("rounds", "text"), [(1, "1 round"), (2, "2 rounds")])
def test_one_or_two_rounds_are_too_few(rounds: int, text: str) -> None:
    """Too few rounds are a state of the run as of the reference."""
    few = record_of({side: {query_id: [10.0] * rounds for query_id in QUERIES} for side in ("baseline", "mscn")})
    expected = [f"{which} has {text}, which say too little about noise; use --rounds 5 or more" for which in ("the run", "the reference")]
    assert [state.text for state in decide(few, few, Policy()).states] == expected


def test_a_query_that_fails_is_a_regression() -> None:
    """A failure is reported with its message, at any times."""
    run = measured(1)
    broken = replace(run, runs=(*run.runs, run_of("mscn", "q3", 5, "division by zero")))
    report = decide(broken, measured(2), Policy())
    assert Regression(side="mscn", figure="failure", query_id="q3", after="division by zero") in report.regressions
    assert decide_against_baseline(broken, Policy()).verdict == "REGRESSED"


def test_a_query_that_now_always_times_out_is_a_regression() -> None:
    """New time-outs in every round regress, even if the limit itself is within the allowed ratio."""
    before = record_of({"baseline": {"q0": [100.0] * 5}, "mscn": {"q0": [100.0] * 5}})
    now = record_of({"baseline": {"q0": [100.0] * 5}, "mscn": {"q0": [">101"] * 5}})
    expected = Regression(side="mscn", figure="time-outs", query_id="q0", before="0 rounds", after="5 of 5 rounds")
    assert decide(now, before, Policy()).regressions == (expected,)
    assert decide_against_baseline(now, Policy()).regressions == (expected,)


def test_time_outs_on_both_sides_are_a_tie() -> None:
    """A query on which plain PostgreSQL also times out does not regress."""
    run = record_of({side: {"q0": [">500"] * 5, "q1": [10.0] * 5} for side in ("baseline", "mscn")})
    report = decide(run, run, Policy())
    assert (report.verdict, [compared.queries for compared in report.compared]) == ("PASSED", [1])


def untold(when: str, *queries: str) -> str:
    """Return the text about queries that timed out."""
    number = "1 query" if len(queries) == 1 else f"{len(queries)} queries"
    told = f"{number} of mscn timed out {when}, so nothing tells how slow: {', '.join(queries)}"
    return f"{told}; raise --query-timeout-ms, or leave them out"


def test_what_timed_out_on_both_sides_is_not_a_pass() -> None:
    """A limit that is too low for both sides hides every slow-down, so it is a state, unless the reference was no better off."""
    before = measured(1, queries=("q0", "q1", "q2"))
    cut = {query_id: [">500"] * 5 for query_id in ("q0", "q1")}
    now = record_of({side: {**cut, "q2": [10.0] * 5} for side in ("baseline", "mscn")})
    for report in (decide(now, before, Policy()), decide_against_baseline(now, Policy())):
        assert [state.text for state in report.states] == [untold("on both sides in every round", "q0", "q1")]
        assert [compared.queries for compared in report.compared] == [1]
        assert (kinds(report), report.verdict) == (["timed-out"], "NOT COMPARABLE")
    all_cut = record_of(dict.fromkeys(("baseline", "mscn"), cut))
    assert kinds(decide_against_baseline(all_cut, Policy())) == ["timed-out", "empty"]
    assert kinds(decide(all_cut, all_cut, Policy())) == ["empty"]


def test_most_rounds_at_the_limit_are_not_a_pass() -> None:
    """If only the candidate times out, its median is the limit, and how slow it is nobody knows; a few such rounds are noise."""

    def cut_off(rounds: int) -> Record:
        times = {f"q{i}": [100.0] * 5 for i in range(1, 4)}
        return record_of({"baseline": {"q0": [100.0] * 5, **times}, "mscn": {"q0": [">101"] * rounds + [100.0] * (5 - rounds), **times}})

    before = cut_off(0)
    for rounds, texts in ((0, []), (2, []), (3, [untold("in most rounds, and the baseline did not", "q0")])):
        for report in (decide(cut_off(rounds), before, Policy()), decide_against_baseline(cut_off(rounds), Policy())):
            assert [state.text for state in report.states] == texts
    assert decide(cut_off(3), cut_off(3), Policy()).states == ()


def test_another_yardstick_is_no_reference() -> None:
    """Ratios to another side than the reference's are ratios of something else."""
    run = measured(1)
    report = decide(changed(run, baseline_side="mscn"), measured(2), Policy())
    assert [state.text for state in report.states] == ["this run compares with mscn, the reference with baseline"]
    assert report.verdict == "NOT COMPARABLE"


def test_a_run_of_no_rounds_has_nothing_to_compare() -> None:
    """Its header alone makes no figures."""
    run = changed(measured(1), rounds=0)
    assert kinds(decide_against_baseline(run, Policy())) == ["too-few-rounds", "missing-queries", "empty"]


BEFORE = QueryReport(
    query_id="q0",
    side="mscn",
    steered_ratio=1.0,
    plan_shape="aa",
    plan_cost=100.0,
    p_error=1.5,
    estimates=(SubplanEstimate(aliases=("u",), estimated=10, true=20),),
)


@pytest.mark.parametrize(
    ("worse", "figure", "before", "after"),
    [
        (replace(BEFORE, steered_ratio=0.5), "unsteered share", 0.0, 0.5),
        (replace(BEFORE, plan_shape="bb", plan_cost=900.0), "plan shape", "aa", "bb"),
        (replace(BEFORE, plan_cost=101.0), "plan cost", 100.0, 101.0),
        (replace(BEFORE, p_error=1.6), "p-error", 1.5, 1.6),
        (replace(BEFORE, estimates=(SubplanEstimate(aliases=("u",), estimated=5, true=20),)), "q-error", 2.0, 4.0),
    ],
)
def test_exact_figures_are_gated_exactly(worse: QueryReport, figure: str, before: Scalar, after: Scalar) -> None:
    """Any increase of an exact figure and any other plan is a regression of its own; an equal or a better one is not."""
    reference, now = measured(2), measured(1)
    expected = Regression(side="mscn", figure=figure, query_id="q0", before=before, after=after)
    assert decide(reported(now, worse), reported(reference, BEFORE), Policy()).regressions == (expected,)
    assert decide(reported(now, BEFORE), reported(reference, BEFORE), Policy()).verdict == "PASSED"
    assert decide(reported(now, worse), reported(reference, BEFORE), Policy(exact=FIGURES - {figure, "plan cost"})).verdict == "PASSED"
    better = replace(BEFORE, plan_cost=1.0, p_error=1.0, estimates=(SubplanEstimate(aliases=("u",), estimated=20, true=20),))
    assert decide(reported(now, better), reported(reference, BEFORE), Policy()).verdict == "PASSED"


def test_rounding_is_no_regression() -> None:
    """The last bits of a cost, which the order of a sum decides, are not compared."""
    drifted = replace(BEFORE, plan_cost=100.0 * (1 + 1e-12))
    assert decide(reported(measured(1), drifted), reported(measured(2), BEFORE), Policy()).verdict == "PASSED"


def test_what_if_calls_are_gated_exactly() -> None:
    """One more what-if call than in the reference is a regression of the whole run, one less is not."""
    now, before = (reported(measured(seed), scalars={"whatif_calls": calls}) for seed, calls in ((1, 101), (2, 100)))
    assert decide(now, before, Policy()).regressions == (Regression(side="mscn", figure="what-if calls", before=100, after=101),)
    assert decide(before, now, Policy()).verdict == "PASSED"


def test_a_figure_that_disappears_is_a_state() -> None:
    """A state names a figure of the reference that the run lacks."""
    reference = reported(measured(2), BEFORE, scalars={"whatif_calls": 100})
    report = decide(measured(1), reference, Policy())
    assert set(kinds(report)) == {"missing-figures"}
    texts = [state.text for state in report.states]
    assert "the reference has the p-error of mscn for q0, this run does not" in texts
    assert "the reference has the what-if calls of mscn, this run does not" in texts


def test_other_plans_of_the_baseline_are_a_state() -> None:
    """If PostgreSQL itself plans differently, times are not comparable, and nothing regresses."""
    now, before = (reported(measured(1), QueryReport(query_id="q0", side="baseline", plan_shape=shape)) for shape in ("aa", "bb"))
    report = decide(now, before, Policy())
    assert [state.text for state in report.states] == ["PostgreSQL itself plans 1 query differently than in the reference: q0"]
    assert report.regressions == ()


def test_the_report_can_be_read() -> None:
    """The lines show the verdict, the comparison, the regressions with their size, and the states."""
    run = replace(measured(1), runs=(*measured(1).runs, run_of("mscn", "q3", 5, "boom")))
    now = reported(changed(run, parallel=True), replace(BEFORE, p_error=1.6))
    report = decide(now, reported(measured(2), BEFORE), Policy())
    lines = describe(report)
    number = r"\d\.\d{3}"
    interval = rf"{number} \({number} to {number}\)"
    assert lines[0] == "gate against the reference: REGRESSED"
    assert re.fullmatch(rf"  mscn, 19 queries: total {interval}, geometric mean {interval} times the reference \(95% intervals\)", lines[1])
    assert lines[2:] == (
        "  regression: mscn: p-error of q0 was 1.5, now 1.6",
        "  regression: mscn: q3 failed: boom",
        "  state: parallel: the run measured beside other workers; measure without -n",
    )


def test_a_slow_down_can_be_read() -> None:
    """A regression of a time shows its interval and the allowed ratio."""
    before = record_of({side: {"q0": [100.0] * 5, "q1": [50.0] * 5} for side in ("baseline", "mscn")})
    now = record_of({"baseline": {"q0": [100.0] * 5, "q1": [50.0] * 5}, "mscn": {"q0": [150.0] * 5, "q1": [75.0] * 5}})
    assert describe(decide(now, before, Policy()))[2:] == (
        "  regression: mscn: geometric mean of the workload is 1.500 (1.500 to 1.500) times the reference, allowed is 1.030",
        "  regression: mscn: total time of the workload is 1.500 (1.500 to 1.500) times the reference, allowed is 1.030",
        "  regression: mscn: time of q0 is 1.500 (1.500 to 1.500) times the reference, allowed is 1.200",
        "  regression: mscn: time of q1 is 1.500 (1.500 to 1.500) times the reference, allowed is 1.200",
    )


def test_reservations_are_warnings() -> None:
    """If states only warn, the lines call them warnings."""
    lines = describe(decide(changed(measured(1), parallel=True), measured(2), Policy(on_missing="warn")))
    assert lines[0] == "gate against the reference: PASSED WITH RESERVATIONS"
    assert lines[-1] == "  warning: parallel: the run measured beside other workers; measure without -n"


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"delta": -0.1}, "delta must be finite and >= 0, found -0.1"),
        ({"query_delta": float("nan")}, "query_delta must be finite and >= 0, found nan"),
        (
            {"exact": frozenset({"speed"})},
            "unknown exact figure 'speed'; known: p-error, plan cost, plan shape, q-error, unsteered share, what-if calls",
        ),
    ],
)
def test_an_impossible_policy_is_refused(policy: dict[str, object], message: str) -> None:
    """Wrong deltas and unknown figures are rejected."""
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Policy(**policy)  # type: ignore[arg-type]  # on purpose


def scripts(seed: int, factor: float = 1.0, *, rounds: int = 5, noise: float = 0.02) -> tuple[WriteRun, ...]:
    """Return a script in each slice, which takes `factor` times as long on the side of mscn."""
    random = np.random.default_rng(seed)
    return tuple(
        WriteRun(side=side, script="s.sql", repetition=repetition, client=1, latency_ms=float(np.exp(random.normal(0, noise))) * times)
        for repetition in range(1, rounds + 1)
        for side, times in (("baseline", 4.0), ("mscn", 4.0 * factor))
    )


def writing(seed: int, factor: float = 1.0, *, rounds: int = 5, noise: float = 0.02) -> Record:
    """Return an unchanged run of mscn with scripts."""
    record = changed(measured(seed), parameters={"writes": "s.sql"})
    return replace(record, writes=scripts(seed, factor, rounds=rounds, noise=noise))


def test_slower_scripts_regress() -> None:
    """Scripts with an interval above the allowed 10 % fail the run, against a reference and against the baseline, with queries as fast."""
    for report in (decide(writing(1, 1.5), writing(2), Policy()), decide_against_baseline(writing(1, 1.5), Policy())):
        assert (report.verdict, report.exit_code) == ("REGRESSED", 1)
        [regression] = report.regressions
        assert (regression.figure, regression.query_id, regression.allowed) == (SCRIPTS, None, 1.1)
        lines = [re.sub(r"\d\.\d{3}", "N", line) for line in describe(report)]
        meaning = "the reference" if report.against == "reference" else "the baseline"
        assert lines[2] == f"  mscn, mean time of the scripts of --writes: N (N to N) times {meaning} (95% interval)"
        assert lines[3] == f"  regression: mscn: mean time of the scripts of --writes is N (N to N) times {meaning}, allowed is N"
    assert decide(writing(1, 1.5), writing(2), Policy(write_delta=0.6)).verdict == "PASSED"


def test_equally_slow_scripts_pass_against_a_reference() -> None:
    """Indexes make writing slower in both runs, so nothing got worse; against the baseline it did."""
    report = decide(writing(1, 1.5), writing(2, 1.5), Policy())
    assert report.verdict == "PASSED"
    assert report.writes[0].ratio.low < 1 < report.writes[0].ratio.high
    assert decide_against_baseline(writing(1, 1.5), Policy(write_delta=0.3)).verdict == "REGRESSED"


@pytest.mark.parametrize("with_reference", [True, False])
def test_scripts_fail_rarely_by_noise(with_reference: bool) -> None:
    """Of 400 unchanged runs with 10 % noise few fail, and of runs that are as much slower as each would have caught, most do."""
    record, failed, caught = writing(0), 0, 0

    def judged(seed: int, factor: float = 1.0) -> tuple[ComparedWrites, bool]:
        reference = replace(record, writes=scripts(seed, noise=0.1)) if with_reference else None
        candidate = replace(record, writes=scripts(10_000 + seed, factor, noise=0.1))
        compared, *regressions = judged_writes(candidate, reference, "mscn", 0.0, 0.95)
        assert isinstance(compared, ComparedWrites)
        return compared, bool(regressions)

    for seed in range(400):
        unchanged, regressed = judged(seed)
        failed += regressed
        caught += judged(1000 + seed, 1 + unchanged.caught)[1]
    assert failed <= 18  # 10 are to be expected of an interval of 95 %
    assert caught >= 320  # 380 if the noise were known; five slices show it only roughly


def test_a_run_that_is_blind_to_slower_scripts_says_so() -> None:
    """Three noisy slices show a large slow-down only: the pass names it, what it should be, and more rounds."""
    report = decide(writing(1, rounds=3, noise=0.3), writing(2, rounds=3, noise=0.3), Policy())
    assert re.fullmatch(r"PASSED, but blind below \S+ % for the scripts of --writes", report.verdict.replace("over 1000", "1000"))
    caught, blind = (re.sub(r"(over )?[\d.]+ %", "N", line) for line in describe_power(report)[-2:])
    assert caught == "  mscn: this run would have caught, 19 times in 20, scripts of --writes slower by N"
    assert blind == (
        "  blind: a gate with these deltas should catch N and for a single query N and for the scripts of --writes N; "
        "measure with more --rounds, or on a quieter machine"
    )
    single = decide(writing(1, rounds=1), writing(2, rounds=1), Policy())
    assert (single.writes[0].ratio.low, single.writes[0].caught) == (0.0, float("inf"))


def test_a_run_without_scripts_on_a_side_is_not_passed_silently() -> None:
    """A run with --writes of which no script ran is not comparable."""
    report = decide(replace(writing(1), writes=()), writing(2), Policy())
    text = "no script of --writes ran on mscn and the baseline in the same round; their time was not gated"
    assert [(state.kind, state.text) for state in report.states] == [("empty", text)]
    assert report.verdict == "NOT COMPARABLE"
