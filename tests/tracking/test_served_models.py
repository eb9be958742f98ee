"""A logged model in the registry, by its run, and as an MLflow pyfunc model that answers SQL."""

from __future__ import annotations

import json
import re
import warnings
from datetime import datetime, timezone
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from pytest_pilotscope.algorithms.model_files import Metadata, schema_fingerprint
from pytest_pilotscope.algorithms.mscn.estimation import TrainedModel
from pytest_pilotscope.algorithms.mscn.saved_network import write_model
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.postgres.subplans import LeveledSubplan
from pytest_pilotscope.pyfunc import PilotscopeModel
from pytest_pilotscope.record.results import TrainingReport
from pytest_pilotscope.tracking.models import fetch_model, log_pyfunc
from pytest_pilotscope.tracking.publish import log_training
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.algorithms.mscn_example import SCHEMA, untrained

ID = "mscn_20260102_030405"
SQL = "SELECT COUNT(*) FROM users u, posts p WHERE u.id = p.userid AND u.age < 30"


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, TrainedModel]:
    """Return a store with one run of a small mscn, logged and registered as in a real run, the run's id, and the model."""
    folder = tmp_path_factory.mktemp("served")
    model = untrained()
    metadata = Metadata(model_id=ID, data_fingerprint="d1", schema_fingerprint=schema_fingerprint(SCHEMA), training={"epochs": 3})
    paths = write_model(folder / "run", model, metadata)
    report = TrainingReport(
        side="mscn",
        duration_s=1.0,
        metrics={"best_validation_loss": (0.5,)},
        parameters={"model_id": ID},
        scalars={},
        artifacts=tuple(map(str, paths)),
    )
    store = f"sqlite:///{folder}/mlflow.db"
    tags = {"fingerprint.data": "d1"}
    with MLflowTracker("mscn_toy", "run", params={}, tags=tags, tracking_uri=store) as tracker:
        log_training(tracker, report, at=datetime.now(timezone.utc))
        log_pyfunc(tracker, folder / "run", algorithm="mscn", model_id=ID, register_as="mscn_toy")
    assert tracker.run_id is not None
    return store, tracker.run_id, model


def test_a_model_is_sent_once(logged: tuple[str, str, TrainedModel], tmp_path: Path) -> None:
    """Logging a model leaves the run open; logging it again, as after a broken connection, adds neither a model nor a version."""
    store, _, model = logged
    write_model(
        tmp_path, model, Metadata(model_id=ID, data_fingerprint="d1", schema_fingerprint=schema_fingerprint(SCHEMA), training={"epochs": 3})
    )
    tracker = MLflowTracker("mscn_again", "again", tracking_uri=store).start()
    for _ in range(2):
        log_pyfunc(tracker, tmp_path, algorithm="mscn", model_id=ID, register_as="mscn_again")
        run = tracker.client.get_run(tracker.started_id)
        assert run.info.status == "RUNNING"
    (found,) = tracker.client.search_logged_models([run.info.experiment_id])
    assert (found.name, found.source_run_id, found.status.name) == (ID, tracker.run_id, "READY")
    (version,) = tracker.client.search_model_versions("name = 'mscn_again'")
    assert (int(version.version), version.run_id) == (1, tracker.run_id)
    tracker.end("FINISHED")


@pytest.mark.parametrize("reference", ["models:/mscn_toy/1", "best", "RUN"])
def test_a_model_is_found_again(logged: tuple[str, str, TrainedModel], tmp_path: Path, reference: str) -> None:
    """A model is found by name and version, as the best of its experiment on the same data, and by its run; its estimates are equal."""
    store, run_id, model = logged
    folder = fetch_model(
        run_id if reference == "RUN" else reference,
        tmp_path,
        experiment="mscn_toy",
        selection=("best_validation_loss", True),
        data_fingerprint="d1",
        tracking_uri=store,
    )
    assert TrainedModel.load(folder).estimate(SQL) == model.estimate(SQL)


def test_the_best_model_is_one_of_the_same_data(logged: tuple[str, str, TrainedModel], tmp_path: Path) -> None:
    """`best` never chooses a model that was trained on other data."""
    message = (
        "experiment 'mscn_toy' has no finished run with 'best_validation_loss' on data d2; "
        "train a model first, or name another with --load-model"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        fetch_model(
            "best",
            tmp_path,
            experiment="mscn_toy",
            selection=("best_validation_loss", True),
            data_fingerprint="d2",
            tracking_uri=logged[0],
        )


def test_the_registered_model_answers_sql(logged: tuple[str, str, TrainedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    """`mlflow.pyfunc.load_model` needs no database: a column of SQL in, the rows of every subplan as JSON out; the signature says so."""
    store, _, model = logged
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    mlflow.set_tracking_uri(store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own deprecations
        served = mlflow.pyfunc.load_model("models:/mscn_toy/1")
        answer = served.predict(pd.DataFrame({"sql": [SQL, "SELECT 1 FROM users"]}))
    decisions = [json.loads(text) for text in answer["decision"]]
    assert decisions[0] == {" ".join(sorted(subplan)): rows for subplan, rows in model.estimate(SQL).items()}
    assert decisions[0].keys() == {"u", "p", "p u"}
    assert decisions[1].keys() == {"users"}
    assert served.metadata.signature.inputs.input_names() == ["sql"]
    assert served.metadata.signature.outputs.input_names() == ["decision"]


def test_subplans_of_several_query_levels_are_all_answered() -> None:
    """Equal aliases of a query and of its subquery have different keys."""
    rows: dict[frozenset[str], float] = {LeveledSubplan(1, "ab"): 5.0, LeveledSubplan(2, "ab"): 7.0}
    served = PilotscopeModel(lambda sql: rows)
    (decision,) = served.predict(pd.DataFrame({"sql": [SQL]}))["decision"]
    assert json.loads(decision) == {"1:a b": 5.0, "2:a b": 7.0}
