"""The algorithm `knob` from training to the prepared database; interrupted and resumed; the server as it was."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.algorithms.knob import catalogue
from pytest_pilotscope.algorithms.knob import tuning as tuning_module
from pytest_pilotscope.algorithms.knob.measuring import select_queries
from pytest_pilotscope.algorithms.knob.trial_server import TrialServer
from pytest_pilotscope.algorithms.knob.tuning import UNFINISHED, KnobOptions, KnobTuning
from pytest_pilotscope.algorithms.model_files import write_json_model
from pytest_pilotscope.errors import AlgorithmError, ModelError, UsageError
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import TrainingReport
from pytest_pilotscope.statistics.intervals import Interval
from tests.algorithms.shop import knob_options, metadata_for, training
from tests.algorithms.statements import failing_at, steps
from tests.algorithms.test_knob_trial_server import given, somebodys, state

__all__ = ["given", "somebodys"]  # fixtures

SMALL = knob_options(trials=4, trial_s=4.0, rounds=2, names=("work_mem", "random_page_cost", "bgwriter_lru_maxpages", "enable_hashjoin"))

RANDOM = replace(SMALL, strategy="random")


def run(database: Database, folder: Path, options: KnobOptions = SMALL) -> tuple[KnobTuning, TrainingReport]:
    """An algorithm that has been trained, and its report."""
    algorithm = KnobTuning(options)
    with training("knob", database, folder) as given:
        return algorithm, algorithm.train(given)


@pytest.fixture
def decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second measurement finds that the best trial takes half the time: these queries are too short to tell for sure."""
    monkeypatch.setattr(tuning_module, "compare", lambda *_, **__: Interval(estimate=0.5, low=0.4, high=0.6))
    monkeypatch.setattr(tuning_module, "best_trial", lambda trials: trials[-1])


def test_training_searches_and_records(shop: Database, tmp_path: Path) -> None:
    """The fixed names, a cost per trial, trial 0 the default; the search's file becomes an artifact; the server is as it was."""
    before = state(shop)
    algorithm, report = run(shop, tmp_path)
    assert state(shop) == before
    assert algorithm.values is not None
    per_trial = {"trial_cost": 4, "incumbent_cost": 4, "knob_optimization_time_seconds": 4}
    assert {name: len(values) for name, values in report.metrics.items()} == per_trial
    names = {"best_performance", "knob_trials_seconds", "num_knobs_tuned", "num_knobs_changed", "knob_restarts"}
    assert names <= set(report.scalars)
    assert report.scalars["num_knobs_tuned"] == 4
    assert report.scalars["best_performance"] <= report.scalars["default_performance"]
    assert report.parameters["target_metric"] == "total_time"
    assert report.parameters["knob_levels"] == "session,reload,restart"
    assert re.fullmatch(r"knob_\d{8}_\d{6}", algorithm.model_id)
    assert report.parameters["model_id"] == algorithm.model_id
    model, metadata, *paths = (Path(path) for path in report.artifacts)
    assert (model.name, metadata.name) == (algorithm.model_id, f"{algorithm.model_id}.json")
    assert paths[0].name == "knob_config_iteration_0.json"
    assert json.loads(paths[0].read_text())["changed"] == {}
    assert paths[-1].name == "knob_trials.jsonl"
    assert len(paths[-1].read_text().splitlines()) == 5
    assert list((tmp_path / "results" / UNFINISHED).iterdir()) == []


@pytest.mark.slow
@pytest.mark.usefixtures("decided")
def test_what_was_confirmed_is_prepared(shop: Database, tmp_path: Path) -> None:
    """The settings of the best trial, digit by digit, in the prepared database; also after saving and loading."""
    algorithm, report = run(shop, tmp_path)
    assert algorithm.values
    assert report.scalars["knob_speedup"] == 2
    assert (report.scalars["knob_confirmed"], report.scalars["knob_validation_speedup"]) == (1, 2)
    assert report.scalars["num_knobs_changed"] == len(algorithm.values)
    algorithm.save(tmp_path / "saved")
    loaded = KnobTuning()
    with training("knob", shop, tmp_path) as given:
        loaded.load(tmp_path / "saved", given)
    assert KnobTuning.decider(tmp_path / "saved")("SELECT 1") == {"settings": algorithm.values}
    for each in (algorithm, loaded):
        with each.prepare(shop) as prepared, prepared.session() as session:
            shown = session.execute("SELECT name, setting FROM pg_settings WHERE name = ANY (%s)", (list(algorithm.values),))
            assert dict(shown) == algorithm.values


@pytest.mark.slow
def test_what_is_not_confirmed_is_not_called_better(
    shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An interval that holds 1 leaves the default in place, and says so."""
    monkeypatch.setattr(tuning_module, "compare", lambda *_, **__: Interval(estimate=0.9, low=0.8, high=1.01))
    monkeypatch.setattr(tuning_module, "best_trial", lambda trials: trials[-1])
    algorithm, report = run(shop, tmp_path)
    assert algorithm.values == {}
    assert (report.scalars["knob_confirmed"], report.scalars["knob_validation_speedup"]) == (0, 1)
    assert caplog.messages[-1] == (
        "the best settings of the search are not better than the default when measured in turns (0.900 times as long, 95 % interval "
        "0.800 to 1.010); the default stays"
    )
    with algorithm.prepare(shop) as prepared:
        assert prepared is shop


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        replace(SMALL, projection="llamatune", target="p95_time"),
        replace(SMALL, strategy="random", target="throughput", names=("work_mem", "geqo")),
    ],
)
def test_other_searches_and_targets(shop: Database, tmp_path: Path, options: KnobOptions) -> None:
    """LlamaTune's projection and pure chance go through the same loop."""
    _, report = run(shop, tmp_path, options)
    assert len(report.metrics["trial_cost"]) == 4
    assert report.parameters["target_metric"] == options.target


@pytest.mark.slow
def test_an_interrupted_search_goes_on(shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After Ctrl-C in the third trial, the next run with the same seed and queries tries only what is missing."""
    applied: list[dict[str, str]] = []
    original = TrialServer.apply

    def apply(self: TrialServer, values: Any) -> Any:
        if len(applied) == 2:
            raise KeyboardInterrupt("stop")
        applied.append(dict(values))
        return original(self, values)

    before = state(shop)
    with monkeypatch.context() as patch:
        patch.setattr(TrialServer, "apply", apply)
        with pytest.raises(KeyboardInterrupt, match=r"^stop$"):
            run(shop, tmp_path)
    assert state(shop) == before
    (unfinished,) = (tmp_path / "results" / UNFINISHED).iterdir()
    kept = unfinished.read_text().splitlines()
    _, report = run(shop, tmp_path)
    lines = Path(report.artifacts[-1]).read_text().splitlines()
    assert lines[:3] == kept
    assert [json.loads(line).get("number") for line in lines] == [None, 0, 1, 2, 3]
    with training("knob", shop, tmp_path) as given:
        KnobTuning(replace(SMALL, seed=9)).train(given)  # another search is not mixed up with it


_KILLED = """
import os, signal, sys
from pathlib import Path
from pytest_pilotscope.algorithms.knob.trials import TrialLog
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database
from tests.algorithms.test_knob_tuning import RANDOM, run

append = TrialLog.append

def append_and_die(log, trial):
    append(log, trial)
    if trial.number == 2:
        os.kill(os.getpid(), signal.SIGKILL)

TrialLog.append = append_and_die
with open_database(PostgreSQLConfig(None, dsn=sys.argv[1], allow_changes=("settings",))) as database:
    run(database, Path(sys.argv[2]), RANDOM)
"""


@pytest.mark.slow
def test_a_killed_search_goes_on_and_the_server_is_put_right(given: Database, somebodys: EmbeddedServer, tmp_path: Path) -> None:
    """After `kill -9` in the middle of a search, the next one keeps its trials, and the settings it had left are the old ones again."""
    before = state(given)
    dsn = f"{somebodys.dsn.reveal()} dbname={given.name}"
    killed = subprocess.run([sys.executable, "-c", _KILLED, dsn, str(tmp_path)], check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == -signal.SIGKILL
    assert state(given) != before
    (unfinished,) = (tmp_path / "results" / UNFINISHED).glob("*.jsonl")
    kept = unfinished.read_text().splitlines()
    assert len(kept) == 4
    with open_database(PostgreSQLConfig(None, dsn=dsn, allow_changes=("settings",))) as again:
        _, report = run(again, tmp_path, RANDOM)
    lines = Path(report.artifacts[-1]).read_text().splitlines()
    assert lines[:4] == kept
    assert [json.loads(line).get("number") for line in lines] == [None, 0, 1, 2, 3]
    assert state(given) == before


@pytest.mark.slow
@pytest.mark.usefixtures("decided")
def test_the_server_is_the_same_before_and_after_whatever_fails(
    given: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    On somebody else's server: indexes, settings, statistics and databases are the same after training and preparing, and after a failure at
    each kind of statement, except those with which the settings are put back.
    """
    options = replace(SMALL, strategy="random", trials=2, rounds=1)

    def life() -> None:
        algorithm, _ = run(given, tmp_path, options)
        with algorithm.prepare(given) as prepared, prepared.session() as session:
            session.execute("SELECT count(*) FROM orders")

    before = state(given)
    found = steps(monkeypatch, life)
    assert state(given) == before
    restoring = ("SELECT pg_reload_conf", "SELECT pg_conf_load_time")
    assert len(found) >= 12
    for step in found:
        if step not in restoring:
            with pytest.raises(KeyboardInterrupt, match=f"^{re.escape(step)}$"), failing_at(monkeypatch, step, once=True):
                life()
            assert state(given) == before, step


WRITING = (
    Query(id="deletes", sql="WITH gone AS (DELETE FROM orders RETURNING *) SELECT count(*) FROM gone"),
    Query(id="counts", sql="SELECT nextval('tickets')"),
)


@pytest.mark.usefixtures("decided")
def test_queries_that_write_are_left_out(given: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """On somebody's own database: each is named with what PostgreSQL says, nothing is written, and no trial fails for it."""
    with given.session() as owner:
        owner.execute("CREATE SEQUENCE tickets")
    with training("knob", given, tmp_path) as some:
        some.queries = (*some.queries[:3], *WRITING)
        some.validation = (*some.validation, *WRITING)
        report = KnobTuning(replace(RANDOM, trials=3, rounds=1)).train(some)
    assert (report.scalars["num_knob_queries"], report.scalars["knob_trials_failed"]) == (3, 0)
    refused = [
        f"knob tuning leaves out query {query.id}, which fails with the default settings: statement failed: "
        f"cannot execute {what} in a read-only transaction [25006]: {query.sql}"
        for query, what in zip(WRITING, ("SELECT", "nextval()"), strict=True)
    ]
    assert sorted(caplog.messages) == sorted(2 * refused)  # of the training queries, and of the validation queries
    with given.session() as owner:
        assert owner.execute("SELECT count(*), (SELECT is_called FROM tickets) FROM orders") == [(20000, False)]


def test_no_query_can_be_drawn(newest_scratch: Session, caplog: pytest.LogCaptureFixture) -> None:
    """If all queries fail with the default settings the error says so, beside their warnings."""
    expected = (
        "none of the 1 queries runs within 1 s with the default settings, a quarter of a trial (1 of them fail, see the warnings); "
        "raise --knob-trial-s (now 4)"
    )
    with pytest.raises(AlgorithmError, match=f"^{re.escape(expected)}$"):
        select_queries(newest_scratch, [Query(id="q", sql="SELECT 1/0")], trial_s=4, seed=0)
    assert caplog.messages == [
        "knob tuning leaves out query q, which fails with the default settings: statement failed: division by zero [22012]: SELECT 1/0"
    ]


def test_untrained_and_unusable(shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing to prepare or save, nothing to learn from, no SMAC: each says what to do."""
    with pytest.raises(AlgorithmError, match=r"^knob tuning has no settings to prepare: train it or load a model first$"):
        KnobTuning().prepare(shop).__enter__()
    with pytest.raises(AlgorithmError, match=r"^knob tuning has nothing to save: train it or load a model first$"):
        KnobTuning().save(tmp_path)
    with training("knob", shop, tmp_path) as given:
        given.queries = ()
        expected = "knob tuning has no training queries; raise --training-size or give a workload that has some"
        with pytest.raises(AlgorithmError, match=f"^{re.escape(expected)}$"):
            KnobTuning(SMALL).train(given)
    monkeypatch.setitem(__import__("sys").modules, "pytest_pilotscope.algorithms.knob.search", None)
    expected = r"^knob tuning needs SMAC \(.*\); install it with: pip install 'pytest-pilotscope\[knob\]'$"
    with training("knob", shop, tmp_path) as given, pytest.raises(UsageError, match=expected):
        KnobTuning(SMALL).train(given)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"settings": [1]}, "model knob_1 holds no settings with values as text; it was not written by knob tuning"),
        ({"settings": {"geqo": True}}, "model knob_1 holds no settings with values as text; it was not written by knob tuning"),
        ({"settings": {"fsync": "off"}}, "model knob_1 has settings that are not tuned: fsync; it was not written by knob tuning"),
        (
            {"settings": {"enable_magic": "on"}},
            "model knob_1 has settings that this server does not know: enable_magic; it belongs to another PostgreSQL version",
        ),
    ],
)
def test_broken_and_foreign_models(
    shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, Any], expected: str
) -> None:
    """Each is a ModelError that names the model; a model cannot switch off durability."""
    monkeypatch.setitem(catalogue.CATALOGUE, "enable_magic", catalogue.Entry(why="none"))
    with training("knob", shop, tmp_path) as given:
        write_json_model(tmp_path, metadata_for(given, "knob_1"), "knobs.json", content, format_number=1)
        with pytest.raises(ModelError, match=f"^{re.escape(expected)}$"):
            KnobTuning().load(tmp_path, given)


@pytest.mark.slow
def test_sessions_are_not_left_open(shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every session that training opened is closed."""
    opened: list[Session] = []
    original = Session.__init__

    def remember(self: Session, connection: Any) -> None:
        original(self, connection)
        opened.append(self)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "__init__", remember)
        run(shop, tmp_path, replace(SMALL, strategy="random", trials=2))
    assert opened
    assert all(session.closed for session in opened)
