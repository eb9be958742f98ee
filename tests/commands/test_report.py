"""`pilotscope report`: a page of runs, wherever their records are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_pilotscope.gate.judging import embed
from pytest_pilotscope.record.record import read_record
from pytest_pilotscope.tracking.find import runs_of
from pytest_pilotscope.tracking.record_artifacts import newest_record, record_of_run
from pytest_pilotscope.tracking.sync import sync
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.commands.conftest import AddRun, Command, WriteRecord

NAME, OTHER = "mscn_toy_20260102_030405", "mscn_toy_20260103_030405"


def test_records_are_found_by_file_and_by_name(pilotscope: Command, write_record: WriteRecord, workplace: Path) -> None:
    """A path, the name of a record in the folder of results and a benchmark JSON are the same run, which is on the page once."""
    path = write_record()
    output: dict[str, object] = {}
    embed(output, [path])
    (workplace / "bench.json").write_text(json.dumps(output), encoding="utf-8")
    write_record(OTHER, identity="other")
    result = pilotscope("report", str(path), NAME, "bench.json", OTHER, "-o", "pages/report.html")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == f"pages/report.html: {NAME}, {OTHER}\n"
    page = (workplace / "pages" / "report.html").read_text(encoding="utf-8")
    assert page.count('<section class="run"') == 2


def test_runs_are_found_in_the_store(pilotscope: Command, write_record: WriteRecord, store: str, workplace: Path) -> None:
    """The beginning of a run id finds the record in the store, even without the folder of results."""
    path = write_record()
    assert [one.state for one in sync(workplace / "results", tracking_uri=store)] == ["sent"]
    path.unlink()
    (run,) = runs_of("mscn_toy", tracking_uri=store)
    result = pilotscope("report", run["run_id"][:8], "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == {"report": "report.html", "runs": [NAME]}
    assert (workplace / "report.html").is_file()


@pytest.mark.usefixtures("store")
def test_what_is_nowhere_is_misuse(pilotscope: Command) -> None:
    """Exit code 2; for a file the message says what it may be, for a run what there is in the store."""
    missing = pilotscope("report", "absent.jsonl")
    assert missing.exit_code == 2
    assert missing.stderr == (
        "Error: absent.jsonl: there is no such file; name a record (.jsonl), a pytest-benchmark JSON, or a run of the store\n"
    )
    unknown = pilotscope("report", "abcdef")
    assert unknown.exit_code == 2
    assert unknown.stderr.startswith("Error: no run 'abcdef': there are no runs at all in ")


def test_a_run_has_to_be_named(pilotscope: Command) -> None:
    """Without one, click says what is missing."""
    result = pilotscope("report")
    assert result.exit_code == 2
    assert "Missing argument 'RUN...'" in result.stderr


def test_a_run_without_a_record_says_so(pilotscope: Command, add_run: AddRun) -> None:
    """A run without a record, which another program logged, is rejected."""
    identity = add_run("mscn_toy", "theirs")
    result = pilotscope("report", identity[:8])
    assert result.exit_code == 1
    assert result.stderr == f"Error: run {identity} (theirs) has no record among its artifacts\n"


@pytest.mark.slow
def test_a_record_beside_other_json_lines(write_record: WriteRecord, workplace: Path) -> None:
    """An algorithm's artifact is never mistaken for the record of its run, whatever its name."""
    store = f"sqlite:///{workplace}/mlflow.db"
    record = write_record("zeal_toy_20260102_030405")
    with MLflowTracker("zeal_toy", "renamed since", tracking_uri=store) as tracker:
        for name in ("knob_trials.jsonl", "lero_choices.jsonl", "zz.jsonl"):
            (workplace / name).write_text('{"a": 1}\n')
            tracker.log_artifact(workplace / name)
        tracker.log_artifact(record)
    (run,) = MLflowTracker.list_runs("zeal_toy", tracking_uri=store)
    assert record_of_run(run, tracking_uri=store) == newest_record("zeal_toy", tracking_uri=store) == read_record(record)
