"""On a server without the pilotscope library, algorithms that steer queries are rejected before training."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.errors import MissingExtension, SideFailed
from pytest_pilotscope.learning.decision import Decision
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.runs.opening import benchmark_run
from pytest_pilotscope.runs.scheduler import Scheduler
from tests.toy import Toy


class Learner:
    """An algorithm that decides nothing; it notes that it was trained."""

    name = "learner"
    trained = False

    def train(self, training: Training) -> Any:
        """Learn nothing."""
        type(self).trained = True
        return training.report()


class Estimator(Learner):
    """An algorithm that estimates cardinalities."""

    name = "estimator"

    def steer(self, query: object, subplans: Mapping[frozenset[str], float]) -> Mapping[frozenset[str], float]:
        """Return PostgreSQL's own estimates."""
        return subplans


class Chooser(Learner):
    """An algorithm that decides for each query."""

    name = "chooser"

    def decide(self, query: object, session: object) -> Decision:
        """Keep PostgreSQL's own plan."""
        return Decision()


class Setter(Learner):
    """An algorithm that decides on settings only."""

    name = "setter"
    settings_only = True

    def decide(self, query: object, session: object) -> Decision:
        """Use no index."""
        return Decision(settings={"enable_indexscan": "off"})


@pytest.fixture(autouse=True)
def _no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_pilotscope.provision.database.steering_libraries", lambda bindir: ())
    for kind in (Learner, Estimator, Chooser, Setter):
        monkeypatch.setattr(kind, "trained", False)


@pytest.fixture
def database() -> Iterator[Database]:
    """Give the toy dataset on a server without the library."""
    with open_database(PostgreSQLConfig("toy", server="embedded"), Toy()) as opened:
        yield opened


@pytest.fixture
def given(database: Database, tmp_path: Path) -> dict[str, Any]:
    """Return the arguments of a run."""
    registry = Registry()
    for kind in (Learner, Estimator, Chooser, Setter):
        registry.add_algorithm(kind.name, kind, origin=__name__)
    return {
        "database": database,
        "workload": Toy().workload(),
        "settings": Settings(results=tmp_path, rounds=1),
        "registry": registry,
        "progress": lambda text, steps: nullcontext(lambda done: None),
    }


MESSAGE = "this server was started without the pilotscope library, so (estimator|chooser) cannot steer it; start it again"


@pytest.mark.parametrize("kind", [Estimator, Chooser])
def test_a_run_is_refused_before_training(given: dict[str, Any], kind: type[Learner], tmp_path: Path) -> None:
    """The record has the reason and neither training nor queries; a run that only trains is allowed."""
    with pytest.raises(MissingExtension, match=f"^{MESSAGE}$"), benchmark_run(kind.name, **given):
        pass
    assert not kind.trained
    (path,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["kind"] for line in lines] == ["header", "end"]
    assert re.fullmatch(f"MissingExtension: {MESSAGE}", lines[-1]["error"])
    with benchmark_run(kind.name, **{**given, "settings": replace(given["settings"], measure=False)}):
        assert kind.trained


def test_settings_need_no_library(given: dict[str, Any], tmp_path: Path) -> None:
    """An algorithm that promises to decide on settings only is trained and measured, and its settings are verified."""
    with benchmark_run("setter", **given) as run:
        assert [problems for _, problems in run.measure_all() if problems] == []
    assert Setter.trained
    (path,) = tmp_path.glob("*.jsonl")
    reports = [line for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if line["kind"] == "query_report"]
    assert {line["steered_ratio"] for line in reports if line["side"] == "setter"} == {1.0}


def test_a_comparison_goes_on_without_it(given: dict[str, Any]) -> None:
    """The algorithm that needs no steering is measured; the other is out before its training."""
    measured: list[object] = []

    def compare() -> None:
        with benchmark_run("estimator", "learner", together=True, **given) as run:
            measured.extend([[side.name for side in run.sides], [problems for _, problems in run.measure_all()]])

    with pytest.raises(SideFailed, match=f"^estimator failed: MissingExtension: {MESSAGE}$"):
        compare()
    assert measured == [["baseline", "learner"], [[]]]
    assert (Estimator.trained, Learner.trained) == (False, True)


@pytest.mark.slow
def test_a_scheduler_is_refused_before_training() -> None:
    """The scheduler does not open."""
    scheduler = Scheduler(config=PostgreSQLConfig("stats_tiny", server="embedded", scale=0.01), algorithm=Chooser(), settings=Settings())
    with pytest.raises(MissingExtension, match=f"^{MESSAGE}$"), scheduler:
        pass
    assert not Chooser.trained
