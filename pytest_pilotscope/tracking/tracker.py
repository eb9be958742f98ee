"""Writing a run to MLflow, and finding finished ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import TrackingError, ends_as
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.record.results import PARTIAL
from pytest_pilotscope.tracking.store import experiment_id, open_client, paged, translated

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MAX_BATCH = 1000
"""MLflow's limit of metrics in one request."""

SMALL_PAGE = 20
"""The size of a page if probably the first run is the right one."""

MAX_PARAMS = 100
"""MLflow's limit of parameters in one request."""


class MLflowTracker:
    """
    One MLflow run, as a context manager. Static methods search for finished runs.

    The run is FINISHED at the end of the block, FAILED (with the error as the tag `error`) if the block raises, KILLED on an interrupt. The
    tracker buffers metrics and sends them in one batch at the end, or in `flush`. Every error of the store is a `TrackingError`.
    """

    def __init__(
        self,
        experiment_name: str,
        run_name: str,
        *,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        tracking_uri: str | StoreUri | None = None,
        run_id: str | None = None,
        started_at: datetime | None = None,
    ) -> None:
        self.experiment_name = experiment_name
        self.run_name = run_name
        self.run_id = run_id
        self.params: dict[str, Any] = dict(params or {})
        self._tags = dict(tags or {})
        self._started_at = started_at or datetime.now(timezone.utc)
        self._metrics: list[tuple[str, float, int, int]] = []
        self._tracking_uri = tracking_uri

    @property
    def client(self) -> MlflowClient:
        """The client of this run's store."""
        return open_client(self._tracking_uri)

    def start(self) -> MLflowTracker:
        """Create the run, or continue the one with the given id and send its tags and parameters again."""
        if self.run_id is None:
            experiment = experiment_id(self.client, self.experiment_name)
            with translated(f"run {self.run_name!r}"):
                run = self.client.create_run(
                    experiment, start_time=int(self._started_at.timestamp() * 1000), tags=self._tags, run_name=self.run_name
                )
            self.run_id = str(run.info.run_id)
        else:
            self.set_tags(self._tags)
        self.log_params(self.params)
        return self

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log parameters, which cannot change later."""
        from mlflow.entities import Param

        entries = [Param(key, str(value)) for key, value in params.items()]
        with translated(f"the parameters of run {self.run_name!r}"):
            for start in range(0, len(entries), MAX_PARAMS):
                self.client.log_batch(self.started_id, params=entries[start : start + MAX_PARAMS])

    def log_metric(self, name: str, value: float, *, step: int = 0, at: datetime | None = None) -> None:
        """Buffer one metric with the time `at`, else now; MLflow keeps one of two equal metrics with the same time."""
        moment_ms = int(at.timestamp() * 1000) if at else time_ns() // 1_000_000
        self._metrics.append((name, float(value), moment_ms, step))

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0, at: datetime | None = None) -> None:
        """Buffer several metrics of one step."""
        for name, value in metrics.items():
            self.log_metric(name, value, step=step, at=at)

    def log_series(self, name: str, values: Sequence[float], *, at: datetime | None = None) -> None:
        """Buffer one metric over steps 0, 1, ..."""
        for step, value in enumerate(values):
            self.log_metric(name, value, step=step, at=at)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags immediately, also again."""
        from mlflow.entities import RunTag

        with translated(f"the tags of run {self.run_name!r}"):
            self.client.log_batch(self.started_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Send a file, or a folder with its contents, to `folder` of the run's artifacts."""
        with translated(f"the artifact {path.name!r} of run {self.run_name!r}"):
            if path.is_dir():
                self.client.log_artifacts(self.started_id, str(path), folder)
            else:
                self.client.log_artifact(self.started_id, str(path), folder)

    def flush(self) -> None:
        """Send the buffered metrics."""
        from mlflow.entities import Metric

        pending, self._metrics = self._metrics, []
        entries = [Metric(*metric) for metric in pending]
        with translated(f"the metrics of run {self.run_name!r}"):
            for start in range(0, len(entries), MAX_BATCH):
                self.client.log_batch(self.started_id, metrics=entries[start : start + MAX_BATCH])

    def end(self, status: str, *, error: str | None = None, ended_at: datetime | None = None) -> None:
        """Send the buffered metrics and close the run as FINISHED, FAILED or KILLED."""
        self.flush()
        if error is not None:
            self.set_tags({"error": error[:5000]})
        end_ms = int(ended_at.timestamp() * 1000) if ended_at else None
        with translated(f"the end of run {self.run_name!r}"):
            self.client.set_terminated(self.started_id, status=status, end_time=end_ms)

    def __enter__(self) -> MLflowTracker:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.end("FINISHED")
        else:
            self.end(ends_as(error), error=f"{type(error).__name__}: {error}")

    @property
    def started_id(self) -> str:
        """The run's id; raises TrackingError before the start."""
        if self.run_id is None:
            raise TrackingError(f"run {self.run_name!r} is not started; use it in a `with` block or call start()")
        return self.run_id

    @staticmethod
    def get_best_run(
        experiment_name: str,
        metric: str,
        ascending: bool = True,
        *,
        tags: Mapping[str, str] | None = None,
        partial: bool = False,
        tracking_uri: str | StoreUri | None = None,
    ) -> dict[str, Any] | None:
        """
        Return the best finished run of an experiment by a metric, or None if there is no such run.

        The keys are `run_id`, `run_name`, `metric_name`, `metric_value`, `params` and `artifact_uri`. `ascending` means smaller is better.
        `tags` limits the search to runs that have them, for instance `{"fingerprint.data": ...}` for the same data. Without `partial`,
        leave out runs of a part of the test queries (`--limit`, `--queries`; they have the tag `partial`): four queries always take less
        time than all.
        """
        order = f"metrics.`{metric}` {'ASC' if ascending else 'DESC'}"
        where = " AND ".join([f"metrics.`{metric}` > -1e308", *(f"tags.`{name}` = '{value}'" for name, value in (tags or {}).items())])
        for run in _search(experiment_name, order_by=[order], page_size=SMALL_PAGE, tracking_uri=tracking_uri, where=where):
            if PARTIAL in run.data.tags and not partial:
                continue
            return {
                "run_id": run.info.run_id,
                "run_name": run.info.run_name,
                "metric_name": metric,
                "metric_value": run.data.metrics[metric],
                "params": dict(run.data.params),
                "artifact_uri": run.info.artifact_uri,
            }
        return None

    @staticmethod
    def list_runs(experiment_name: str, limit: int | None = None, *, tracking_uri: str | StoreUri | None = None) -> list[dict[str, Any]]:
        """
        Return the runs of an experiment, newest first, each as a flat dict; none if the experiment does not exist.

        The keys are `run_id`, `run_name`, `status`, `start_time`, `end_time` (datetimes in UTC or None), `artifact_uri`, and one each for
        `metrics.<name>`, `params.<name>` and `tags.<name>`.
        """
        size = min(limit or MAX_BATCH, MAX_BATCH)
        runs = _search(experiment_name, order_by=["attributes.start_time DESC"], page_size=size, tracking_uri=tracking_uri, where="")
        return [flat(run) for run in islice(runs, limit)]


def _search(experiment_name: str, *, order_by: list[str], page_size: int, tracking_uri: str | StoreUri | None, where: str) -> Iterator[Run]:
    """Yield the runs of an experiment, page by page; with a condition, only finished ones."""
    client = open_client(tracking_uri)
    condition = f"{where} AND attributes.status = 'FINISHED'" if where else ""
    with translated(f"experiment {experiment_name!r}"):
        experiment = client.get_experiment_by_name(experiment_name)
        if experiment is not None:
            found = [experiment.experiment_id]
            yield from paged(lambda token: client.search_runs(found, condition, max_results=page_size, order_by=order_by, page_token=token))


def flat(run: Run) -> dict[str, Any]:
    """Return a run as a flat dict, as `MLflowTracker.list_runs` describes it."""
    info = run.info
    return {
        "run_id": info.run_id,
        "run_name": info.run_name,
        "status": info.status,
        "start_time": moment(info.start_time),
        "end_time": moment(info.end_time),
        "artifact_uri": info.artifact_uri,
        **{f"metrics.{name}": value for name, value in run.data.metrics.items()},
        **{f"params.{name}": value for name, value in run.data.params.items()},
        **{f"tags.{name}": value for name, value in run.data.tags.items()},
    }


def moment(milliseconds: int | None) -> datetime | None:
    """Return a moment of the store in UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, tz=timezone.utc) if milliseconds else None
