"""Opening a gate and judging records, without measuring."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from pytest_pilotscope.errors import UnknownName, UsageError
from pytest_pilotscope.gate import calibrations as calibrating
from pytest_pilotscope.gate.calibrations import calibrate_with, calibrated
from pytest_pilotscope.gate.judging import Gate, embed, judge, open_gate, read_references
from pytest_pilotscope.gate.simulation import Calibration
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.record.json_values import to_json
from pytest_pilotscope.record.record import Record, RecordWriter
from pytest_pilotscope.record.results import QueryReport, RunEnd
from pytest_pilotscope.tracking.record_artifacts import newest_record
from tests.gate.test_calibrations import a_against_a
from tests.gate.test_rules import measured
from tests.record.building import FINISHED, record_of

MSCN = ("mscn", "stats_tiny")


def stored(folder: Path, record: Record, name: str = "") -> Path:
    """Write the record to a file."""
    path = folder / f"{name or record.header.run_name}.jsonl"
    with RecordWriter(path, record.header) as writer:
        for run in record.runs:
            writer.write(run)
        if record.end:
            writer.write(record.end)
    return path


def gate_of(references: Sequence[Record], folder: Path | None = None, settings: Settings | None = None) -> Gate:
    """Return a gate with these references."""
    return Gate(
        settings=settings or Settings(), references={(r.header.algorithm, r.header.dataset): r for r in references}, calibrations=folder
    )


def opened(settings: Settings) -> Gate | None:
    """Open the gate of these settings."""
    return open_gate(settings, partial(newest_record, tracking_uri=settings.tracking_uri))


def test_no_gate_without_the_option() -> None:
    """Without the option there is no gate, and `none` switches off the gate of an ini file."""
    assert opened(Settings()) is None
    assert opened(Settings(gate="none")) is None


@pytest.mark.usefixtures("cache")
def test_a_record_a_folder_and_a_benchmark_json_are_the_same_reference(tmp_path: Path) -> None:
    """All three kinds of files give the same run."""
    record = measured(1)
    path = stored(tmp_path, record)
    output: dict[str, object] = {"benchmarks": []}
    embed(output, [path])
    as_json = tmp_path / "benchmark.json"
    as_json.write_text(json.dumps(output), encoding="utf-8")
    for chosen in (path, tmp_path, as_json):
        gate = opened(Settings(gate=str(chosen)))
        assert gate is not None
        assert gate.references == {MSCN: record}
        assert judge(gate, [measured(2)], [MSCN]).exit_code == 0


@pytest.mark.usefixtures("cache")
def test_of_a_folder_the_newest_finished_run_counts(tmp_path: Path) -> None:
    """An older run of the same algorithm and an interrupted one do not count."""
    newest = measured(1)
    older = replace(newest, header=replace(newest.header, started_at="2024-01-01T00:00:00+00:00", run_name="older"))
    killed = replace(newest, header=replace(newest.header, started_at="2026-01-01T00:00:00+00:00", run_name="killed"))
    stored(tmp_path, newest, "a")
    stored(tmp_path, older, "b")
    stored(tmp_path, replace(killed, end=RunEnd(status="KILLED", finished_at="2026-01-01T00:00:00+00:00")), "c")
    gate = opened(Settings(gate=str(tmp_path)))
    assert gate is not None
    assert gate.references == {MSCN: newest}


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(("on_missing", "exit_code"), [("fail", 1), ("warn", 0)])
def test_a_file_that_is_not_there_is_no_pass(tmp_path: Path, on_missing: str, exit_code: int) -> None:
    """The state names the file; the user chooses if it fails."""
    gate = opened(Settings(gate=str(tmp_path / "main.json"), gate_on_missing=on_missing))  # type: ignore[arg-type]  # one of the two
    assert gate is not None
    judgement = judge(gate, [measured(1)], [MSCN])
    assert judgement.exit_code == exit_code
    [state] = judgement.reports[MSCN].states
    assert state.kind == "missing-reference"
    assert state.text.startswith(f"{tmp_path / 'main.json'} does not exist; there is no reference to compare with; ")


@pytest.mark.usefixtures("cache")
def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    """The gate says that the folder has no finished record."""
    gate = opened(Settings(gate=str(tmp_path)))
    assert gate is not None
    assert gate.missing == f"there is no finished record in the folder {tmp_path}"


@pytest.mark.usefixtures("cache")
def test_the_newest_run_of_an_experiment_that_is_not_there_is_missing(tmp_path: Path) -> None:
    """Reading from a store that does not exist does not create it."""
    store = tmp_path / "mlflow.db"
    gate = opened(Settings(gate="mlflow:mscn_stats_tiny", tracking_uri=f"sqlite:///{store}"))
    assert gate is not None
    assert gate.references == {}
    assert gate.missing == "MLflow experiment 'mscn_stats_tiny' has no finished run with a record"
    assert not store.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[", "not JSON (Expecting value: line 1 column 2 (char 1)); a gate needs a record (.jsonl) or a pytest-benchmark JSON"),
        (
            "b.json",
            '{"benchmarks": []}',
            "a JSON file without records of pytest-pilotscope; a gate needs a record (.jsonl), or what "
            "`pytest benchmarks --benchmark-json=FILE` writes",
        ),
        ("c.jsonl", "", "1: the record is empty; the run died before it wrote its header"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_before_anything_is_measured(tmp_path: Path, name: str, content: str, message: str) -> None:
    """The message starts with the file."""
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=rf"^{re.escape(str(path))}:\s?{re.escape(message)}$"):
        read_references(path)


def test_what_was_not_measured_does_not_pass() -> None:
    """A state names an expected run that is missing (deselected, skipped)."""
    judgement = judge(gate_of([measured(2)]), [], [MSCN])
    assert judgement.exit_code == 1
    assert judgement.lines[:2] == (
        "mscn on stats_tiny: gate against the reference: NOT COMPARABLE",
        "  state: empty: mscn was not measured on stats_tiny: deselected, skipped, or ended before it began; nothing of it was gated",
    )


def test_nothing_at_all_does_not_pass() -> None:
    """Without runs and expected runs, the gate fails."""
    judgement = judge(gate_of([]), [], [])
    assert (judgement.exit_code, judgement.lines) == (1, ("gate: NOT COMPARABLE: nothing was measured",))


def test_another_algorithm_is_no_reference() -> None:
    """The state names the stored runs."""
    [state] = judge(gate_of([measured(2)]), [replaced(measured(1), "lero")], []).reports["lero", "stats_tiny"].states
    assert state.text.startswith("no run of lero on stats_tiny is stored, only mscn on stats_tiny; there is no reference")


def test_a_reference_that_nothing_was_held_against_is_named() -> None:
    """The gate names a stored algorithm that is no longer measured, and passes, because the user chose the algorithms."""
    judgement = judge(gate_of([measured(2), replaced(measured(2), "lero")]), [measured(1)], [MSCN])
    assert judgement.exit_code == 0
    assert judgement.lines[-1] == "only in the reference, so not gated: lero on stats_tiny"


def replaced(record: Record, side: str) -> Record:
    """Return the record with another name for its algorithm."""
    return replace(
        record,
        header=replace(record.header, algorithm=side, sides=("baseline", side)),
        runs=tuple(replace(run, side=run.side if run.side == "baseline" else side) for run in record.runs),
    )


def test_a_side_of_a_comparison_is_judged_like_a_run_of_its_own() -> None:
    """A slow algorithm among several regresses against its own single run, and the others pass."""
    times = {side: {f"q{i}": [10.0, 10.1, 9.9, 10.0, 10.1] for i in range(10)} for side in ("baseline", "mscn", "lero")}
    times["lero"] = {query: [2 * ms for ms in row] for query, row in times["lero"].items()}
    single = record_of(dict.fromkeys(("baseline", "mscn"), times["mscn"]))
    judgement = judge(gate_of([single, replaced(single, "lero")]), [record_of(times, algorithm="compare")], [])
    assert {case: report.verdict for case, report in judgement.reports.items()} == {
        ("mscn", "stats_tiny"): "PASSED",
        ("lero", "stats_tiny"): "REGRESSED",
    }


def test_a_comparison_is_the_reference_of_the_same_list_of_algorithms() -> None:
    """The baseline is the yardstick of the comparison: the gate says that nothing judges it, and this fails nothing."""
    mscn, baseline = measured(1), replaced(measured(3), "baseline-again")
    run_of_baseline = replace(baseline, header=replace(baseline.header, algorithm="baseline"))
    gate = replace(gate_of([measured(2)]), compared=frozenset({"stats_tiny"}))
    expected = [("baseline", "stats_tiny"), MSCN]
    judgement = judge(gate, [run_of_baseline, mscn], expected)
    assert (judgement.exit_code, list(judgement.reports), judgement.failures) == (0, [MSCN], {})
    said = "baseline on stats_tiny: not gated: it is the yardstick of the comparison in the reference, so nothing judges it"
    assert judgement.remarks == (said,)
    assert judge(gate, [run_of_baseline, measured(1, slowdown=1.2)], expected).exit_code == 1
    assert judge(gate_of([measured(2)]), [run_of_baseline, mscn], expected).exit_code == 1  # no comparison: its own run is missing
    alone = judge(gate, [run_of_baseline], expected[:1])
    nothing = "gate: NOT COMPARABLE: nothing else was measured"
    assert (alone.exit_code, alone.lines) == (1, (said, nothing, "only in the reference, so not gated: mscn on stats_tiny"))


def test_a_shared_baseline_is_not_judged() -> None:
    """Runs that took turns against one baseline have their verdicts, and that of the baseline says that it is their yardstick."""
    mscn = measured(1)
    baseline = replace(mscn, header=replace(mscn.header, algorithm="baseline", sides=("baseline",)), runs=mscn.measured("baseline"))
    for references in ([measured(2)], [measured(2), replaced(measured(3), "baseline-again")]):
        judgement = judge(gate_of(references), [baseline, mscn], [MSCN])
        assert (judgement.exit_code, list(judgement.reports)) == (0, [MSCN])
        assert judgement.remarks[0] == "baseline on stats_tiny: not gated: it is the yardstick of the other runs, so nothing judges it"
    slower = judge(gate_of([measured(2)]), [baseline, measured(1, slowdown=1.2)], [MSCN])
    assert slower.failures.keys() == {"gate[mscn-stats_tiny]"}


@pytest.mark.usefixtures("cache")
def test_a_file_tells_if_it_compares_algorithms(tmp_path: Path) -> None:
    """The datasets of comparisons and of shared baselines among the references are known, and those of single runs are not."""
    single = measured(1)
    compared = replace(single, header=replace(single.header, algorithm="compare", run_name="compare_stats_tiny_20250101_000000"))
    header = replace(single.header, algorithm="baseline", sides=("baseline",), run_name="baseline_stats_tiny_20250101_000000")
    shared = replace(single, header=header, runs=single.measured("baseline"), reports=())
    for record, expected in ((single, frozenset()), (compared, frozenset({"stats_tiny"})), (shared, frozenset({"stats_tiny"}))):
        gate = opened(Settings(gate=str(stored(tmp_path, record))))
        assert gate is not None
        assert gate.compared == expected


def test_what_failed_is_named_with_its_lines() -> None:
    """Each run that did not pass is a failure whose first line is the verdict; a blind one only if it is to fail."""
    judgement = judge(gate_of([measured(2)]), [measured(1, slowdown=1.2)], [MSCN])
    assert judgement.failures == {"gate[mscn-stats_tiny]": judgement.lines}
    assert judgement.lines[0] == "mscn on stats_tiny: gate against the reference: REGRESSED"
    assert judge(gate_of([measured(2)]), [measured(1)], [MSCN]).failures == {}
    assert judge(gate_of([]), [], []).failures == {"gate": ("gate: NOT COMPARABLE: nothing was measured",)}
    for on_blind, number in (("warn", 0), ("fail", 1)):
        settings = Settings(gate_delta=0.001, gate_on_blind=on_blind)  # type: ignore[arg-type]  # one of the two
        blind = judge(gate_of([measured(2)], settings=settings), [measured(1)], [MSCN])
        assert (blind.exit_code, len(blind.failures)) == (number, number)
        assert blind.blind == {blind.lines[0]}
        assert blind.lines[0].startswith("mscn on stats_tiny: gate against the reference: PASSED, but blind below ")


def test_own_baseline_is_a_reference_without_a_file() -> None:
    """`baseline`: no algorithm may be slower than plain PostgreSQL."""
    gate = Gate(settings=Settings(gate="baseline"), references=None)
    assert judge(gate, [measured(1)], []).exit_code == 0
    assert judge(gate, [measured(1, slowdown=1.2)], []).exit_code == 1


def test_typed_deltas_count_most_then_calibrated_ones_then_the_defaults(tmp_path: Path) -> None:
    """The last line of each run says what was allowed, and why."""
    run = measured(1)

    def allowed(**chosen: float) -> str:
        return judge(gate_of([measured(2)], tmp_path, Settings(**chosen)), [run], []).lines[-1].strip()  # type: ignore[arg-type]

    assert allowed() == "allowed: workload +3.0%, single query +20% (default)"
    noisy = Calibration(
        run_name="aa", machine="m", delta=0.07, query_delta=0.5, detectable=0.1, false_alarms=0.01, sessions=9, queries=20, rounds=5
    )
    path = calibrating.calibration_path(run, tmp_path)
    path.write_text(json.dumps(to_json(noisy, "")), encoding="utf-8")
    assert allowed() == "allowed: workload +7.0%, single query +50% (calibrated on this machine by aa)"
    assert allowed(gate_delta=0.02) == "allowed: workload +2.0%, single query +50% (as given, calibrated on this machine by aa)"
    assert allowed(gate_delta=0.02, gate_query_delta=0.3) == "allowed: workload +2.0%, single query +30% (as given)"
    path.write_text(json.dumps(to_json(replace(noisy, rounds=6), "")), encoding="utf-8")
    assert allowed() == "allowed: workload +3.0%, single query +20% (default)"


def test_exact_figures_can_be_chosen() -> None:
    """All exact figures count unless some are chosen; the last line of each run names the others."""
    plain = measured(1)
    before, now = (replace(plain, reports=(QueryReport(query_id="q0", side="mscn", plan_shape=shape),)) for shape in ("aa", "bb"))

    def judged(*names: str) -> tuple[int, str]:
        judgement = judge(gate_of([before], settings=Settings(gate_exact=names)), [now], [])
        return judgement.exit_code, judgement.lines[-1].partition("; ")[2]

    assert judged("all") == (1, "")
    assert judged("none") == (0, "not compared: p-error, plan cost, plan shape, q-error, unsteered share, what-if calls")
    assert judged("q-error", "plan-shape") == (1, "not compared: p-error, plan cost, unsteered share, what-if calls")
    assert judged("q-error") == (0, "not compared: p-error, plan cost, plan shape, unsteered share, what-if calls")


def test_an_unknown_exact_figure_is_refused_before_anything_is_measured() -> None:
    """The message lists the known names."""
    message = (
        "unknown exact figure 'qerror' of --gate-exact; did you mean 'q-error' or 'p-error'? "
        "known: all, none, p-error, plan-cost, plan-shape, q-error, unsteered-share, what-if-calls"
    )
    with pytest.raises(UnknownName, match=f"^{re.escape(message)}$"):
        opened(Settings(gate="baseline", gate_exact=("qerror",)))


def test_a_calibration_is_found_by_runs_of_the_same_queries(tmp_path: Path) -> None:
    """A calibration belongs to machine, data, build and queries; another query is another workload."""
    record = a_against_a(0.05)
    lines = calibrate_with(record, tmp_path, sessions=30)
    found = calibrated(record, tmp_path)
    assert found is not None
    assert (found.queries, found.rounds, found.sessions) == (20, 5, 30)
    assert lines[0] == "calibration on stats_tiny: 20 queries, 5 rounds, 30 simulated gates"
    assert f"the gate allows {found.gate_delta:.1%} and {found.gate_query_delta:.0%} for these queries with 5 rounds or more" in lines[3]
    others = replace(record, header=replace(record.header, queries={"q0": "SELECT 0"}))
    assert calibrated(others, tmp_path) is None
    other_data = replace(record, header=replace(record.header, fingerprints={"build": "15.1", "data": "bb"}))
    assert calibrated(other_data, tmp_path) is None


def test_the_gate_allows_at_least_one_percent_and_for_a_query_twenty(tmp_path: Path) -> None:
    """A quiet session does not show the differences between sessions; if no query limit holds, the gate takes the largest."""
    quiet = Calibration(
        run_name="aa", machine="m", delta=0.002, query_delta=0.05, detectable=0.004, false_alarms=0.01, sessions=9, queries=20, rounds=5
    )
    assert (quiet.gate_delta, quiet.gate_query_delta, round(quiet.gate_detectable, 3)) == (0.01, 0.2, 0.012)
    assert replace(quiet, delta=0.05, query_delta=None).gate_query_delta == 10.0
    assert replace(quiet, delta=0.05, query_delta=None).gate_delta == 0.05


def test_what_cannot_be_calibrated_with_is_a_usage_error(tmp_path: Path) -> None:
    """The message says that the run was interrupted."""
    with pytest.raises(UsageError, match=r"^run '\w+' is INTERRUPTED; calibrate with one that finished$"):
        calibrate_with(replace(a_against_a(0.01), end=None), tmp_path)


def test_a_broken_calibration_is_not_taken_for_none(tmp_path: Path) -> None:
    """The message names the file, the error and the remedy."""
    record = replace(a_against_a(0.01), end=FINISHED)
    path = calibrating.calibration_path(record, tmp_path)
    path.write_text('{"delta": 0.1}', encoding="utf-8")
    with pytest.raises(UsageError, match=rf"^{re.escape(str(path))}: not a calibration \(field 'run_name' is missing\); "):
        calibrated(record, tmp_path)
