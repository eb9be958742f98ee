"""`--gate` and `--calibrate` on a real PostgreSQL."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_pilotscope.record.record import read_record
from pytest_pilotscope.record.results import BASELINE_AGAIN
from pytest_pilotscope.statistics.pairs import pairs_of
from tests.projects import measure

pytestmark = pytest.mark.usefixtures("prepared_cache")

ALGORITHMS = """
    import os

    from pytest_pilotscope import Decision

    class Sleeper:
        '''Leaves PostgreSQL alone, but makes the query that SLOW names wait.'''

        name = "sleeper"

        def train(self, training):
            return training.report()

        def decide(self, query, session):
            if query.id == os.environ.get("SLOW"):
                session.execute("SELECT pg_sleep(1.0)")
            return Decision()

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("sleeper", Sleeper, origin=__name__)
"""
RUN = ("--algo", "sleeper", "--rounds", "5", "--limit", "8", "--no-mlflow")
MISSED = "  state: empty: sleeper was not measured on stats_tiny: deselected, skipped, or ended before it began; nothing of it was gated"


@pytest.mark.slow
def test_a_query_that_sleeps_is_caught_and_an_unchanged_program_is_not(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same algorithm again passes the gate; with a `pg_sleep` in one query it does not, and that query is named."""
    base = measure(pytester, *RUN, "--benchmark-json=main.json", conftest=ALGORITHMS)
    assert base.ret == 0, base.stdout.str()
    again = measure(pytester, *RUN, "--gate", "main.json", conftest=ALGORITHMS)
    assert [line for line in again.outlines if line.startswith("sleeper on stats_tiny: gate against the reference: PASSED")]
    assert [
        line for line in again.outlines if line.startswith("  sleeper: this run would have caught, 19 times in 20, a workload slower by ")
    ]
    assert again.ret == 0

    monkeypatch.setenv("SLOW", "q003")
    slower = measure(pytester, *RUN, "--gate", "results", "--junitxml=junit.xml", conftest=ALGORITHMS)
    assert slower.ret == pytest.ExitCode.TESTS_FAILED
    slower.assert_outcomes(passed=1)  # every query ran and answered: it is the gate that fails the session
    assert "sleeper on stats_tiny: gate against the reference: REGRESSED" in slower.outlines
    (regression,) = [line for line in slower.outlines if line.startswith("  regression: sleeper: time of q003 is ")]
    assert regression.endswith(" times the reference, allowed is 1.200")
    (suite,) = ElementTree.parse(pytester.path / "junit.xml").getroot()  # noqa: S314  # our own file
    (failure,) = suite.iter("failure")
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    assert (failure.get("message") or "").startswith("sleeper on stats_tiny: gate against the reference: REGRESSED")
    assert regression in (failure.text or "").splitlines()
    (case,) = (case for case in suite.iter("testcase") if case.find("failure") is not None)
    assert (case.get("classname"), case.get("name")) == ("pilotscope", "gate[sleeper-stats_tiny]")


@pytest.mark.slow
def test_a_record_of_a_comparison_is_the_reference_of_the_same_algorithms(pytester: pytest.Pytester) -> None:
    """The same list, each by itself: the other algorithm is judged, and the baseline is the yardstick."""
    deltas = ("--gate-delta", "500%", "--gate-query-delta", "99900%")
    chosen = ("--algo", "baseline,sleeper", "--rounds", "5", "--limit", "4", "--no-mlflow", *deltas)
    base = measure(pytester, *chosen, "--compare", conftest=ALGORITHMS)
    assert base.ret == 0, base.stdout.str()
    (reference,) = (pytester.path / "results").glob("*.jsonl")
    again = measure(pytester, *chosen, "--gate", str(reference), conftest=ALGORITHMS)
    assert again.ret == 0, again.stdout.str()
    said = "baseline on stats_tiny: not gated: it is the yardstick of the comparison in the reference, so nothing judges it"
    assert said in again.outlines
    assert [line for line in again.outlines if line.startswith("sleeper on stats_tiny: gate against the reference: PASSED")]


@pytest.mark.slow
@pytest.mark.parametrize(("on_blind", "exit_code"), [("warn", 0), ("fail", 1)])
def test_a_blind_pass_is_yellow_and_fails_if_it_is_to(pytester: pytest.Pytester, on_blind: str, exit_code: int) -> None:
    """A gate that allows nothing is blind on every machine; the verdict is yellow, and a failure of JUnit's if it fails."""
    chosen = ("--limit", "4", "--rounds", "3", "--no-mlflow", "--color=yes", "--junitxml=junit.xml", "--gate-on-blind", on_blind)
    deltas = ("--gate-delta", "300%", "--gate-query-delta", "0%")
    result = measure(pytester, *chosen, "--gate", "baseline", *deltas)
    assert result.ret == exit_code, result.stdout.str()
    (line,) = (line for line in result.outlines if "gate against the baseline: PASSED, but blind below " in line)
    assert line.startswith("\x1b[33m")
    (suite,) = ElementTree.parse(pytester.path / "junit.xml").getroot()  # noqa: S314  # our own file
    assert suite.get("failures") == str(exit_code)


@pytest.mark.slow
def test_rounds_go_on_until_the_time_is_over(pytester: pytest.Pytester) -> None:
    """A gate that allows almost nothing never sees enough: the limit of time ends the rounds, and all queries have equally many."""
    result = measure(
        pytester, "--limit", "3", "--rounds", "auto", "--rounds-limit-s", "5", "--gate-delta", "0.01%", "--no-mlflow", "--gate", "baseline"
    )
    (path,) = (pytester.path / "results").glob("*.jsonl")
    record = read_record(path)
    assert record.status == "FINISHED"
    assert record.header.rounds > 5
    assert record.header.parameters["rounds"] == "auto"
    pairs = pairs_of(record, BASELINE_AGAIN)
    assert (len(pairs.query_ids), pairs.rounds, dict(pairs.left_out)) == (3, record.header.rounds, {})
    told = (
        f"--rounds auto ends after {record.header.rounds} rounds, because more would take longer than 5 s, and a gate would still be blind"
    )
    assert told in result.stdout.str()
    assert f": FINISHED, {record.header.rounds} rounds, seed 0" in result.stdout.str()


@pytest.mark.slow
def test_rounds_end_when_a_gate_would_see_enough(pytester: pytest.Pytester) -> None:
    """With deltas that five rounds can tell, there are five rounds, without a word about the time."""
    result = measure(pytester, "--limit", "3", "--rounds", "auto", "--gate-delta", "900%", "--gate-query-delta", "99900%", "--no-mlflow")
    assert result.ret == 0
    assert ": FINISHED, 5 rounds, seed 0" in result.stdout.str()
    assert "--rounds auto ends" not in result.stdout.str()


@pytest.mark.slow
def test_plain_postgresql_against_itself_passes_a_gate_from_the_ini_file(pytester: pytest.Pytester) -> None:
    """An A/A run gated by an A/A run; `--gate none` measures without a gate."""
    pytester.makeini("[pytest]\npilotscope_gate = results\npilotscope_no_mlflow = true\npilotscope_limit = 8")
    first = measure(pytester, "--gate", "none", "--rounds", "3")
    assert first.ret == 0
    assert not [line for line in first.outlines if "gate against" in line]
    second = measure(pytester, "--rounds", "3")
    assert [line for line in second.outlines if line.startswith("baseline on stats_tiny: gate against the reference: PASSED")]
    assert second.ret == 0


@pytest.mark.parametrize("arguments", [("-k", "nothing"), pytest.param(("--benchmark-only",), marks=pytest.mark.slow)])
def test_what_was_deselected_or_skipped_does_not_pass(pytester: pytest.Pytester, arguments: tuple[str, ...]) -> None:
    """If the measurement does not happen for any reason, the gate says that it judged nothing, and exits with 1."""
    result = measure(pytester, *RUN, "--gate", "baseline", *arguments, conftest=ALGORITHMS)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "sleeper on stats_tiny: gate against the baseline: NOT COMPARABLE" in result.outlines
    assert MISSED in result.outlines


@pytest.mark.slow
def test_a_gate_over_other_tests_does_not_pass(pytester: pytest.Pytester) -> None:
    """`pytest --gate FILE` fails if no benchmark is collected at all."""
    pytester.makepyfile("def test_other(): pass")
    result = pytester.runpytest_subprocess("--gate", "baseline")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "baseline on stats_tiny: gate against the baseline: NOT COMPARABLE" in result.outlines


@pytest.mark.slow
def test_a_gate_of_the_ini_file_leaves_other_tests_alone(pytester: pytest.Pytester) -> None:
    """A gate in the ini file does not disturb unit tests; but if a benchmark is deselected, the gate says so."""
    pytester.makeini("[pytest]\npilotscope_gate = baseline")
    pytester.makepyfile(test_other="def test_other(): pass")
    result = pytester.runpytest_subprocess()
    result.assert_outcomes(passed=1)
    assert result.ret == 0
    deselected = measure(pytester, "-k", "nothing")
    assert deselected.ret == pytest.ExitCode.TESTS_FAILED
    assert "baseline on stats_tiny: gate against the baseline: NOT COMPARABLE" in deselected.outlines


@pytest.mark.slow
def test_disabled_benchmarks_are_gated_all_the_same(pytester: pytest.Pytester) -> None:
    """`--benchmark-disable` switches off pytest-benchmark, not the measurement nor the gate."""
    result = measure(pytester, *RUN, "--gate", "main.json", "--benchmark-disable", "--gate-on-missing", "warn", conftest=ALGORITHMS)
    assert result.ret == 0
    passed = "sleeper on stats_tiny: gate against the reference: PASSED WITH RESERVATIONS"
    assert [line for line in result.outlines if line.startswith(passed)]
    assert [line for line in result.outlines if line.startswith("  warning: missing-reference: main.json does not exist; ")]


@pytest.mark.slow
def test_what_was_deselected_beside_workers_does_not_pass(pytester: pytest.Pytester) -> None:
    """Workers report that there was a benchmark; unit tests without one pass."""
    pytester.makeini("[pytest]\npilotscope_gate = baseline")
    pytester.makepyfile(test_other="def test_other(): pass")
    alone = pytester.runpytest_subprocess("-n", "1")
    alone.assert_outcomes(passed=1)
    assert alone.ret == 0
    deselected = measure(pytester, "-n", "1", "-k", "other", "test_other.py")
    deselected.assert_outcomes(passed=1)
    assert deselected.ret == pytest.ExitCode.TESTS_FAILED
    assert "baseline on stats_tiny: gate against the baseline: NOT COMPARABLE" in deselected.outlines


def test_workers_are_refused(pytester: pytest.Pytester) -> None:
    """A gate with xdist's workers is a usage error."""
    result = measure(pytester, "--gate", "main.json", "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "times taken beside other workers are noise" in result.stderr.str()


@pytest.mark.slow
def test_a_broken_reference_is_refused_before_anything_is_measured(pytester: pytest.Pytester) -> None:
    """Exit code 4, and the message starts with the file."""
    (pytester.path / "main.json").write_text("{}", encoding="utf-8")
    result = measure(pytester, "--gate", "main.json")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: main.json: a JSON file without records of pytest-pilotscope" in result.stderr.str()
    assert not (pytester.path / "results").exists()


@pytest.mark.slow
def test_a_calibration_is_printed_and_used_by_the_gate(pytester: pytest.Pytester, prepared: Path) -> None:
    """The calibration is printed, written to the cache folder, and named by the gate that uses it."""
    chosen = ("--rounds", "3", "--limit", "4", "--no-mlflow")
    result = measure(pytester, "--calibrate", *chosen)
    assert result.ret == 0, result.stdout.str()
    assert "calibration on stats_tiny: 4 queries, 3 rounds, 1000 simulated gates" in result.outlines
    (kept,) = (prepared / "calibrations").iterdir()
    found = json.loads(kept.read_text(encoding="utf-8"))
    assert [line for line in result.outlines if f"smallest deltas with 1% false alarms: workload {found['delta']:.1%}" in line]
    gated = measure(pytester, "--gate", "results", *chosen)
    assert [line for line in gated.outlines if line.endswith(f"(calibrated on this machine by {found['run_name']})")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--algo", "oracle"), "--calibrate measures PostgreSQL against itself; leave --algo and --compare out"),
        (("--compare",), "--calibrate measures PostgreSQL against itself; leave --algo and --compare out"),
        (
            ("--limit", "1"),
            "--calibrate needs at least 2 rounds and 2 queries to see noise, found 2 and 1; "
            "leave --rounds, --queries and --limit as they are for the gate",
        ),
    ],
)
def test_a_senseless_calibration_is_refused(pytester: pytest.Pytester, arguments: tuple[str, ...], message: str) -> None:
    """Exit code 4, before anything is started."""
    result = measure(pytester, "--calibrate", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {message}" in result.stderr.lines
