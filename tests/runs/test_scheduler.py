"""The preset schedulers and MLflow: one trains a model, the next one loads it."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.algorithms import (
    get_baseline_preset_scheduler,
    get_index_preset_scheduler,
    get_knob_preset_scheduler,
    get_lero_dynamic_preset_scheduler,
    get_lero_preset_scheduler,
    get_mscn_preset_scheduler,
)
from pytest_pilotscope.builtins import load_workload
from pytest_pilotscope.errors import UnknownName, UsageError
from pytest_pilotscope.provision.database import PostgreSQLConfig

SMALL = PostgreSQLConfig("stats_tiny", server="embedded", scale=0.01)


@pytest.mark.slow
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
        assert datetime.fromisoformat(run.data.tags["started_at"]).tzinfo is not None
        if training:  # what was used, as PilotScope lists it
            assert (run.data.params["num_training"], float(run.data.params["batch_size"])) == ("8", run.data.metrics["batch_size"])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("preset", "arguments", "message"),
    [
        (get_knob_preset_scheduler, {"target": "foo"}, "target: expected total_time, p95_time, p99_time or throughput, got 'foo'"),
        (get_knob_preset_scheduler, {"projection": None}, "projection: expected llamatune or none, got 'None'"),
        (get_knob_preset_scheduler, {"num_trials": 0}, "num_trials: expected a whole number of at least 1, got '0'"),
        (get_index_preset_scheduler, {"budget_mb": -1}, "budget_mb: expected a number above 0, got '-1'"),
        (get_index_preset_scheduler, {"width": 1.5}, "width: expected a whole number of at least 1, got '1.5'"),
        (get_index_preset_scheduler, {"start": "all"}, "start: expected existing or none, got 'all'"),
        (get_mscn_preset_scheduler, {"num_epoch": 0}, "num_epoch: expected a whole number of at least 1, got '0'"),
        (get_mscn_preset_scheduler, {"num_training": -2}, "num_training: expected a whole number of at least 1, got '-2'"),
        (get_lero_preset_scheduler, {"num_collection": "5"}, "num_collection: expected 5, got '5'"),
        (get_lero_dynamic_preset_scheduler, {"update_every": 0}, "update_every: expected a whole number of at least 1, got '0'"),
    ],
)
def test_what_the_command_line_refuses_is_refused(preset: Callable[..., object], arguments: dict[str, Any], message: str) -> None:
    """A wrong argument is rejected by its name when the scheduler is made."""
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        preset(SMALL, use_mlflow=False, **arguments)


def test_an_unknown_dataset_leaves_nothing_in_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown dataset is rejected before a store is made."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    scheduler, _ = get_baseline_preset_scheduler(PostgreSQLConfig("stats_tny", server="embedded"))
    with pytest.raises(UnknownName, match=r"^unknown dataset 'stats_tny'; did you mean 'stats_tiny' "), scheduler:
        pass
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_a_statement_is_a_text() -> None:
    """An argument that is no text is rejected before it reaches the server."""
    scheduler, _ = get_baseline_preset_scheduler(SMALL, use_mlflow=False)
    with scheduler, pytest.raises(UsageError, match=r"^scheduler\.execute runs an SQL text, got 5$"):
        scheduler.execute(5)  # type: ignore[arg-type] # on purpose
