"""The preset schedulers and MLflow: what one has trained, the next one loads."""

from __future__ import annotations

from pathlib import Path

import pytest

from algorithms import get_mscn_preset_scheduler
from pytest_pilotscope.provision import PostgreSQLConfig
from pytest_pilotscope.registry import load_workload

SMALL = PostgreSQLConfig("stats_tiny", server="embedded", scale=0.01)


def test_the_best_model_of_a_scheduler_is_loaded_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without training, the best model of the experiment is the one that a scheduler trained on the same data."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (sql,) = [query.sql for query in load_workload("stats_tiny", scale=0.01).test[:1]]
    answers = []
    for training in (True, False):
        scheduler, tracker = get_mscn_preset_scheduler(SMALL, enable_training=training, num_training=8, num_epoch=1)
        with scheduler:
            answers.append(scheduler.execute(sql).rows)
        assert tracker is not None
        run = tracker.client.get_run(tracker.started_id)
        assert (run.info.status, "train_loss" in run.data.metrics) == ("FINISHED", training)
    assert answers[0] == answers[1]
