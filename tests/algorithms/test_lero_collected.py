"""Collected queries on disk."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from pytest_pilotscope.algorithms.lero.collected import CollectionStore, from_json, to_json
from pytest_pilotscope.algorithms.plans.shape import trimmed

from .lero_example import collected_query, node, outcome, scan


@pytest.fixture
def store(tmp_path: Path) -> CollectionStore:
    """An empty store with two queries added."""
    made = CollectionStore(tmp_path / "new" / "store.jsonl", to_json, from_json)
    with made.locked():
        made.add(collected_query([outcome(10, 11, 12), outcome(more_than_ms=33.0)], name="one"))
        made.add(collected_query([outcome(5)], name="two"))
    return made


def test_what_was_written_is_read(store: CollectionStore) -> None:
    """Plans, slots, times, limits, estimates and planner calls come back as they were."""
    again = CollectionStore(store.path, to_json, from_json)
    again.read()
    assert again.known == store.known
    assert [found.query_id for found in again.known.values()] == ["one", "two"]


def test_a_line_that_was_cut_off_is_collected_again(store: CollectionStore, caplog: pytest.LogCaptureFixture) -> None:
    """Killed while writing: the rest of the file counts, and the next query goes on a line of its own."""
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[:-40])
    again = CollectionStore(store.path, to_json, from_json)
    with caplog.at_level(logging.WARNING), again.locked():
        assert [found.query_id for found in again.known.values()] == ["one"]
        assert "store.jsonl:2 is not a collected query" in caplog.text
        again.add(collected_query([outcome(7), outcome(8)], name="three"))
    once_more = CollectionStore(store.path, to_json, from_json)
    once_more.read()
    assert [found.query_id for found in once_more.known.values()] == ["one", "three"]


@pytest.mark.parametrize("line", ["", "null", "[]", "{}", '{"format": 99}', "\x00"])
def test_lines_that_are_something_else_are_skipped(store: CollectionStore, line: str) -> None:
    """A broken line costs its query, not the collection."""
    store.path.write_text(f"{line}\n" + store.path.read_text(encoding="utf-8"), encoding="utf-8")
    store.read()
    assert len(store.known) == 2


def test_records_are_plain_json(store: CollectionStore) -> None:
    """One object per line, that any tool reads."""
    first = json.loads(store.path.read_text(encoding="utf-8").splitlines()[0])
    assert first["query_id"] == "one"
    assert first["plans"][0]["slot"] is None
    assert first["plans"][1]["censored_ms"] == 33.0
    assert first["attempts"] == [[10.0, 2, 1, 1.0]]


def test_conditions_are_not_kept() -> None:
    """The constants of a query are neither learned from nor shown, so they do not stay on disk."""
    kept = trimmed(node("Hash Join", scan("u", filter="(age > 30)"), scan("p"), hash_cond="(u.id = p.userid)"))
    assert "age" not in json.dumps(kept)
    assert "userid" not in json.dumps(kept)
    assert kept["Plans"][0]["Relation Name"] == "users"
