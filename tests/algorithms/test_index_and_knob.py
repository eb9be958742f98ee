"""`--algo index,knob` from the command line to the tracking store and back: what is recorded, and models that are loaded again."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.algorithms import get_index_preset_scheduler, get_knob_preset_scheduler
from pytest_pilotscope.algorithms.index.selection import IndexSelection
from pytest_pilotscope.algorithms.knob.tuning import KnobTuning
from pytest_pilotscope.builtins import load_workload
from pytest_pilotscope.provision.database import PostgreSQLConfig
from pytest_pilotscope.tracking.store import open_client
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.projects import measure

COMMON = ("--training-size", "12", "--limit", "2", "--index-start", "none", "--update-every", "6", "--knob-trials", "3")
EVERYWHERE = {"test_total_time", "test_average_time", "test_query_count", "test_db_execution_time", "test_overhead_time", "test_speedup"}
pytestmark = pytest.mark.usefixtures("prepared_cache")

RECORDED: dict[str, set[str]] = {
    "index": {
        "index_optimization_time_seconds",
        "num_indexes_selected",
        "num_queries",
        "whatif_calls",
        "whatif_cache_hits",
        "estimated_cost_before",
        "estimated_cost_after",
        "index_size_bytes",
    },
    "knob": {"knob_optimization_time_seconds", "best_performance", "num_knobs_tuned", "trial_cost", "incumbent_cost"},
}
STEPS = {"index": ("num_queries", [6.0, 12.0]), "knob": ("trial_cost", None)}


@pytest.mark.slow
def test_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The preset schedulers run statements where the indexes are, and with the settings that were found or the default."""
    monkeypatch.chdir(tmp_path)
    config = PostgreSQLConfig("stats_tiny", server="embedded", scale=0.01)
    query = load_workload("stats_tiny", scale=0.01).test[0]
    scheduler, tracker = get_index_preset_scheduler(config, start="none", budget_mb=1.0, width=1, num_training=4, use_mlflow=False)
    assert tracker is None
    selection = scheduler.algorithm
    assert isinstance(selection, IndexSelection)
    with scheduler:
        names = "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'pilotscope%' ORDER BY 1"
        assert selection.indexes
        assert [name for (name,) in scheduler.execute(names).rows] == sorted(index.name for index in selection.indexes)
        assert {len(index.columns) for index in selection.indexes} == {1}
        (count,) = scheduler.execute(query.sql).rows
    scheduler, _ = get_knob_preset_scheduler(config, num_trials=2, target="p95_time", num_training=4, use_mlflow=False)
    tuning = scheduler.algorithm
    assert isinstance(tuning, KnobTuning)
    with scheduler:
        assert scheduler.settings.options["knob"].items() >= {"trials": 2, "target": "p95_time", "projection": "none"}.items()
        assert tuning.values is not None
        assert scheduler.execute(query.sql).rows == [count]


@pytest.mark.slow
def test_what_is_recorded_and_loaded_again(pytester: pytest.Pytester) -> None:
    """Fixed names, steps and artifacts are in the store; both models serve, and are measured again in one comparison without training."""
    result = measure(pytester, "--algo", "index,knob", *COMMON)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    store = f"sqlite:///{pytester.path}/mlflow.db"
    for name in ("index", "knob"):
        _check_run(name, store)
    result = measure(pytester, "--algo", "index,knob", *COMMON, "--compare", "--no-training", "--load-model", "best")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    for name in ("index", "knob"):
        again, first = MLflowTracker.list_runs(f"{name}_stats_tiny", tracking_uri=store)
        assert again["params.model_id"] == first["params.model_id"]
        assert again["params.load_model"] == "best"


def _check_run(name: str, store: str) -> None:
    (run,) = MLflowTracker.list_runs(f"{name}_stats_tiny", tracking_uri=store)
    assert (run["status"], run["tags.stage"], run["params.algorithm"]) == ("FINISHED", "tested", name)
    missing = {metric for metric in RECORDED[name] | EVERYWHERE if f"metrics.{metric}" not in run}
    assert not missing
    client, run_id = open_client(store), str(run["run_id"])
    series, expected = STEPS[name]
    history = client.get_metric_history(run_id, series)
    assert [metric.step for metric in history] == list(range(len(history)))
    assert len(history) == (2 if name == "index" else 3)
    assert expected is None or [metric.value for metric in history] == expected
    assert name != "knob" or (run["params.target_metric"], run["tags.target_metric"]) == ("total_time", "total_time")
    paths = {artifact.path for artifact in client.list_artifacts(run_id)}
    assert {"model", "metadata", "plots", f"{name}_config_iteration_0.json"} <= paths
    assert name != "index" or "index_config_iteration_1.json" in paths
    model_id = run["params.model_id"]
    assert [artifact.path for artifact in client.list_artifacts(run_id, "metadata")] == [f"metadata/{model_id}.json"]
    decision = _served(store, run_id)
    assert list(decision) == ["indexes" if name == "index" else "settings"]
    assert name != "index" or len(decision["indexes"]) == run["metrics.num_indexes_selected"] > 0


def _served(store: str, run_id: str) -> dict[str, Any]:
    """Return the answer of the run's pyfunc model to a statement."""
    import mlflow
    import pandas as pd

    experiment = open_client(store).get_run(run_id).info.experiment_id
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own
        mlflow.set_tracking_uri(store)
        (model,) = mlflow.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'", output_format="list")
        served = mlflow.pyfunc.load_model(model.model_uri).predict(pd.DataFrame({"sql": ["SELECT 1"]}))
    decision: dict[str, Any] = json.loads(served["decision"][0])
    return decision
