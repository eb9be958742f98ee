"""The cache of generated workloads."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pilotscope.datasets.workload_cache import cached_workload, source_hash
from pytest_pilotscope.queries.queries import Query, Workload

WORKLOAD = Workload(dataset="d", train=(Query(id="t1", sql="SELECT 'é'"),), validation=(), test=(Query(id="q1", sql="SELECT 2"),))


def _not_made() -> Workload:
    raise AssertionError("made although it is there")


def test_a_workload_is_made_once(cache: Path) -> None:
    """The second time it comes from the file, the same to the letter."""
    assert cached_workload("k", lambda: WORKLOAD) is WORKLOAD
    assert cached_workload("k", _not_made) == WORKLOAD
    assert list((cache / "workloads").iterdir()) == [cache / "workloads" / "k.json"]


@pytest.mark.parametrize("content", ["", "{}", '{"dataset": "d", "train": [1]}', '{"dataset": "d"'])
def test_a_broken_file_is_made_again(cache: Path, content: str) -> None:
    """Whatever is in the file, the workload is right afterwards."""
    (cache / "workloads").mkdir()
    (cache / "workloads" / "k.json").write_text(content)
    assert cached_workload("k", lambda: WORKLOAD) is WORKLOAD
    assert cached_workload("k", _not_made) == WORKLOAD


def test_the_source_hash_changes_with_every_edit(tmp_path: Path) -> None:
    """Code and calibration count, compiled files do not."""
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "b.json").write_text("1")
    before = source_hash(tmp_path)
    (tmp_path / "a.pyc").write_text("1")
    assert source_hash(tmp_path) == before
    (tmp_path / "b.json").write_text("2")
    assert source_hash(tmp_path) != before
