"""Several workers of pytest-xdist collect and train at once, each with its own server."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.runs.header import open_record
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.commands.conftest import HEADER
from tests.projects import measure

ALGORITHMS = """
import logging, os, signal

class Learner:
    name = "learner"

    def train(self, training):
        logging.getLogger("pytest_pilotscope.algorithms.learner").warning("both say this")
        assert training.labels(training.queries[:5])
        checkpointer = training.session.scalar("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
        return training.report(scalars={"worker": int(os.environ["PYTEST_XDIST_WORKER"][2:]), "server": checkpointer})

    def steer(self, query, subplans):
        raise AssertionError("nothing is to be measured")

class Other(Learner):
    name = "other"

class Killed(Learner):
    name = "killed"

    def train(self, training):
        os.kill(os.getpid(), signal.SIGKILL)

def pytest_pilotscope_register(registry):
    for algorithm in (Learner, Other, Killed):
        registry.add_algorithm(algorithm.name, algorithm, origin=__name__)
"""


@pytest.mark.slow
def test_workers_train_and_one_process_sends(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing is measured; every training is recorded by its worker and sent once, by the process that started them. It shows their warnings.

    The worker that is killed loses its own training only; that is sent as killed.
    """
    store = f"sqlite:///{pytester.path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    result = measure(pytester, "--algo", "learner,other,killed", "--no-measure", "-n", "2", conftest=ALGORITHMS)
    assert result.ret == pytest.ExitCode.TESTS_FAILED, result.stdout.str() + result.stderr.str()
    assert "worker 'gw" in result.stdout.str()
    assert "MLflow: 2 FINISHED, 1 KILLED" in result.outlines
    assert result.stdout.str().count("pilotscope: warning: both say this") == 1
    records = {record.header.algorithm: record for record in map(read_record, (pytester.path / "results").glob("*.jsonl"))}
    assert {name: record.status for name, record in records.items()} == {
        "learner": "FINISHED",
        "other": "FINISHED",
        "killed": "INTERRUPTED",
    }
    assert all(len(record.runs) == 0 for record in records.values())
    assert _scalar(records["learner"], "server") != _scalar(records["other"], "server")
    for name, record in records.items():
        (run,) = MLflowTracker.list_runs(f"{name}_stats_tiny", tracking_uri=store)
        sent = (run["run_name"], run["status"], run["tags.stage"])
        assert sent == (record.header.run_name, *(("KILLED", "training") if name == "killed" else ("FINISHED", "trained")))


def test_two_runs_of_one_second(tmp_path: Path) -> None:
    """If another process takes the run's name between header and record, the run gets another name."""
    header = replace(HEADER, run_name="mine")
    with open_record(header, tmp_path) as first, open_record(header, tmp_path) as second:
        assert [writer.header.run_name for writer in (first, second)] == ["mine", "mine_2"]
        assert second.path == tmp_path / "mine_2.jsonl"
    assert read_record(second.path).header == second.header


def test_nothing_is_judged_without_a_measurement(pytester: pytest.Pytester) -> None:
    """A gate or a comparison of nothing is a usage error."""
    result = measure(pytester, "--no-measure", "--compare", "--no-mlflow")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert re.search(r"^ERROR: --no-measure leaves nothing to judge; leave --compare out$", result.stderr.str(), re.MULTILINE)


@pytest.mark.slow
def test_there_is_nothing_to_look_at_without_a_measurement(pytester: pytest.Pytester) -> None:
    """A test that shows a measurement is skipped with the reason why there is none."""
    view = (Path(__file__).resolve().parents[2] / "benchmarks" / "test_estimation.py").read_text(encoding="utf-8")
    pytester.makepyfile(test_estimation=view)
    result = pytester.runpytest_subprocess("test_estimation.py", "--no-measure", "--no-mlflow", "-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["SKIPPED * nothing is measured with --no-measure"])


def _scalar(record: Record, name: str) -> float:
    (report,) = record.training
    return report.scalars[name]
