"""Lero's collection and knob tuning on real Dask workers, each with a server of its own."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path

import pytest

from algorithms.knob import elsewhere
from algorithms.knob.options import KnobOptions
from algorithms.knob.tuning import KnobTuning
from algorithms.lero import collection
from algorithms.lero.collection import CollectionRules, collect, store_of
from algorithms.lero.race import Rules
from algorithms.lero.records import CollectedQuery
from pytest_pilotscope.cluster import Place
from pytest_pilotscope.core.queries import Query
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision import Database
from tests.algorithms import forum as forum_module
from tests.algorithms import shop as shop_module
from tests.algorithms.forum import queries

pytest.importorskip("distributed")

RULES = CollectionRules(factors=(0.1, 10.0), max_candidates=6, timing=Rules(rounds=1))
NOTE = "PILOTSCOPE_TEST_NOTE"
"""Names a file; the worker that makes it is killed in the middle of a unit."""

collect_there = collection._collect_there
attempt_there = elsewhere.attempt_there


def killed_once(place: Place, task: tuple[Query, CollectionRules]) -> CollectedQuery | str:
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


def test_lero_collects_on_workers(
    forum: Database, forum_session: Session, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same plans as here, also when a worker is killed in the middle; all on disk, and collected once."""
    monkeypatch.setenv(NOTE, str(tmp_path / "note"))
    monkeypatch.setattr(collection, "_collect_there", killed_once)
    given = forum_module.training(forum, forum_session, tmp_path, dask="local:2")
    some = [*queries("t", 24)[:6], Query(id="bad", sql="SELECT nothing FROM nowhere")]
    with closing(given):
        found = collect(given, some, store_of(given, RULES), RULES)
    assert (tmp_path / "note").exists()
    assert [each.query_id for each in found] == [f"t{number}" for number in range(6)]
    (path,) = cache.rglob("lero/*/*.jsonl")
    assert len(path.read_bytes().splitlines()) == 6
    here = forum_module.training(forum, forum_session, tmp_path)
    with closing(collection.Lanes(forum)) as lanes:
        again = [collection.collect_one(query, lanes, RULES) for query in some[:6]]
    assert [(each.plans, each.slots, dict(each.subplans)) for each in found] == [
        (each.plans, each.slots, dict(each.subplans)) for each in again
    ]
    assert store_of(here, RULES).known.keys() == {each.sql_key for each in found}


def test_knobs_are_tried_on_workers(shop: Database, tmp_path: Path) -> None:
    """The default first, then as many at a time as there are workers; the log has them all, in times of the server that asks."""
    options = KnobOptions(trials=5, trial_s=1.0, rounds=2, names=("work_mem", "random_page_cost", "shared_buffers"))
    algorithm = KnobTuning(options)
    with shop_module.training("knob", shop, tmp_path, dask="local:2") as given:
        report = algorithm.train(given)
    assert {name: len(values) for name, values in report.metrics.items()} == {"trial_cost": 5, "incumbent_cost": 5}
    assert algorithm.values is not None
    assert report.scalars["num_knob_queries"] >= 1
    assert all(cost > 0 for cost in report.metrics["trial_cost"])
