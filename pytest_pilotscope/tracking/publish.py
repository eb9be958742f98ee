"""Sending the record of a run to MLflow."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.record.names import file_name
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE_AGAIN, RunHeader, TrainingReport
from pytest_pilotscope.statistics.stream import regrets_of
from pytest_pilotscope.statistics.summary import metrics, summarize
from pytest_pilotscope.statistics.verdict import verdict
from pytest_pilotscope.tracking.models import log_pyfunc
from pytest_pilotscope.tracking.store import check_not_silent, translated
from pytest_pilotscope.tracking.tracker import MLflowTracker

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

DESCRIPTION = "mlflow.note.content"
"""The tag that MLflow's UI shows as the description of a run."""


def begin(header: RunHeader, *, tracking_uri: str | StoreUri | None = None, run_id: str | None = None) -> MLflowTracker:
    """
    Create the run of a header in experiment `<algo>_<db>`, with its parameters, tags and datasets, in the stage `training`.

    With a `run_id`, continue that run instead, without duplicates.
    """
    tracker = MLflowTracker(
        f"{header.algorithm}_{header.dataset}",
        header.run_name,
        params=header.parameters,
        tags={**header.tags, "stage": "training", "started_at": header.started_at},
        tracking_uri=tracking_uri,
        run_id=run_id,
        started_at=datetime.fromisoformat(header.started_at),
    ).start()
    _log_inputs(tracker, header)
    return tracker


def complete(tracker: MLflowTracker, record: Record, *, artifacts: Iterable[Path] = (), ended_at: datetime | None = None) -> None:
    """
    Send training, test metrics, the verdict and artifacts of a record, and close the run with the record's status.

    Without an end in the record, close the run as KILLED, at `ended_at`. Metrics have the times of the record, so that sending it again
    after an interruption adds no duplicates.
    """
    check_not_silent(tracker.client)
    header, end = record.header, record.end
    finished_at = datetime.fromisoformat(end.finished_at) if end else ended_at
    at = datetime.fromisoformat(end.finished_at if end else header.started_at)
    trained = [training for training in record.training if training.side == header.algorithm]
    for training in trained:
        log_training(tracker, training, at=at)
        _log_model(tracker, header, training)
    if "num_training" not in header.parameters and not any(training.algorithm is None for training in trained):  # 0.2.0 has it there
        tracker.log_params({"num_training": max((training.num_training or 0 for training in trained), default=0)})
    tracker.log_metrics(tested_metrics(record), at=at)
    for regret in regrets_of(record).values():  # one: that of the algorithm, or of the second baseline
        tracker.log_series("regret_time", [ms / 1e3 for ms in regret.against_baseline_ms], at=at)
        tracker.log_series("regret_best_time", [ms / 1e3 for ms in regret.against_best_ms], at=at)
    tracker.set_tags({DESCRIPTION: "\n\n".join(remark.text for remark in verdict(record, summarize(record)))[:5000]})
    for path in artifacts:
        tracker.log_artifact(path, _artifact_folder(path))
    if end is not None:
        tracker.set_tags({"stage": "tested", "tested_at": end.finished_at} if header.queries else {"stage": "trained"})
    tracker.end(end.status if end else "KILLED", error=_error(record), ended_at=finished_at)


def tested_metrics(record: Record) -> dict[str, float]:
    """Return the figures of the algorithm's side; in an A/A run, the speed-up is that of the pair, which is the noise of the machine."""
    summary = summarize(record)
    values = metrics(summary, record.header.algorithm)
    if BASELINE_AGAIN in summary.sides:
        again = metrics(summary, BASELINE_AGAIN)
        values |= {name: value for name, value in again.items() if name.startswith("test_speedup")}
    return values


def _error(record: Record) -> str | None:
    end = record.end
    if end is None:
        return "interrupted: the record has no end"
    return end.error or "; ".join(end.failure_texts().values()) or None


def log_training(tracker: MLflowTracker, training: TrainingReport, *, at: datetime) -> None:
    """Send the outcome of training one side: parameters, series, final figures and artifacts; all named after one of several algorithms."""
    count = {} if training.num_training is None else {"num_training": training.num_training}
    tracker.log_params({training.prefix + name: value for name, value in {**training.parameters, **count}.items()})
    tracker.set_tags({name: str(training.parameters[name]) for name in ("target_metric",) if name in training.parameters})
    for name, values in training.metrics.items():
        tracker.log_series(training.prefix + name, values, at=at)
    tracker.log_metrics({training.prefix + name: value for name, value in training.scalars.items()}, at=at)
    for path in map(Path, training.artifacts):
        tracker.log_artifact(path, "/".join(filter(None, (training.algorithm, _artifact_folder(path)))) or None)


def _log_model(tracker: MLflowTracker, header: RunHeader, training: TrainingReport) -> None:
    """Log the trained model as a pyfunc model, and register it as `<algo>_<db>` if the user chose that."""
    model_id = training.parameters.get("model_id")
    folders = {Path(path).parent.parent for path in training.artifacts if Path(path).parent.name == "model"}
    if isinstance(model_id, str) and len(folders) == 1:
        algorithm = training.algorithm or header.algorithm
        title = header.algorithm if training.algorithm is None else f"{header.algorithm}.{algorithm}"
        name = f"{title}_{file_name(header.dataset)}" if header.parameters.get("register_model") else None
        log_pyfunc(tracker, folders.pop(), algorithm=algorithm, model_id=model_id, register_as=name)


def _artifact_folder(path: Path) -> str | None:
    """Return the folder of an artifact in the run: the same as below the run's folder (`model/<id>/...`, `metadata/<id>.json`)."""
    kept = [path.parent.name] if path.parent.name in ("model", "metadata", "plots") else []
    return "/".join([*kept, path.name] if path.is_dir() else kept) or None


def _log_inputs(tracker: MLflowTracker, header: RunHeader) -> None:
    if tracker.run_id is None:
        return
    from mlflow.exceptions import MlflowException

    inputs = [_input(header, context) for context in ("training", "testing")]
    with translated(f"the datasets of run {header.run_name!r}"):
        try:
            tracker.client.log_inputs(tracker.run_id, inputs)
        except MlflowException as error:
            if "unique constraint" not in str(error).lower():
                raise
            tracker.client.log_inputs(tracker.run_id, inputs)  # another run just created the same datasets, so now they exist


def _input(header: RunHeader, context: str) -> DatasetInput:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    digest = header.fingerprints.get("workload", "")[:36] or "unknown"
    dataset = Dataset(name=f"{header.dataset}_{context}", digest=digest, source_type="code", source=header.dataset)
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])
