"""If a shared tracking server is down during a run, the record is complete, and `sync` sends it once."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from psycopg2.extensions import parse_dsn

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import TrackingError
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.runs.bench import Bench
from pytest_pilotscope.runs.cases import Case
from pytest_pilotscope.runs.finished import FinishedRun
from pytest_pilotscope.tracking.store import open_client
from pytest_pilotscope.tracking.sync import State, sync
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.toy import Toy
from tests.tracking.servers import Line, tls_server, tracking_server

CASE = Case(algorithms=("baseline",), dataset="toy")
EXPERIMENT = "baseline_toy"
PASSWORD = "correct-horse-battery"  # noqa: S105 - of a server that lives as long as its tests


@pytest.fixture(scope="module", params=["sqlite, with a password", "postgresql"])
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    """Give a line to a tracking server, once for each kind of backend store; the first needs a password, which is in the environment."""
    with tempfile.TemporaryDirectory(prefix="pilotscope-tracking-") as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        if request.param == "postgresql":
            server: EmbeddedServer = request.getfixturevalue("newest_server")
            with server.connect() as session:
                session.execute("CREATE DATABASE tracking")
            at = parse_dsn(server.dsn.reveal())
            opened = tracking_server(folder, f"postgresql+psycopg2://{at['user']}@/tracking?host={at['host']}&port={at['port']}")
        else:
            opened = tracking_server(folder, f"sqlite:///{folder}/mlflow.db", password=PASSWORD)
        with opened as port:
            made = Line(port)
            yield made
            made.cut()


@pytest.fixture(scope="module")
def databases() -> Iterator[Bench]:
    """Give a bench with an open toy database; tests use only its database."""
    bench = _bench(Settings(algorithms=("baseline",), datasets=("toy",), mlflow=False))
    bench.database("toy")
    yield bench
    bench.close()


@pytest.fixture
def measure(line: Line, databases: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FinishedRun]:
    """Measure the baseline with records in the test's folder and MLflow at the line; `during` is called after the last query."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", line.url)
    settings = Settings(algorithms=("baseline",), datasets=("toy",), rounds=2, results=tmp_path / "results")

    def run(during: Callable[[], None] = lambda: None) -> FinishedRun:
        bench = _bench(settings)
        bench._databases = databases._databases
        with bench.open_run(CASE) as opened:
            for _, problems in opened.measure_all():
                assert problems == []
            during()
        return bench.finished[0]

    return run


@pytest.mark.slow
def test_down_at_the_start(line: Line, measure: Callable[..., FinishedRun], tmp_path: Path) -> None:
    """MLflow gets nothing; the record is complete, and `sync` sends it once."""
    line.cut()
    finished = measure()
    line.join()
    _check_unsent(
        finished,
        rf"the MLflow server '{line.url}' does not answer: Connection refused; check the address, or name another store with "
        "--tracking-uri",
    )
    _check_sync(tmp_path, finished, "sent")


@pytest.mark.slow
def test_down_during_the_measurement(line: Line, measure: Callable[..., FinishedRun], tmp_path: Path) -> None:
    """Nobody asks the server before the record has its end, so the run is sent at once."""
    line.cut()
    finished = measure(during=line.join)
    (run,) = _runs(finished)
    assert (run["status"], finished.unsent) == ("FINISHED", False)
    assert [sent.state for sent in sync(tmp_path / "results")] == ["there"]


@pytest.mark.slow
def test_down_at_the_end(line: Line, measure: Callable[..., FinishedRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store lacks only the metrics and the end; `sync` adds no duplicates."""
    end = MLflowTracker.end

    def cut_first(tracker: MLflowTracker, *arguments: Any, **options: Any) -> None:
        line.cut()
        end(tracker, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(MLflowTracker, "end", cut_first)
        finished = measure()
    line.join()
    _check_unsent(finished, r"the MLflow store could not be used for the metrics of run 'baseline_toy_.*': .*refused.*")
    (unfinished,) = _runs(finished)
    assert unfinished["status"] == "RUNNING"
    assert finished.record_path.name in _artifacts(unfinished["run_id"])
    _check_sync(tmp_path, finished, "completed")


@pytest.mark.slow
def test_up_all_the_time(measure: Callable[..., FinishedRun], tmp_path: Path) -> None:
    """The run is complete, with artifacts sent through the server, and `sync` has nothing to send."""
    finished = measure()
    (run,) = _runs(finished)
    assert finished.tracking == f"experiment {EXPERIMENT}, run {run['run_id']}"
    assert run["artifact_uri"].startswith("mlflow-artifacts:/")
    assert [sent.state for sent in sync(tmp_path / "results")] == ["there"]


@pytest.mark.slow
@pytest.mark.parametrize("line", ["sqlite, with a password"], indirect=True)
def test_a_wrong_password(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """User and password come from MLflow's own variables; the error for a wrong password does not show it."""
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-password-here")
    with pytest.raises(TrackingError, match=r"^the MLflow store could not be used for .*401") as refused:
        MLflowTracker.list_runs(EXPERIMENT, tracking_uri=line.url)
    assert "wrong-password-here" not in str(refused.value)


def test_a_certificate_is_for_mlflow_to_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that MLflow's own variables trust is accepted."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with tls_server(tmp_path) as (url, certificate):
        monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(certificate))
        assert MLflowTracker.list_runs(EXPERIMENT, tracking_uri=url) == []
        monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
        with pytest.raises(TrackingError, match=r"^the MLflow store could not be used for .*CERTIFICATE_VERIFY_FAILED"):
            MLflowTracker.list_runs(EXPERIMENT, tracking_uri=url)


def _bench(settings: Settings) -> Bench:
    registry: Registry = builtin_registry()
    registry.add_dataset("toy", lambda **_: Toy(), origin=__name__)
    return Bench(settings=settings, registry=registry, say=lambda text: None, progress=lambda text, total: nullcontext(lambda steps: None))


def _check_unsent(finished: FinishedRun, reason: str) -> None:
    """Check that the record is complete, and that the outcome names the problem and the remedy."""
    assert finished.record.status == "FINISHED"
    assert len(finished.record.runs) == 2 * (1 + 2)
    assert re.fullmatch(rf"not sent \({reason}\); the record is complete, `pilotscope sync` sends it later", finished.tracking, re.DOTALL)


def _check_sync(tmp_path: Path, finished: FinishedRun, state: State) -> None:
    """Check that the first `sync` completes the run, and that the second one adds no metric, artifact or run."""
    assert [sent.state for sent in sync(tmp_path / "results")] == [state]
    (run,) = _runs(finished)
    assert (run["status"], run["tags.stage"]) == ("FINISHED", "tested")
    histories = {name: _history(run, name) for name in ("test_total_time", "test_speedup")}
    assert all(len(history) == 1 for history in histories.values())
    artifacts = _artifacts(run["run_id"])
    assert finished.record_path.name in artifacts
    assert [sent.state for sent in sync(tmp_path / "results")] == ["there"]
    assert {name: _history(run, name) for name in histories} == histories
    assert _artifacts(run["run_id"]) == artifacts
    assert len(_runs(finished)) == 1


def _runs(finished: FinishedRun) -> list[dict[str, Any]]:
    """Return the runs of this record in the store."""
    identity = finished.record.header.tags["record_id"]
    return [run for run in MLflowTracker.list_runs(EXPERIMENT) if run["tags.record_id"] == identity]


def _history(run: dict[str, Any], name: str) -> list[tuple[int, int, float]]:
    return [(point.step, point.timestamp, point.value) for point in open_client().get_metric_history(run["run_id"], name)]


def _artifacts(run_id: str) -> list[str]:
    return [artifact.path for artifact in open_client().list_artifacts(run_id)]
