"""Labels on disk: whose they are, what survives, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_pilotscope.errors import LabelError
from pytest_pilotscope.labels.labelcache import LABELS_FILE, Label, LabelCache

NAME, OTHER = b"n" * 16, b"o" * 16


def test_labels_are_found_again(tmp_path: Path) -> None:
    """Counts of any size, unfinished ones and their sources come back; names that were never stored do not."""
    labels = {NAME: Label(rows=2**80, source="memory"), OTHER: Label(rows=None, source="postgres", timeout_ms=70)}
    with LabelCache(tmp_path, "f1") as cache:
        cache.store(labels)
    with LabelCache(tmp_path, "f1") as cache:
        assert cache.look_up([NAME, OTHER, b"x" * 16]) == labels


def test_a_finished_label_is_never_lost(tmp_path: Path) -> None:
    """It replaces an unfinished one, and an unfinished one does not replace it."""
    finished, unfinished = Label(rows=3, source="postgres", timeout_ms=9), Label(rows=None, source="postgres", timeout_ms=1)
    with LabelCache(tmp_path, "f1") as cache:
        for label in (unfinished, finished, unfinished):
            cache.store({NAME: label})
        assert cache.look_up([NAME]) == {NAME: finished}


def test_more_labels_than_one_statement_takes(tmp_path: Path) -> None:
    """Looking up thousands of names gives each its label."""
    labels = {number.to_bytes(16, "big"): Label(rows=number, source="memory") for number in range(2345)}
    with LabelCache(tmp_path, "f1") as cache:
        cache.store(labels)
        assert cache.look_up(labels) == labels


def test_labels_of_other_data_are_refused(tmp_path: Path) -> None:
    """Both fingerprints and the file are in the message."""
    LabelCache(tmp_path, "f1").__exit__(None, None, None)
    expected = (
        f"the label cache {tmp_path / LABELS_FILE} belongs to other data: it was made for fingerprint f1, and the data at hand has f2; "
        "use another folder or remove this one"
    )
    with pytest.raises(LabelError, match=f"^{re.escape(expected)}$"):
        LabelCache(tmp_path, "f2")


def test_a_file_that_is_not_a_cache_is_refused(tmp_path: Path) -> None:
    """A damaged file is named with what to do about it."""
    (tmp_path / LABELS_FILE).write_bytes(b"not a database, but long enough to be looked at " * 20)
    expected = (
        f"the label cache {tmp_path / LABELS_FILE} cannot be read (file is not a database): remove it, and the labels are computed again"
    )
    with pytest.raises(LabelError, match=f"^{re.escape(expected)}$"):
        LabelCache(tmp_path, "f1")


def test_a_file_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of a format that this version does not read is rejected."""
    with monkeypatch.context() as other_version:
        other_version.setattr("pytest_pilotscope.labels.labelcache._FORMAT", "99")
        LabelCache(tmp_path, "f1").__exit__(None, None, None)
    expected = f"the label cache {tmp_path / LABELS_FILE} has format 99, and this version reads format 2: remove it"
    with pytest.raises(LabelError, match=f"^{re.escape(expected)}$"):
        LabelCache(tmp_path, "f1")


@pytest.mark.parametrize(
    ("label", "timeout_ms", "answers"),
    [
        (Label(rows=0, source="postgres", timeout_ms=10), 1000, True),
        (Label(rows=None, source="postgres", timeout_ms=10), 10, True),
        (Label(rows=None, source="postgres", timeout_ms=10), 5, True),
        (Label(rows=None, source="postgres", timeout_ms=10), 11, False),
        (Label(rows=None, source="postgres", timeout_ms=10), 0, False),
    ],
)
def test_an_unfinished_label_answers_up_to_its_limit(label: Label, timeout_ms: int, answers: bool) -> None:
    """A count that did not finish in 10 ms is repeated with 11 ms, or without a limit, only."""
    assert label.answers(timeout_ms) is answers
    assert label.finished is (label.rows is not None)
