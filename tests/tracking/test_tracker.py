"""Runs in a real MLflow store (sqlite)."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from pytest_pilotscope.errors import TrackingError
from pytest_pilotscope.tracking.tracker import MLflowTracker


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return an empty sqlite store in a folder with a space in its name."""
    return f"sqlite:///{tmp_path_factory.mktemp('track ing')}/mlflow.db"


def _finished(store: str, experiment: str, name: str, **metrics: float) -> MLflowTracker:
    with MLflowTracker(experiment, name, params={"seed": 7}, tags={"stage": "training"}, tracking_uri=store) as tracker:
        tracker.log_metrics(metrics)
    return tracker


def test_best_run_is_the_smallest_or_the_largest(store: str) -> None:
    """`ascending` says that smaller is better; the answer has everything needed to load the run's model."""
    _finished(store, "best", "slow", total=9.0)
    fast = _finished(store, "best", "fast", total=2.0)
    best = MLflowTracker.get_best_run(experiment_name="best", metric="total", ascending=True, tracking_uri=store)
    assert best is not None
    assert best["artifact_uri"].startswith("file:///")
    assert best | {"artifact_uri": ""} == {
        "run_id": fast.run_id,
        "run_name": "fast",
        "metric_name": "total",
        "metric_value": 2.0,
        "params": {"seed": "7"},
        "artifact_uri": "",
    }
    worst = MLflowTracker.get_best_run("best", "total", False, tracking_uri=store)
    assert worst is not None
    assert worst["run_name"] == "slow"


def test_best_run_can_be_limited_to_tags(store: str) -> None:
    """A better run on other data is not the best one for this data."""
    for data, total in (("here", 5.0), ("other", 1.0)):
        with MLflowTracker("tagged", data, tags={"fingerprint.data": data}, tracking_uri=store) as tracker:
            tracker.log_metric("total", total)
    best = MLflowTracker.get_best_run("tagged", "total", tags={"fingerprint.data": "here"}, tracking_uri=store)
    assert best is not None
    assert best["run_name"] == "here"
    assert MLflowTracker.get_best_run("tagged", "total", tags={"fingerprint.data": "nowhere"}, tracking_uri=store) is None


def test_best_run_is_of_the_whole_workload(store: str) -> None:
    """Partial runs are never the best, unless `partial` includes them."""
    for number in range(25):  # more than one page
        with MLflowTracker("parts", f"part {number}", tags={"partial": "4 of 146 queries"}, tracking_uri=store) as tracker:
            tracker.log_metric("total", 1.0 + number)
    assert MLflowTracker.get_best_run("parts", "total", tracking_uri=store) is None
    _finished(store, "parts", "whole", total=100.0)
    best = MLflowTracker.get_best_run("parts", "total", True, tracking_uri=store)
    partial = MLflowTracker.get_best_run("parts", "total", True, partial=True, tracking_uri=store)
    assert best is not None
    assert partial is not None
    assert (best["run_name"], partial["run_name"]) == ("whole", "part 0")


def test_best_run_is_none_only_without_such_a_run(store: str) -> None:
    """Without the experiment or a finished run with the metric, the answer is None; a failed run is never the best."""
    assert MLflowTracker.get_best_run("nothing here", "total", tracking_uri=store) is None
    tracker = MLflowTracker("failed", "r", tracking_uri=store).start()
    tracker.log_metric("total", 1.0)
    tracker.end("FAILED")
    assert MLflowTracker.get_best_run("failed", "total", tracking_uri=store) is None


def test_a_store_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    """An error of the store is raised, not turned into an empty answer."""
    uri = f"sqlite:///{tmp_path}/missing/mlflow.db"
    message = f"the MLflow store {uri!r} cannot be opened: {tmp_path}/missing is not a folder; create it or choose another --tracking-uri"
    with pytest.raises(TrackingError, match=f"^{re.escape(message)}$"):
        MLflowTracker.get_best_run("any", "total", tracking_uri=uri)


def test_list_runs_is_newest_first_and_flat(store: str) -> None:
    """Every run is a flat dict; `limit` leaves out the oldest; parameters are text, as in MLflow."""
    for hour, name in enumerate(("first", "second", "third")):
        tracker = MLflowTracker("list", name, tracking_uri=store, started_at=datetime(2026, 1, 1, hour, tzinfo=timezone.utc)).start()
        tracker.log_params({"rounds": 5})
        tracker.log_metric("total", float(hour))
        tracker.end("FINISHED", ended_at=datetime(2026, 1, 2, tzinfo=timezone.utc))
    runs = MLflowTracker.list_runs("list", limit=2, tracking_uri=store)
    assert [run["run_name"] for run in runs] == ["third", "second"]
    assert runs[0]["metrics.total"] == 2.0
    assert runs[0]["params.rounds"] == "5"
    assert runs[0]["status"] == "FINISHED"
    assert runs[0]["start_time"] == datetime(2026, 1, 1, 2, tzinfo=timezone.utc)
    assert runs[0]["end_time"] == datetime(2026, 1, 2, tzinfo=timezone.utc)
    assert MLflowTracker.list_runs("nothing here", tracking_uri=store) == []


def test_a_block_that_raises_ends_its_run_failed_or_killed(store: str) -> None:
    """An exception is FAILED with the error as a tag, an interrupt is KILLED."""
    with pytest.raises(ValueError, match=r"^broken$"), MLflowTracker("ends", "failed", tracking_uri=store):
        raise ValueError("broken")
    with pytest.raises(KeyboardInterrupt), MLflowTracker("ends", "killed", tracking_uri=store):
        raise KeyboardInterrupt
    ends = {run["run_name"]: run for run in MLflowTracker.list_runs("ends", tracking_uri=store)}
    assert (ends["failed"]["status"], ends["failed"]["tags.error"]) == ("FAILED", "ValueError: broken")
    assert (ends["killed"]["status"], ends["killed"]["tags.error"]) == ("KILLED", "KeyboardInterrupt: ")


def test_series_and_artifacts_arrive_whole(store: str, tmp_path: Path) -> None:
    """MLflow gets every step of a series longer than one batch, and files and folders with their content."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights.bin").write_bytes(b"\x00\x01")
    with MLflowTracker("series", "long", tracking_uri=store) as tracker:
        tracker.log_series("train_loss", [float(step) for step in range(2500)])
        tracker.log_artifact(tmp_path / "folder", "model/m1")
    assert tracker.run_id is not None
    history = tracker.client.get_metric_history(tracker.run_id, "train_loss")
    assert sorted((point.step, point.value) for point in history) == [(step, float(step)) for step in range(2500)]
    downloaded = tracker.client.download_artifacts(tracker.run_id, "model/m1/weights.bin", str(tmp_path))
    assert Path(downloaded).read_bytes() == b"\x00\x01"


def test_a_tracker_that_was_not_started_says_so(store: str) -> None:
    """Logging before the start is an error that names the remedy."""
    message = "run 'r' is not started; use it in a `with` block or call start()"
    with pytest.raises(TrackingError, match=f"^{re.escape(message)}$"):
        MLflowTracker("x", "r", tracking_uri=store).set_tags({"a": "b"})
