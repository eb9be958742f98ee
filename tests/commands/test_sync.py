"""`pilotscope sync`: what did not get through is sent later, once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.commands.ui import announce
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.record.record import Record, RecordWriter, read_record
from pytest_pilotscope.runs.finished import read_back
from pytest_pilotscope.statistics.summary import summarize
from pytest_pilotscope.statistics.verdict import verdict
from pytest_pilotscope.tracking import sync
from pytest_pilotscope.tracking.publish import begin, complete
from pytest_pilotscope.tracking.store import open_client
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.commands.conftest import END, HEADER, RUNS, START, TRAINING, AddRun, Command, WriteRecord


def test_a_record_is_sent_once(pilotscope: Command, store: str, write_record: WriteRecord) -> None:
    """Parameters, metrics, tags, times, status and the record itself arrive; a second time nothing changes."""
    path = write_record(more=(TRAINING,))
    result = pilotscope("sync")
    (run,) = MLflowTracker.list_runs("mscn_toy", tracking_uri=store)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "record                    result  run       status    experiment\n"
        f"mscn_toy_20260102_030405  sent    {run['run_id'][:8]}  FINISHED  mscn_toy\n"
        "\n"
        "1 sent\n"
    )
    assert run["run_name"] == "mscn_toy_20260102_030405"
    assert run["params.num_epoch"] == "3"
    assert run["params.batch_size"] == "64"
    assert run["tags.record_id"] == "abc123"
    assert run["tags.stage"] == "tested"
    assert run["metrics.test_total_time"] == pytest.approx(2.0)
    assert run["metrics.test_speedup"] == pytest.approx(2.0)
    assert run["start_time"] == START
    assert run["end_time"] == datetime.fromisoformat(END.finished_at)
    assert [file.path for file in open_client(store).list_artifacts(run["run_id"])] == [path.name]
    assert "\n1 there\n" in pilotscope("sync").stdout
    assert MLflowTracker.list_runs("mscn_toy", tracking_uri=store) == [run]


def test_a_run_has_its_verdict_and_its_report(store: str, write_record: WriteRecord) -> None:
    """MLflow's UI shows the experiment among trainings, and the run with the verdict as its description; the page is an artifact."""
    path = write_record()
    header = read_record(path).header
    failures: list[str] = []
    read_back(header, Settings(results=path.parent, tracking_uri=store), failures)
    assert failures == []
    (run,) = MLflowTracker.list_runs("mscn_toy", tracking_uri=store)
    sentences = verdict(read_record(path), summarize(read_record(path)))
    assert run["tags.mlflow.note.content"] == "\n\n".join(sentence.text for sentence in sentences)
    assert run["tags.mlflow.note.content"].startswith("mscn is 2.00 times as fast as PostgreSQL on toy (")
    client = open_client(store)
    assert "report.html" in {file.path for file in client.list_artifacts(run["run_id"])}
    experiment = client.get_experiment_by_name("mscn_toy")
    assert experiment is not None
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"


def test_the_kind_of_an_experiment_stays_as_somebody_chose_it(store: str, add_run: AddRun) -> None:
    """An experiment of an earlier release gets the tag with its next run; another choice stays."""
    client = open_client(store)
    client.create_experiment("older")
    client.create_experiment("chosen", tags={"mlflow.experimentKind": "finetuning"})
    for name in ("older", "chosen"):
        add_run(name, "run")
    found = [experiment for name in ("older", "chosen") if (experiment := client.get_experiment_by_name(name))]
    assert [experiment.tags["mlflow.experimentKind"] for experiment in found] == ["custom_model_development", "finetuning"]


def test_the_ui_begins_with_trainings(capsys: pytest.CaptureFixture[str]) -> None:
    """The address shows the experiments of model training; MLflow's own first page has none of them."""
    announce(StoreUri("sqlite:///mlflow.db"), 5000, as_json=False)
    assert capsys.readouterr().out == (
        "sqlite:///mlflow.db on http://127.0.0.1:5000; Ctrl-C ends it\n"
        "its runs: http://127.0.0.1:5000/#/experiments?workflowType=machine_learning\n"
    )


def test_another_run_makes_the_same_datasets_at_the_same_moment(store: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If two runs make the same datasets at once, MLflow rejects one; that one asks again and finds them."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    asked: list[str] = []
    log_inputs = MlflowClient.log_inputs

    def late(client: MlflowClient, run_id: str, *arguments: Any) -> None:
        asked.append(run_id)
        if len(asked) == 1:
            raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id, datasets.name")
        log_inputs(client, run_id, *arguments)

    monkeypatch.setattr(MlflowClient, "log_inputs", late)
    tracker = begin(HEADER, tracking_uri=store)
    assert asked == [tracker.run_id, tracker.run_id]
    inputs = open_client(store).get_run(str(tracker.run_id)).inputs
    assert inputs is not None
    assert sorted(entry.dataset.name for entry in inputs.dataset_inputs) == ["toy_testing", "toy_training"]


def test_the_record_of_a_killed_process_becomes_a_killed_run(pilotscope: Command, store: str, workplace: Path) -> None:
    """A process that dies by SIGKILL leaves a record without an end; its run ends when the last line was written."""
    script = (
        "import os, pathlib, signal\n"
        "from pytest_pilotscope.record.record import RecordWriter\n"
        "from tests.commands.conftest import HEADER, RUNS\n"
        "import dataclasses\n"
        "header = dataclasses.replace(HEADER, run_name='killed', tags={'record_id': 'dead'})\n"
        "writer = RecordWriter(pathlib.Path('results/killed.jsonl'), header)\n"
        "for run in RUNS: writer.write(run)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    repository = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", script], check=False, env={**os.environ, "PYTHONPATH": repository})
    assert done.returncode == -signal.SIGKILL
    os.utime(workplace / "results" / "killed.jsonl", (1_800_000_000, 1_800_000_000))
    assert pilotscope("sync").exit_code == 0
    (run,) = MLflowTracker.list_runs("mscn_toy", tracking_uri=store)
    assert run["status"] == "KILLED"
    assert run["end_time"] == datetime.fromtimestamp(1_800_000_000, timezone.utc)
    assert run["tags.error"] == "interrupted: the record has no end"
    assert run["tags.stage"] == "training"
    assert "\n1 there\n" in pilotscope("sync").stdout


def test_a_run_that_is_there_unfinished_is_completed(pilotscope: Command, store: str, write_record: WriteRecord) -> None:
    """Values that arrived before the connection broke are not sent twice, not even to the history of a metric."""
    path = write_record(more=(TRAINING,))
    record = read_record(path)
    tracker = begin(record.header, tracking_uri=store)
    tracker.log_params(TRAINING.parameters)
    tracker.log_series("train_loss", TRAINING.metrics["train_loss"], at=datetime.fromisoformat(END.finished_at))
    tracker.flush()
    assert "\n1 completed\n" in pilotscope("sync").stdout
    (run,) = MLflowTracker.list_runs("mscn_toy", tracking_uri=store)
    assert (run["run_id"], run["status"], run["tags.stage"]) == (tracker.run_id, "FINISHED", "tested")
    history = open_client(store).get_metric_history(run["run_id"], "train_loss")
    assert sorted((point.step, point.value) for point in history) == [(0, 3.0), (1, 2.0), (2, 1.5)]
    inputs = open_client(store).get_run(run["run_id"]).inputs
    assert inputs is not None
    assert len(inputs.dataset_inputs) == 2


def test_a_run_that_is_being_measured_is_left_alone(pilotscope: Command, store: str, workplace: Path) -> None:
    """Its writer holds a lock on the record, however long its training takes."""
    header = replace(HEADER, run_name="now", tags={"record_id": "now"})
    with RecordWriter(workplace / "results" / "now.jsonl", header) as writer:
        writer.write(RUNS[0])
        assert "\n1 running\n" in pilotscope("sync").stdout
    assert MLflowTracker.list_runs("mscn_toy", tracking_uri=store) == []


def test_a_run_that_was_deleted_stays_deleted(pilotscope: Command, store: str, write_record: WriteRecord) -> None:
    """A run that a user has deleted is not sent again."""
    write_record()
    pilotscope("sync")
    (run,) = MLflowTracker.list_runs("mscn_toy", tracking_uri=store)
    open_client(store).delete_run(run["run_id"])
    result = pilotscope("sync")
    assert (result.exit_code, "\n1 deleted\n" in result.stdout) == (0, True)
    assert MLflowTracker.list_runs("mscn_toy", tracking_uri=store) == []


def test_what_cannot_be_sent_is_named_and_stops_nothing(
    pilotscope: Command, store: str, workplace: Path, write_record: WriteRecord
) -> None:
    """A broken record and one without an identity fail, each with its reason, and the others are sent."""
    write_record("good_20260102_030405")
    write_record("nobody_20260102_030405", identity="")
    (workplace / "results" / "broken.jsonl").write_text("{}\n")
    result = pilotscope("sync", "--json")
    assert result.exit_code == 1
    sent = json.loads(result.stdout)
    assert [(Path(one["path"]).name, one["state"]) for one in sent] == [
        ("broken.jsonl", "failed"),
        ("good_20260102_030405.jsonl", "sent"),
        ("nobody_20260102_030405.jsonl", "failed"),
    ]
    assert result.stderr == (
        "broken.jsonl: results/broken.jsonl:1: a line must be an object with a 'kind'\n"
        "nobody_20260102_030405.jsonl: results/nobody_20260102_030405.jsonl: the header has no tag 'record_id', so it is unknown "
        "whether the record was sent already\n"
    )


def test_a_record_that_cannot_be_sent_does_not_stop_the_others(
    pilotscope: Command, store: str, write_record: WriteRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong with one is its outcome, in a sentence."""
    write_record("a_toy_20260102_030405", algorithm="a", identity="a1")
    write_record("mscn_toy_20260102_030405")

    def fails_for_a(tracker: MLflowTracker, record: Record, **others: Any) -> None:
        if record.header.algorithm == "a":
            raise ZeroDivisionError("division by zero")
        complete(tracker, record, **others)

    monkeypatch.setattr(sync, "complete", fails_for_a)
    result = pilotscope("sync")
    assert result.exit_code == 1
    assert result.stderr == "a_toy_20260102_030405.jsonl: ZeroDivisionError: division by zero\n"
    assert len(MLflowTracker.list_runs("mscn_toy", tracking_uri=store)) == 1


def test_artifacts_are_found_after_a_move_and_missed_by_name(
    pilotscope: Command, store: str, workplace: Path, write_record: WriteRecord
) -> None:
    """The folder of results may lie elsewhere by now; an artifact that is gone does not hold back the rest."""
    name = "mscn_toy_20260102_030405"
    written = tuple(f"/elsewhere/{name}/{artifact}" for artifact in ("model/m1", "metadata/m1.json", "plots/gone.png"))
    path = write_record(name, more=(replace(TRAINING, artifacts=written),))
    for file in ("model/m1/weights.bin", "metadata/m1.json"):
        (path.with_suffix("") / file).parent.mkdir(parents=True)
        (path.with_suffix("") / file).write_text("x")
    result = pilotscope("sync")
    assert (result.exit_code, result.stderr) == (0, f"{name}.jsonl: sent without artifacts that are not in its folder: {written[2]}\n")
    (run,) = MLflowTracker.list_runs("mscn_toy", tracking_uri=store)
    client = open_client(store)
    assert [file.path for file in client.list_artifacts(run["run_id"], "model/m1")] == ["model/m1/weights.bin"]
    assert [file.path for file in client.list_artifacts(run["run_id"], "metadata")] == ["metadata/m1.json"]


def test_no_record_sends_files_of_this_machine(
    pilotscope: Command, store: str, tmp_path: Path, workplace: Path, write_record: WriteRecord
) -> None:
    """A record may be somebody else's: what it names outside of its folder, by a path or by a link, is not sent."""
    name = "mscn_toy_20260102_030405"
    (tmp_path / "secret.txt").write_text("key")
    written = (str(tmp_path / "secret.txt"), f"/x/{name}/../../../secret.txt", f"/x/{name}/model/m1", f"/x/{name}/metadata/m1.json")
    path = write_record(name, more=(replace(TRAINING, artifacts=written),))
    for link in ("model/m1/weights.bin", "metadata/m1.json", "report.html"):
        (path.with_suffix("") / link).parent.mkdir(parents=True, exist_ok=True)
        (path.with_suffix("") / link).symlink_to(tmp_path / "secret.txt")
    result = pilotscope("sync")
    assert (result.exit_code, result.stderr) == (
        0,
        f"{name}.jsonl: sent without artifacts that are not in its folder: {', '.join(written)}\n",
    )
    (run,) = MLflowTracker.list_runs("mscn_toy", tracking_uri=store)
    assert [file.path for file in open_client(store).list_artifacts(run["run_id"])] == [path.name]


def test_a_store_that_cannot_be_opened_stops_at_once(pilotscope: Command, workplace: Path, write_record: WriteRecord) -> None:
    """One error about the store, not one for every record."""
    write_record()
    result = pilotscope("sync", "--tracking-uri", "sqlite:///missing/mlflow.db")
    assert (result.exit_code, result.stdout, result.stderr) == (
        1,
        "",
        f"Error: the MLflow store 'sqlite:///missing/mlflow.db' cannot be opened: {workplace}/missing is not a folder; create it or choose "
        "another --tracking-uri\n",
    )


def test_no_records_are_nothing_to_send(pilotscope: Command, store: str) -> None:
    """The output says that a folder is empty or missing."""
    result = pilotscope("sync", "--results", "nowhere")
    assert (result.exit_code, result.stdout) == (0, "no records in nowhere\n")
