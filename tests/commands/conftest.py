"""A store, records to send to it, and the command line run within this process."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pytest_pilotscope.commands.cli import PROGRAM, cli
from pytest_pilotscope.record.projection import COMPARISON
from pytest_pilotscope.record.record import Entry, RecordWriter
from pytest_pilotscope.record.results import QueryRun, RunEnd, RunHeader, TrainingReport
from pytest_pilotscope.tracking.store import open_client
from pytest_pilotscope.tracking.tracker import MLflowTracker

START = datetime.fromisoformat("2026-01-02T03:04:05+00:00")

Command = Callable[..., Result]
WriteRecord = Callable[..., Path]
AddRun = Callable[..., str]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an empty sqlite store once, because MLflow needs seconds to create its tables."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_client(f"sqlite:///{path}")
    return path


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to an empty folder, and hide the settings of this machine from the commands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def store(workplace: Path, empty_store: Path) -> str:
    """Give an empty store at the default path in that folder."""
    shutil.copy(empty_store, workplace / "mlflow.db")
    return f"sqlite:///{workplace}/mlflow.db"


@pytest.fixture
def pilotscope(workplace: Path) -> Command:
    """Run the command line; its result has `exit_code`, `stdout` and `stderr`."""

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments, prog_name=PROGRAM)

    return run


@pytest.fixture
def add_run(store: str) -> AddRun:
    """Add a run to the store; return its id."""

    def add(
        experiment: str,
        name: str,
        *,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, object] | None = None,
        tags: Mapping[str, str] | None = None,
        hour: int = 0,
        status: str = "FINISHED",
    ) -> str:
        moment = START + timedelta(hours=hour)
        tracker = MLflowTracker(experiment, name, params=params, tags=tags, tracking_uri=store, started_at=moment).start()
        tracker.log_metrics(metrics or {})
        tracker.end(status, ended_at=moment + timedelta(seconds=90))
        return str(tracker.run_id)

    return add


@pytest.fixture
def write_record(workplace: Path) -> WriteRecord:
    """
    Write the record of a small run into `results/`; without `ended` it is one of a killed process.

    With the algorithm of a comparison its sides are `baseline` and `mscn`.
    """

    def write(
        name: str = "mscn_toy_20260102_030405",
        *,
        algorithm: str = "mscn",
        dataset: str = "toy",
        identity: str = "abc123",
        ended: bool = True,
        more: tuple[Entry, ...] = (),
    ) -> Path:
        path = workplace / "results" / f"{name}.jsonl"
        side = "mscn" if algorithm == COMPARISON else algorithm
        header = replace(
            HEADER,
            run_name=name,
            algorithm=algorithm,
            dataset=dataset,
            sides=("baseline", side),
            parameters={**HEADER.parameters, "algorithm": algorithm},
            tags={**HEADER.tags, "record_id": identity},
        )
        runs = (replace(run, side=side) if run.side == "mscn" else run for run in RUNS)
        with RecordWriter(path, header) as writer:
            for entry in (*more, *runs, *([END] if ended else [])):
                writer.write(entry)
        return path

    return write


HEADER = RunHeader(
    run_name="",
    algorithm="mscn",
    dataset="toy",
    started_at=START.isoformat(),
    sides=("baseline", "mscn"),
    rounds=3,
    seed=1,
    suite_version="0.1.0",
    queries={"q1": "SELECT 1", "q2": "SELECT 2"},
    parameters={"algorithm": "mscn", "dataset": "toy", "num_epoch": 3},
    tags={"dataset.name": "toy"},
    fingerprints={"workload": "0123456789abcdef"},
)
RUNS = tuple(
    QueryRun(
        query_id=query,
        side=side,
        repetition=repetition,
        order=order,
        inference_ms=0.0,
        planning_ms=0.0,
        execution_ms=2000.0 if side == "baseline" else 1000.0,
    )
    for query in ("q1", "q2")
    for repetition in range(4)
    for order, side in enumerate(("baseline", "mscn"))
)
TRAINING = TrainingReport(side="mscn", duration_s=2.0, metrics={"train_loss": (3.0, 2.0, 1.5)}, parameters={"batch_size": 64})
END = RunEnd(status="FINISHED", finished_at=(START + timedelta(minutes=2)).isoformat())
