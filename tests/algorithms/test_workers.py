"""Lero's collection and knob tuning on real Dask workers, each with a server of its own."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from pytest_pilotscope.algorithms.knob.attempt import Outcome, Task
from pytest_pilotscope.algorithms.knob.measuring import Selected
from pytest_pilotscope.algorithms.knob.objective import Objective
from pytest_pilotscope.algorithms.knob.trial_server import reach_of, space_of
from pytest_pilotscope.algorithms.knob.tuning import KnobTuning
from pytest_pilotscope.algorithms.knob.worker_trials import attempt_on_worker
from pytest_pilotscope.algorithms.lero.collected import CollectedQuery
from pytest_pilotscope.algorithms.lero.collection import CollectionRules, collect, collect_one, store_of
from pytest_pilotscope.algorithms.plans import collecting
from pytest_pilotscope.algorithms.plans.timing import TimingRules
from pytest_pilotscope.errors import AlgorithmError
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database
from pytest_pilotscope.provision.pool import Worker
from pytest_pilotscope.queries.queries import Query
from tests.algorithms import forum as forum_module
from tests.algorithms import shop as shop_module
from tests.algorithms.forum import queries
from tests.postgres.children import wait_for_end

pytest.importorskip("distributed")

RULES = CollectionRules(factors=(0.1, 10.0), max_candidates=6, timing=TimingRules(rounds=1))
NOTE = "PILOTSCOPE_TEST_NOTE"
"""Names a file; the worker that makes it is killed in the middle of a unit."""

collect_there = collecting.collect_there


def killed_once(place: Worker, task: tuple[Query, collecting.Collect[CollectedQuery]]) -> CollectedQuery | str:
    """Collect; the worker that is the first to get the third query dies when it is done."""
    found = collect_there(place, task)
    if task[0].id == "t2":
        _die_once()
    return found


def _die_once() -> None:
    note = Path(os.environ[NOTE])
    if not note.exists():
        note.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_lero_collects_on_workers(
    forum: Database, forum_session: Session, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same plans as here, also when a worker is killed in the middle; all on disk, and collected once."""
    monkeypatch.setenv(NOTE, str(tmp_path / "note"))
    monkeypatch.setattr(collecting, "collect_there", killed_once)
    given = forum_module.training(forum, forum_session, tmp_path, dask="local:2")
    some = [*queries("t", 24)[:6], Query(id="bad", sql="SELECT nothing FROM nowhere")]
    with closing(given):
        found = collect(given, some, store_of(given, RULES), RULES)
    assert (tmp_path / "note").exists()
    assert [each.query_id for each in found] == [f"t{number}" for number in range(6)]
    (path,) = cache.rglob("lero/*/*.jsonl")
    assert len(path.read_bytes().splitlines()) == 6
    here = forum_module.training(forum, forum_session, tmp_path)
    with closing(collecting.PlanSessions(forum)) as sessions:
        again = [collect_one(query, sessions, rules=RULES) for query in some[:6]]
    assert [(each.plans, each.slots, dict(each.subplans)) for each in found] == [
        (each.plans, each.slots, dict(each.subplans)) for each in again
    ]
    assert store_of(here, RULES).known.keys() == {each.sql_key for each in found}


def tried(place: Worker, sql: str, default_s: float, **values: str) -> Outcome:
    """Settings, for one query, tried as if on a worker; by default it takes `default_s` where the search is."""
    with place.database.session() as session:
        reach = reach_of(place.database)
        space = space_of(session, reach, ("work_mem", "bgwriter_lru_maxpages"))
    selected = Selected(queries=(Query(id="q", sql=sql),), default_s=(default_s,), too_long=0)
    objective = Objective(target="total_time", count=1)
    task = Task(values=space.complete(values), selected=selected, objective=objective, limit=4 * default_s)
    return attempt_on_worker(place, (task, space, reach))


@pytest.mark.slow
def test_a_worker_that_is_much_slower(shop: Database) -> None:
    """If the default itself is cut off, its time until then gives the scale, and the settings get as much more time."""
    with ExitStack() as stack:
        outcome = tried(Worker(database=shop, stack=stack), "SELECT pg_sleep(1.2)", 0.01)
    assert outcome.status == "ok"
    assert outcome.times_s == pytest.approx((0.012,), rel=0.1)


@pytest.mark.slow
def test_a_worker_on_which_the_default_fails(shop: Database) -> None:
    """There is no scale for its times, so it tries nothing."""
    expected = (
        "the training queries fail with the default settings on this worker, so it cannot try others: "
        "statement failed: division by zero [22012]: SELECT 1/0"
    )
    with ExitStack() as stack, pytest.raises(AlgorithmError, match=f"^{re.escape(expected)}$"):
        tried(Worker(database=shop, stack=stack), "SELECT 1/0", 0.1)


@pytest.mark.slow
def test_a_worker_whose_server_is_gone(shop: Database) -> None:
    """It is started again; the settings that are tried next are not taken for bad ones."""
    with ExitStack() as stack:
        place = Worker(database=shop, stack=stack)
        for _ in range(2):
            assert tried(place, "SELECT pg_sleep(0.01)", 0.01, bgwriter_lru_maxpages="7").status == "ok"
            trial_server = place.kept["knob trial server"][0]
            os.kill(trial_server._database.server.pid, signal.SIGKILL)
            assert wait_for_end(trial_server.session.backend_pid)  # it ends a moment later; a trial on it meanwhile would have failed


@pytest.mark.slow
def test_knobs_are_tried_on_workers(shop: Database, tmp_path: Path) -> None:
    """The default first, then as many at a time as there are workers; the log has them all, in times of the server that asks."""
    options = shop_module.knob_options(trials=5, trial_s=1.0, rounds=2, names=("work_mem", "random_page_cost", "shared_buffers"))
    algorithm = KnobTuning(options)
    with shop_module.training("knob", shop, tmp_path, dask="local:2") as given:
        report = algorithm.train(given)
    per_trial = {"trial_cost": 5, "incumbent_cost": 5, "knob_optimization_time_seconds": 5}
    assert {name: len(values) for name, values in report.metrics.items()} == per_trial
    assert algorithm.values is not None
    assert report.scalars["num_knob_queries"] >= 1
    assert all(cost > 0 for cost in report.metrics["trial_cost"])
