"""`pilotscope trend` shows a figure of an experiment over its runs, wherever they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.commands.conftest import AddRun, Command, WriteRecord

FIGURES = {"test_speedup": 1.25, "test_speedup_ci_low": 1.2, "test_speedup_ci_high": 1.3}
SAME = {"fingerprint.build": "18.4"}


def test_runs_of_the_store_are_shown(pilotscope: Command, add_run: AddRun, workplace: Path) -> None:
    """The newest finished runs with the figure; the others are named with the reason."""
    for hour in range(4):
        add_run(
            "mscn_toy", f"run{hour}", hour=hour, metrics={**FIGURES, "test_speedup": 1 + hour / 10}, tags=SAME, params={"git_commit": "ab"}
        )
    add_run("mscn_toy", "broken", hour=5, metrics=FIGURES, status="FAILED")
    add_run("mscn_toy", "bare", hour=6)
    result = pilotscope("trend", "mscn_toy", "-o", "pages/trend.html", "--limit", "5", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    told = json.loads(result.stdout)
    assert [run["name"] for run in told["runs"]] == ["run1", "run2", "run3"]
    assert told["runs"][0] == {
        "name": "run1",
        "started_at": "2026-01-02T04:04:05+00:00",
        "value": 1.1,
        "low": 1.2,
        "high": 1.3,
        "commit": "ab",
        "conditions": {"build": "18.4"},
    }
    assert told["left_out"] == {"broken": "it is FAILED", "bare": "it has no test_speedup"}
    assert "run2" in (workplace / "pages" / "trend.html").read_text(encoding="utf-8")


def test_parts_conditions_and_variants_are_lines_of_their_own(pilotscope: Command, add_run: AddRun) -> None:
    """Runs that differ in the queries measured, in the conditions of production or in the variant's settings are not comparable."""
    others: tuple[dict[str, str], ...] = ({}, {"partial": "4 of 146 queries"}, {"conditions": "--jit"}, {"variant": "jit=on"})
    for hour, other in enumerate(others):
        add_run("mscn_toy", f"run{hour}", hour=hour, metrics=FIGURES, tags={**SAME, **other})
    told = json.loads(pilotscope("trend", "mscn_toy", "--json").stdout)
    assert [run["conditions"] for run in told["runs"]] == [{"build": "18.4", **other} for other in others]


def test_records_are_shown_without_a_store(pilotscope: Command, write_record: WriteRecord, workplace: Path) -> None:
    """Records are runs, too, also those of a comparison; what is no record is passed over, and no store is made."""
    write_record()
    write_record("compare_toy_20260103_030405", algorithm="compare", identity="other")
    write_record("lero_toy_20260104_030405", algorithm="lero", identity="third")
    (workplace / "results" / "choices.jsonl").write_text("{}\n")
    result = pilotscope("trend", "mscn_toy")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "trend.html: 2 runs, 0 change points\n", "")
    assert not (workplace / "mlflow.db").exists()


def test_a_run_is_shown_once(pilotscope: Command, write_record: WriteRecord, store: str, add_run: AddRun) -> None:
    """A record that was sent is the same run as the one in the store."""
    write_record()
    assert pilotscope("sync").exit_code == 0
    add_run("mscn_toy", "another", metrics=FIGURES)
    assert pilotscope("trend", "mscn_toy").stdout == "trend.html: 2 runs, 0 change points\n"


def test_a_change_is_told_and_fails_nothing(pilotscope: Command, add_run: AddRun) -> None:
    """The exit code stays 0."""
    for hour in range(12):
        add_run("mscn_toy", f"run{hour:02}", hour=hour, metrics={"test_speedup": (1.0 if hour < 6 else 0.5) + hour / 1000}, tags=SAME)
    result = pilotscope("trend", "mscn_toy")
    assert result.exit_code == 0
    assert result.stdout.startswith("trend.html: 12 runs, 1 change point\n  from run06 on: 1.0025 before, 0.5085 after, p = 0.0")


def test_another_figure_may_be_shown(pilotscope: Command, add_run: AddRun) -> None:
    """Any metric of the store, with an interval if it has one."""
    add_run("mscn_toy", "run", metrics={"test_total_time": 12.0})
    (run,) = json.loads(pilotscope("trend", "mscn_toy", "--metric", "test_total_time", "--json").stdout)["runs"]
    assert (run["value"], run["low"], run["high"]) == (12.0, None, None)


def test_an_experiment_where_there_is_nothing(pilotscope: Command) -> None:
    """Without any record and store, the message names where runs were looked for."""
    result = pilotscope("trend", "nosuch")
    expected = (
        "Error: unknown experiment 'nosuch': there are no records in results and no MLflow store; run a benchmark first, or name the "
        "folder with --results or the store with --tracking-uri\n"
    )
    assert (result.exit_code, result.stderr) == (2, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mscn_tiy"], "Error: unknown experiment 'mscn_tiy'; did you mean 'mscn_toy'? known: Default, mscn_toy\n"),
        (["mscn_toy", "--metric", "nothing"], "Error: no run of 'mscn_toy' has a 'nothing' to show (run: it has no nothing)\n"),
    ],
)
def test_nothing_to_show_is_told(pilotscope: Command, add_run: AddRun, arguments: list[str], message: str) -> None:
    """Exit code 2, with what there is."""
    add_run("mscn_toy", "run", metrics=FIGURES)
    result = pilotscope("trend", *arguments)
    assert (result.exit_code, result.stderr) == (2, message)
