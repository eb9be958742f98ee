"""Trained models in MLflow: logging one as a pyfunc model, and downloading one."""

from __future__ import annotations

import warnings
from pathlib import Path

from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.places.modelreference import REGISTERED, check_reference
from pytest_pilotscope.places.privatefiles import private_folder
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.tracking.store import open_client, translated
from pytest_pilotscope.tracking.tracker import MLflowTracker

FOLDERS = ("model", "metadata")
"""The parts of a model: `model/<model_id>/` and `metadata/<model_id>.json`."""


def fetch_model(
    reference: str,
    destination: Path,
    *,
    experiment: str,
    selection: tuple[str, bool] | None,
    data_fingerprint: str,
    tracking_uri: str | StoreUri | None = None,
) -> Path:
    """
    Return a local folder with one model: `best`, a run id, `models:/NAME/VERSION`, or a path.

    `selection` is the validation metric by which `best` chooses among the experiment's runs on the same data, and True if smaller is
    better. Raise `UsageError` for references that `check_reference` rejects, and `ModelError`, which names the missing model and the store.
    """
    check_reference(reference)
    if Path(reference).is_dir():
        return Path(reference)
    if reference == "best":
        return _download(_best(experiment, selection, data_fingerprint, tracking_uri), destination, tracking_uri)
    if registered := REGISTERED.fullmatch(reference):
        return _download_registered(registered[1], registered[2], destination, tracking_uri)
    return _download(reference, destination, tracking_uri)


def log_pyfunc(tracker: MLflowTracker, folder: Path, *, algorithm: str, model_id: str, register_as: str | None = None) -> None:
    """
    Add a model to a run as an MLflow pyfunc model with a signature (SQL in, the algorithm's decision as JSON out), and register it.

    Skip the parts that exist already. The model has only data, which `pytest_pilotscope.pyfunc` reads, so loading it never runs code of the
    model.
    """
    import mlflow
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    run_id, client = tracker.started_id, tracker.client
    with warnings.catch_warnings(), translated(f"model {model_id!r}"):
        warnings.simplefilter("ignore")  # MLflow's own deprecations
        mlflow.set_tracking_uri(client.tracking_uri)
        experiment = client.get_run(run_id).info.experiment_id
        found = client.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = '{model_id}'")
        logged = next((model for model in found if model.status == LoggedModelStatus.READY), None)
        if logged is None:
            logged = client.create_logged_model(experiment, name=model_id, source_run_id=run_id)
            mlflow.models.Model.log(  # mlflow.pyfunc.log_model needs an active run, and ending that would end ours
                artifact_path=None,
                model_id=logged.model_id,
                run_id=run_id,
                flavor=mlflow.pyfunc,
                loader_module="pytest_pilotscope.pyfunc",
                data_path=str(folder),
                signature=ModelSignature(inputs=Schema([ColSpec("string", "sql")]), outputs=Schema([ColSpec("string", "decision")])),
                pip_requirements=["pytest-pilotscope[torch]" if any(folder.rglob("*.safetensors")) else "pytest-pilotscope"],
                metadata={"algorithm": algorithm, "model_id": model_id},
            )
        if register_as is not None and not client.search_model_versions(f"name = '{register_as}' and run_id = '{run_id}'"):
            mlflow.register_model(logged.model_uri, register_as)


def _best(experiment: str, selection: tuple[str, bool] | None, data_fingerprint: str, tracking_uri: str | StoreUri | None) -> str:
    if selection is None:
        raise ModelError(f"experiment {experiment!r} has no validation metric by which to choose the best model; give a run id")
    metric, ascending = selection
    same_data = {"fingerprint.data": data_fingerprint}  # partial runs count: they train and validate like any other
    best = MLflowTracker.get_best_run(experiment, metric, ascending, tags=same_data, partial=True, tracking_uri=tracking_uri)
    if best is None:
        raise ModelError(
            f"experiment {experiment!r} has no finished run with {metric!r} on data {data_fingerprint}; "
            "train a model first, or name another with --load-model"
        )
    return str(best["run_id"])


def _download(run_id: str, destination: Path, tracking_uri: str | StoreUri | None) -> Path:
    client = open_client(tracking_uri)
    private_folder(destination)
    with translated(f"the model of run {run_id}"):
        there = {artifact.path for artifact in client.list_artifacts(run_id)}
        if not there.issuperset(FOLDERS):
            raise ModelError(f"run {run_id} has no model: its artifacts are {', '.join(sorted(there)) or 'none'}")
        for name in FOLDERS:
            client.download_artifacts(run_id, name, str(destination))
    return destination


def _download_registered(name: str, version: str, destination: Path, tracking_uri: str | StoreUri | None) -> Path:
    from mlflow.artifacts import download_artifacts

    client = open_client(tracking_uri)
    with translated(f"the registered model models:/{name}/{version}"):
        uri = client.get_model_version_download_uri(name, version)
        downloaded = Path(download_artifacts(artifact_uri=uri, dst_path=str(destination), tracking_uri=client.tracking_uri))
    found = [path for path in downloaded.rglob("metadata") if path.is_dir() and (path.parent / "model").is_dir()]
    if len(found) != 1:
        raise ModelError(f"models:/{name}/{version} is not a model of pytest-pilotscope: it has no model and metadata folder")
    return found[0].parent
