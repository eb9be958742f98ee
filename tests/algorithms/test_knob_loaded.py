"""Knob tuning under the load of `--clients` and `--writes`."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.algorithms.knob import tuning as tuning_module
from pytest_pilotscope.algorithms.knob.attempt import Task, attempt
from pytest_pilotscope.algorithms.knob.loaded import Load, LoadSessions, compare_loaded, load_of, load_sessions, run_clients
from pytest_pilotscope.algorithms.knob.measuring import Pass, Selected
from pytest_pilotscope.algorithms.knob.objective import Objective, Target
from pytest_pilotscope.algorithms.knob.trial_server import open_trial_server, reach_of, space_of
from pytest_pilotscope.algorithms.knob.tuning import KnobTuning
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.provision.database import Database
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.queries.scripts import Writes, parse_script
from tests.algorithms.shop import knob_options, training

SCRIPT = "\\set id random(20001, 2000000000)\nINSERT INTO orders VALUES (:id, 1, 1, 1, 'x') ON CONFLICT DO NOTHING;"
QUERIES = tuple(Query(id=f"q{n}", sql=f"SELECT count(*) FROM orders WHERE customer = {n}") for n in range(4))
SELECTED = Selected(queries=QUERIES, default_s=(0.01,) * 4, too_long=0)
WRITES = Writes(scripts=(parse_script(SCRIPT, "s.sql"),), per_query=2.5)


def load(clients: int = 2, writes: Writes | None = WRITES) -> Load:
    """Return a load of the four queries."""
    return Load(clients=clients, writes=writes, write_limit_ms=60_000, seed=3)


def test_a_load_counts_all_executions_of_all_clients() -> None:
    """Four queries and ten scripts for each of two clients; their times add up for each client, and quantiles are over all of them."""
    measured = [float(n) for n in range(1, 29)]
    costs = {
        target: load().objective(Objective(target=target, count=4), 4) for target in ("total_time", "throughput", "p95_time", "p99_time")
    }
    assert {objective.count for objective in costs.values()} == {28}
    total = sum(measured)
    found = {target: objective.cost(measured) for target, objective in costs.items()}
    assert found == {"total_time": total / 2, "throughput": total / 28 / 2, "p95_time": 27, "p99_time": 28}
    assert costs["throughput"].performance(found["throughput"]) == pytest.approx(2 / 14.5)
    half = {target: objective.partial([5.0] * 14) for target, objective in costs.items()}
    assert half == {"total_time": 70, "throughput": 2.5, "p95_time": 5, "p99_time": 5}
    assert not costs["total_time"].exceeds([5.0] * 14, 35)
    assert costs["total_time"].exceeds([5.0] * 14, 34)
    assert costs["total_time"].query_limit_s([5.0], 35) == 65


def test_every_pass_begins_with_the_same_data(shop: Database) -> None:
    """Clients write in a copy with the settings that are tried; the database stays as it was."""
    objective = load().objective(Objective(target="throughput", count=4), 4)
    before = "SELECT count(*) FROM orders"
    for _ in range(2):
        with load_sessions(shop, load(), {"work_mem": "777"}) as sessions:
            assert {session.scalar("SHOW work_mem") for session in (*sessions.readers, *sessions.writers)} == {"777kB"}
            assert sessions.readers[0].scalar(before) == 20_000
            found = run_clients(sessions, SELECTED, objective, load(), math.inf)
            assert sessions.readers[0].scalar(before) == 20_022  # two of them warmed up the sessions
        assert (len(found.times_s), found.capped) == (28, False)
    with shop.session() as session:
        assert session.scalar(before) == 20_000
        databases = session.execute("SELECT datname FROM pg_database ORDER BY 1")
    with load_sessions(shop, load(writes=None), {}) as sessions:
        assert (len(sessions.readers), len(sessions.writers)) == (2, 0)
        assert sessions.readers[0].database == shop.name
        alone = load(writes=None).objective(Objective(target="throughput", count=4), 4)
        assert len(run_clients(sessions, SELECTED, alone, load(writes=None), math.inf).times_s) == 8
        assert sessions.readers[0].execute("SELECT datname FROM pg_database ORDER BY 1") == databases


def test_a_hopeless_pass_is_cut_off(shop: Database) -> None:
    """All clients stop once the cost is sure to be above the limit, and when a query takes far longer than by default."""
    objective = load().objective(Objective(target="total_time", count=4), 4)
    with load_sessions(shop, load(), {}) as sessions:
        found = run_clients(sessions, SELECTED, objective, load(), 0.0)
        assert found.capped
        assert len(found.times_s) <= 2
        slow = Selected(queries=(Query(id="slow", sql="SELECT pg_sleep(60)"),), default_s=(0.001,), too_long=0)
        found = run_clients(sessions, slow, objective, load(), math.inf)
        assert (found.capped, len(found.times_s)) == (True, 1)


def test_a_trial_is_one_pass_under_load(shop: Database) -> None:
    """The trial server gives clients with the settings of the trial; a script that fails makes a trial that failed."""
    with shop.session() as session:
        reach = reach_of(shop)
        space = space_of(session, reach, ("work_mem", "enable_hashjoin"))
    objective = load().objective(Objective(target="throughput", count=4), 4)
    task = Task(values={**space.defaults, "work_mem": "2048"}, selected=SELECTED, objective=objective, limit=math.inf, load=load())
    with open_trial_server(shop, space, reach) as trial_server:
        outcome = attempt(task, trial_server)
        assert (outcome.status, len(outcome.times_s), outcome.applied) == ("ok", 28, "session")
        with trial_server.clients(load()) as sessions:
            assert sessions.writers[0].scalar("SHOW work_mem") == "2MB"
        bad = Writes(scripts=(parse_script("INSERT INTO missing VALUES (1)", "bad.sql"),), per_query=1.0)
        failed = attempt(
            Task(values=space.defaults, selected=SELECTED, objective=objective, limit=math.inf, load=load(writes=bad)), trial_server
        )
        assert failed.status == "failed"
        assert failed.message.startswith('--writes bad.sql: statement failed: relation "missing" does not exist')


@pytest.mark.parametrize("target", ["throughput", "p99_time"])
def test_the_best_settings_take_turns_with_the_default(monkeypatch: pytest.MonkeyPatch, target: Target) -> None:
    """Half the latency is found as half the cost; each side is first as often as possible."""
    order: list[str] = []

    @contextmanager
    def opened(name: str) -> Iterator[LoadSessions]:
        order.append(name)
        yield LoadSessions(readers=[name], writers=[])  # type: ignore[list-item]

    def passed(sessions: LoadSessions, *_: Any, repetition: int, **__: Any) -> Pass:
        return Pass(times_s=(0.1 * (1 if sessions.readers[0] == "default" else 0.5) * repetition,) * 28, capped=False)  # type: ignore[comparison-overlap]

    monkeypatch.setattr("pytest_pilotscope.algorithms.knob.loaded.run_clients", passed)
    objective = load().objective(Objective(target=target, count=4), 4)
    ratio = compare_loaded(lambda: opened("default"), lambda: opened("candidate"), SELECTED, objective, load())
    assert (ratio.low, ratio.estimate, ratio.high) == pytest.approx((0.5, 0.5, 0.5))
    assert Counter(order) == {"default": 5, "candidate": 5}
    assert Counter(order[::2]) == {"default": 3, "candidate": 2}


@pytest.mark.slow
def test_training_under_load(shop: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names of the record are those of any search; the parameters have the load; a search under another load does not go on with it."""
    (tmp_path / "s.sql").write_text(SCRIPT)
    options = knob_options(trials=3, trial_s=0.2, target="throughput", names=("work_mem", "enable_hashjoin"))
    chosen: dict[str, Any] = {"clients": 2, "writes": (str(tmp_path / "s.sql"),), "writes_per_query": 1.0}
    keys: list[str] = []
    monkeypatch.setattr(tuning_module, "search_key", lambda about: keys.append(repr(about)) or f"key{len(keys)}")  # type: ignore[func-returns-value]
    for more in ({}, {"clients": 3}):
        with training("knob", shop, tmp_path, **{**chosen, **more}) as given:
            report = KnobTuning(options).train(given)
    assert keys[0] != keys[1]
    assert {name: len(values) for name, values in report.metrics.items()} == {
        "trial_cost": 3,
        "incumbent_cost": 3,
        "knob_optimization_time_seconds": 3,
    }
    assert (report.parameters["target_metric"], report.parameters["knob_clients"]) == ("throughput", 3)
    assert re.fullmatch(r"[0-9a-f]{12}", str(report.parameters["knob_writes"]))
    assert report.scalars["best_performance"] == pytest.approx(1 / min(report.metrics["trial_cost"]))
    with shop.session() as session:
        assert session.scalar("SELECT count(*) FROM orders") == 20_000


def test_workers_do_not_try_under_load(shop: Database, tmp_path: Path) -> None:
    """Their times are scaled by those of queries one after the other."""
    message = "^--dask: knob tries settings under the load of --clients and --writes on one server only; leave --dask out$"
    with training("knob", shop, tmp_path, clients=2, dask="local:2") as given, pytest.raises(UsageError, match=message):
        KnobTuning(knob_options()).train(given)
    with training("knob", shop, tmp_path) as given:
        assert load_of(given) is None
