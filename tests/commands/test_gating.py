"""`pilotscope gate` judges stored runs as `pytest --gate` judges those that it has measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pytest_pilotscope.commands.gating import SUITE, github_lines, show_judgement, write_junit
from pytest_pilotscope.gate.judging import Judgement, embed, gate_with, judge
from pytest_pilotscope.gate.rules import GateReport, Policy
from pytest_pilotscope.options.settings import OPTIONS, Settings
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import RunEnd
from pytest_pilotscope.tracking.sync import sync
from tests.commands.conftest import Command
from tests.gate.test_judging import stored
from tests.gate.test_rules import changed, measured

ANYTHING = ("--gate-delta", "900%", "--gate-query-delta", "900%")

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def base(workplace: Path) -> Record:
    """Store a run, and return it."""
    return write(workplace, measured(2), "base")


def write(workplace: Path, record: Record, name: str) -> Record:
    """Store a record in the folder of results under its name."""
    renamed = changed(record, run_name=name)
    (workplace / "results").mkdir(exist_ok=True)
    stored(workplace / "results", renamed)
    return renamed


def test_the_verdict_is_that_of_the_option(pilotscope: Command, base: Record, workplace: Path) -> None:
    """The lines are those that `--gate` would show for the same two runs with the same policy, and the exit code is 0 for a pass."""
    head = write(workplace, changed(measured(1), seed=7), "head")
    result = pilotscope("gate", "base", "results/head.jsonl", "--gate-delta", "5%", "--gate-exact", "q-error,p-error")
    settings = Settings(gate_delta=0.05, gate_exact=("q-error", "p-error"), seed=7)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == list(judge(gate_with(settings, [base]), [head], []).lines)
    assert "PASSED" in result.stdout.splitlines()[0]


@pytest.mark.usefixtures("base")
def test_a_regression_fails(pilotscope: Command, workplace: Path) -> None:
    """Exit code 1, with the figures; the deltas are the user's."""
    write(workplace, measured(1, factors={"q7": 2.0}), "head")
    result = pilotscope("gate", "base", "head")
    assert (result.exit_code, result.stderr) == (1, "")
    assert result.stdout.startswith("mscn on stats_tiny: gate against the reference: REGRESSED\n")
    assert "\n  regression: mscn: time of q7 is " in result.stdout
    assert pilotscope("gate", "base", "head", *ANYTHING).exit_code == 0


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize(
    ("changes", "state"),
    [
        (
            {"fingerprints": {"build": "17.0", "statistics": "aa", "data": "bb"}},
            "the runs differ in build: 17.0 here, 16.4 in the reference",
        ),
        ({"dataset": "toy"}, "no run of mscn on toy is stored, only mscn on stats_tiny; "),
        ({"parallel": True}, "the run measured beside other workers"),
    ],
)
def test_what_is_not_comparable_fails(pilotscope: Command, workplace: Path, changes: Mapping[str, object], state: str) -> None:
    """Other conditions, another dataset and times beside others are named, and fail unless the user wants a warning."""
    write(workplace, changed(measured(1), **changes), "head")
    result = pilotscope("gate", "base", "head")
    assert result.exit_code == 1
    assert "NOT COMPARABLE" in result.stdout.splitlines()[0]
    assert state in result.stdout
    assert pilotscope("gate", "base", "head", "--gate-on-missing", "warn").exit_code == 0


@pytest.mark.usefixtures("base")
def test_a_run_that_did_not_finish_never_passes(pilotscope: Command, workplace: Path) -> None:
    """Neither by name, nor as the newest run of a folder, where an older one did finish."""
    newer = changed(measured(1), started_at="2027-01-01T00:00:00+00:00")
    for name, end in (("killed", RunEnd(status="KILLED", finished_at="2027-01-01T00:00:01+00:00")), ("dead", None)):
        write(workplace, replace(newer, end=end), name)
        for head in (name, "results"):
            result = pilotscope("gate", "base", head, *ANYTHING, "--gate-on-missing", "warn")
            assert result.exit_code == 1, head
            assert "  state: unfinished: the run is " in result.stdout
        (workplace / "results" / f"{name}.jsonl").unlink()


def test_a_run_is_found_as_by_the_other_commands(pilotscope: Command, base: Record, store: str, workplace: Path) -> None:
    """A file, a name, a folder, a benchmark JSON, a run of the store by id and by name, its newest run, and the own baseline."""
    output: dict[str, object] = {}
    embed(output, [workplace / "results" / "base.jsonl"])
    (workplace / "main.json").write_text(json.dumps(output), encoding="utf-8")
    head = "mscn_stats_tiny_20270101_000000"
    write(workplace, changed(measured(1), tags={"record_id": "one"}), head)
    (sent,) = (one for one in sync(workplace / "results", tracking_uri=store) if one.path.stem == head)
    assert sent.run_id
    (workplace / "elsewhere").mkdir()
    stored(workplace / "elsewhere", base)
    for found in ("results/base.jsonl", "base", "elsewhere", "main.json", sent.run_id[:8], "mlflow:mscn_stats_tiny", "baseline"):
        result = pilotscope("gate", found, head, *ANYTHING)
        assert (result.exit_code, result.stderr) == (0, ""), (found, result.stdout)
    for found in ("results/base.jsonl", "base", "elsewhere", "main.json", sent.run_id[:8]):
        result = pilotscope("gate", "base", found, *ANYTHING)
        assert (result.exit_code, result.stderr) == (0, ""), (found, result.stdout)


@pytest.mark.usefixtures("base")
def test_a_run_judged_by_itself_is_told(pilotscope: Command) -> None:
    """A pass against itself proves nothing, and the last line says so."""
    result = pilotscope("gate", "base", "results/base.jsonl")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "BASE and HEAD are the same run, so nothing could be worse"


@pytest.mark.usefixtures("base", "store")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["gone.jsonl", "base"],
            "Error: gone.jsonl does not exist; name another BASE, or let HEAD pass without one: --gate-on-missing warn\n",
        ),
        (
            ["base", "gone.jsonl"],
            "Error: gone.jsonl: there is no such file; name a record (.jsonl), a pytest-benchmark JSON, or a run of the store\n",
        ),
        (["base", "empty"], "Error: empty: there is no record in it; name a run, or a folder or JSON file with records\n"),
        (["base", "torn.jsonl"], "Error: torn.jsonl:1: the record is empty; the run died before it wrote its header\n"),
        (["base", "torn"], "Error: results/torn.jsonl:1: the record is empty; the run died before it wrote its header\n"),
        (
            ["base", "base", "--gate-delta", "much"],
            "Error: Invalid value for '--gate-delta': expected a percentage such as 3% or a share below 1 such as 0.03, got 'much'\n",
        ),
        (["base", "base", "--gate-delta", ""], "Error: Invalid value for '--gate-delta': expected a percentage such as 3% or a share"),
        (
            ["base", "base", "--gate-on-missing", "pass"],
            "Error: Invalid value for '--gate-on-missing': expected fail or warn, got 'pass'\n",
        ),
        (["base", "base", "--gate-exact", "rows"], "Error: unknown exact figure 'rows' of --gate-exact; known: "),
        (
            ["base", "base", "--json", "--annotate", "github"],
            "Error: --json and --annotate both write to standard output; leave one of them out\n",
        ),
    ],
)
def test_wrong_usage(pilotscope: Command, workplace: Path, arguments: list[str], message: str) -> None:
    """Exit code 2, so that a CI job can tell it from a regression."""
    (workplace / "empty").mkdir()
    (workplace / "torn.jsonl").touch()
    (workplace / "results" / "torn.jsonl").touch()
    result = pilotscope("gate", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


@pytest.mark.usefixtures("base")
@pytest.mark.parametrize("arguments", [("gate", "nosuch", "base"), ("gate", "base", "nosuch"), ("export", "nosuch"), ("report", "nosuch")])
def test_a_name_that_is_nowhere(pilotscope: Command, workplace: Path, arguments: tuple[str, ...]) -> None:
    """Without a store the message names all places that were looked at, and the exit code is that of wrong usage."""
    result = pilotscope(*arguments)
    expected = (
        f"Error: no run 'nosuch': there is no MLflow store {workplace}/mlflow.db; it is no file, no folder and no record in results "
        "either; check the name, --tracking-uri and --results\n"
    )
    assert (result.exit_code, result.stderr) == (2, expected)
    other = pilotscope("gate", "mlflow:mscn_toy", "base")
    expected = (
        f"Error: mlflow:mscn_toy: there is no MLflow store {workplace}/mlflow.db; name another BASE, or the store with --tracking-uri\n"
    )
    assert (other.exit_code, other.stderr) == (2, expected)


@pytest.mark.usefixtures("base", "store")
def test_a_name_that_is_not_in_the_store_either(pilotscope: Command) -> None:
    """With a store the message names the other places, too."""
    result = pilotscope("gate", "nosuch", "base")
    expected = (
        "Error: no run 'nosuch': there are no runs at all in sqlite:///mlflow.db; it is no file, no folder and no record in "
        "results either\n"
    )
    assert (result.exit_code, result.stderr) == (2, expected)


@pytest.mark.usefixtures("base")
def test_a_missing_base_may_pass(pilotscope: Command) -> None:
    """If the base has no record yet, the first pull request can pass, with a warning."""
    result = pilotscope("gate", "gone.jsonl", "base", "--gate-on-missing", "warn")
    assert result.exit_code == 0
    assert "  warning: missing-reference: gone.jsonl does not exist; there is no reference to compare with" in result.stdout


def test_the_policy_is_declared_once(pilotscope: Command) -> None:
    """The command has every option of the gate that pytest has, with its help."""
    shown = " ".join(pilotscope("gate", "--help").stdout.split())
    options = [option for option in OPTIONS if option.name.startswith("gate-")]
    assert len(options) >= 5
    for option in options:
        assert f"--{option.name} {option.metavar or '|'.join(option.choices)} {option.help_with_default}" in shown


@pytest.mark.usefixtures("base")
def test_verdicts_are_tests_and_annotations(pilotscope: Command, workplace: Path) -> None:
    """The XML has a failed test with the verdict as its message; GitHub gets one error, in one line."""
    write(workplace, measured(1, factors={"q7": 2.0}), "head")
    result = pilotscope("gate", "base", "head", "--junitxml", "out/gate.xml", "--annotate", "github")
    assert result.exit_code == 1
    suite = ElementTree.parse(workplace / "out" / "gate.xml").getroot()[0]  # noqa: S314  # it is our own file
    assert {key: suite.get(key) for key in ("name", "tests", "failures", "errors")} == {
        "name": "pilotscope",
        "tests": "1",
        "failures": "1",
        "errors": "0",
    }
    (case,) = suite
    assert (case.get("classname"), case.get("name")) == ("pilotscope", "gate[mscn-stats_tiny]")
    assert case[0].get("message") == "mscn on stats_tiny: gate against the reference: REGRESSED"
    *lines, annotation = result.stdout.splitlines()
    assert (case[0].tag, case[0].text) == ("failure", "\n".join(lines))
    assert annotation == f"::error title=pilotscope%3A gate[mscn-stats_tiny]::{'%0A'.join(line.replace('%', '%25') for line in lines)}"


@pytest.mark.usefixtures("base")
def test_programs_get_every_reason(pilotscope: Command, workplace: Path) -> None:
    """The JSON has verdicts, regressions, states and the policy."""
    write(workplace, measured(1, factors={"q7": 2.0}), "head")
    result = pilotscope("gate", "base", "head", "--json", "--gate-exact", "none")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["exit_code"] == 1
    (run,) = told["runs"]
    assert (run["algorithm"], run["dataset"], run["verdict"], run["exit_code"]) == ("mscn", "stats_tiny", "REGRESSED", 1)
    assert {regression["query_id"] for regression in run["regressions"]} >= {"q7"}
    assert run["policy"]["exact"] == []
    assert run["compared"][0]["queries"] == 20


def judgement(algorithm: str, *lines: str, states: bool = True) -> Judgement:
    """Return a judgement of one run, with these lines; without states it passes."""
    from pytest_pilotscope.gate.comparable import MISSING_REFERENCE

    found = (MISSING_REFERENCE,) if states else ()
    report = GateReport(against="reference", policy=Policy(), compared=(), regressions=(), states=found)
    return Judgement(reports={(algorithm, "toy"): report}, described={(algorithm, "toy"): lines})


def test_texts_of_a_record_break_no_file(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Characters that XML cannot hold are written as escapes, and no text of a record becomes a command of GitHub's."""
    nasty = judgement("a,b:c", "50 % & <worse>", "an error: \x1b[31m\x00\udc80\r\n::set-env name=A::b")
    write_junit(workplace / "gate.xml", nasty)
    case = ElementTree.parse(workplace / "gate.xml").getroot()[0][0]  # noqa: S314  # it is our own file
    assert case[0].get("message") == "50 % & <worse>"
    assert case[0].text == "50 % & <worse>\nan error: \\x1b[31m\\x00\\udc80\n::set-env name=A::b"
    assert list(github_lines(nasty)) == [
        f"::error title={SUITE}%3A gate[a%2Cb%3Ac-toy]::50 %25 & <worse>%0Aan error: \x1b[31m\x00\udc80%0D%0A::set-env name=A::b"
    ]
    show_judgement(judgement("mscn", "failed: no\n::stop-commands::x"), annotate=True, as_json=False)
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("::") and "::error " not in line] == []


def test_a_pass_is_a_passed_test_without_an_annotation(workplace: Path) -> None:
    """The XML has its lines as output; with reservations, GitHub gets a warning."""
    passed = judgement("mscn", "PASSED", states=False)
    write_junit(workplace / "gate.xml", passed)
    suite = ElementTree.parse(workplace / "gate.xml").getroot()[0]  # noqa: S314  # it is our own file
    assert (suite.get("failures"), suite[0][0].tag, suite[0][0].text) == ("0", "system-out", "PASSED")
    assert list(github_lines(passed)) == []
    report = replace(judgement("mscn", "x").reports["mscn", "toy"], policy=Policy(on_missing="warn"))
    warned = Judgement(reports={("mscn", "toy"): report}, described={("mscn", "toy"): ("PASSED WITH RESERVATIONS",)})
    assert list(github_lines(warned)) == ["::warning title=pilotscope%3A gate[mscn-toy]::PASSED WITH RESERVATIONS"]


def test_a_head_without_anything_to_judge_fails(pilotscope: Command, base: Record, workplace: Path) -> None:
    """A record of the baseline alone is no pass; the XML has a failed test for it."""
    runs = tuple(run for run in base.runs if run.side == "baseline")
    write(workplace, replace(changed(base, algorithm="baseline", sides=("baseline",)), runs=runs), "alone")
    result = pilotscope("gate", "base", "alone", "--junitxml", "gate.xml", "--annotate", "github")
    assert result.exit_code == 1
    assert result.stdout.startswith(
        "baseline on stats_tiny: not gated: it is the yardstick of the other runs, so nothing judges it\n"
        "gate: NOT COMPARABLE: nothing else was measured\n"
    )
    assert "::error title=pilotscope%3A gate::baseline on stats_tiny: not gated: it is the yardstick of the other runs" in result.stdout
    root = ElementTree.parse(workplace / "gate.xml").getroot()  # noqa: S314  # it is our own file
    assert (root[0][0].get("name"), root[0][0][0].tag) == ("gate", "failure")
