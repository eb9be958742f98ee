"""Labels on disk: whose they are, what survives, and what is refused."""

from __future__ import annotations

import multiprocessing
import re
import sqlite3
from contextlib import closing
from multiprocessing.synchronize import Barrier
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


def spoil(path: Path, damage: str) -> None:
    """Damage a file in one of the ways in which files are damaged."""
    content = path.read_bytes()
    match damage:
        case "empty":
            path.write_bytes(b"")
        case "cut off":
            path.write_bytes(content[: len(content) // 2])
        case "zeros":
            path.write_bytes(bytes(len(content)))
        case "flipped":
            path.write_bytes(bytes(byte ^ 0xFF if number % 97 == 3 else byte for number, byte in enumerate(content)))
        case "another file":
            path.write_bytes(b"not a database, but long enough to be looked at " * 20)
        case "folder":
            path.unlink()
            path.mkdir()
            (path / "inside").write_text("")


DAMAGES = ("empty", "cut off", "zeros", "flipped", "another file", "folder")


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str, suffix: str) -> None:
    """It gives the labels that were stored or none, and never an error; new labels are kept."""
    labels = {number.to_bytes(16, "big"): Label(rows=number, source="memory") for number in range(2345)}
    with LabelCache(tmp_path, "f1") as cache:
        cache.store(labels)
    path = tmp_path / f"{LABELS_FILE}{suffix}"
    path.touch()
    spoil(path, damage)
    with LabelCache(tmp_path, "f1") as cache:
        assert cache.look_up(labels).items() <= labels.items()
        cache.store(labels)
        assert cache.look_up(labels) == labels


def test_a_damage_that_is_found_late(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If only a later page of the file is damaged, looking up says so once, and starts with no labels."""
    labels = {number.to_bytes(16, "big"): Label(rows=number, source="memory") for number in range(2345)}
    with LabelCache(tmp_path, "f1") as cache:
        cache.store(labels)
    path = tmp_path / LABELS_FILE
    content = path.read_bytes()
    path.write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))
    with LabelCache(tmp_path, "f1") as cache:
        cache.look_up(labels)
        cache.store(labels)
        assert cache.look_up(labels) == labels
    assert caplog.messages == [f"the label cache {path} cannot be read (database disk image is malformed): its labels are counted again"]


@pytest.mark.parametrize(
    "change", ["rows = '7'", "rows = NULL", "source = 'x'", "timeout_ms = 9", "checksum = x'00'", "rows = CAST(x'ff' AS TEXT)"]
)
def test_an_altered_label_is_forgotten(tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture) -> None:
    """A label does not fit its checksum after any change; the others stay, and a new one replaces it."""
    labels = {NAME: Label(rows=3, source="memory"), OTHER: Label(rows=4, source="memory")}
    with LabelCache(tmp_path, "f1") as cache:
        cache.store(labels)
    with closing(sqlite3.connect(tmp_path / LABELS_FILE)) as connection, connection:
        connection.execute(f"UPDATE labels SET {change} WHERE subplan = ?", (NAME,))
    with LabelCache(tmp_path, "f1") as cache:
        assert cache.look_up(labels) == {OTHER: labels[OTHER]}
        cache.store(labels)
        assert cache.look_up(labels) == labels
    assert caplog.messages == [f"1 damaged label in {tmp_path / LABELS_FILE}: counted again"]


def test_a_label_of_another_set_is_forgotten(tmp_path: Path) -> None:
    """A label under the name of another set does not fit its checksum."""
    with LabelCache(tmp_path, "f1") as cache:
        cache.store({NAME: Label(rows=3, source="memory")})
    with closing(sqlite3.connect(tmp_path / LABELS_FILE)) as connection, connection:
        connection.execute("UPDATE labels SET subplan = ?", (OTHER,))
    with LabelCache(tmp_path, "f1") as cache:
        assert cache.look_up([NAME, OTHER]) == {}


@pytest.mark.parametrize(
    "damage", ["DELETE FROM about", "UPDATE about SET value = 'x'", "DROP TABLE labels", "ALTER TABLE labels RENAME COLUMN rows TO r"]
)
def test_a_file_with_damaged_tables_is_made_again(tmp_path: Path, damage: str) -> None:
    """Tables that are missing, or that something else has written, are no error."""
    with LabelCache(tmp_path, "f1") as cache:
        cache.store({NAME: Label(rows=3, source="memory")})
    with closing(sqlite3.connect(tmp_path / LABELS_FILE)) as connection, connection:
        connection.execute(damage)
    with LabelCache(tmp_path, "f1") as cache:
        assert cache.look_up([NAME]) == {}
        cache.store({NAME: Label(rows=3, source="memory")})
        assert cache.look_up([NAME]) == {NAME: Label(rows=3, source="memory")}


def test_a_file_of_another_version_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The line names both formats."""
    with monkeypatch.context() as other_version:
        other_version.setattr("pytest_pilotscope.labels.labelcache.FORMAT", "2")
        LabelCache(tmp_path, "f1").__exit__(None, None, None)
    LabelCache(tmp_path, "f1").__exit__(None, None, None)
    assert caplog.messages == [
        f"the label cache {tmp_path / LABELS_FILE} cannot be read (its format is 2, this version reads 3): its labels are counted again"
    ]


def test_a_lock_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If another process holds the file for longer than the limit, the error says so, and the file stays."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, timeout, **options: connect(path, timeout=0, **options))
    with LabelCache(tmp_path, "f1") as cache:
        cache.store({NAME: Label(rows=3, source="memory")})
        with closing(connect(cache.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            message = (
                f"the label cache {cache.path} cannot be used (database is locked): if another process holds it, end that one; "
                "otherwise look at its disk"
            )
            with pytest.raises(LabelError, match=f"^{re.escape(message)}$"):
                cache.store({OTHER: Label(rows=3, source="memory")})
        assert cache.look_up([NAME]) == {NAME: Label(rows=3, source="memory")}


NEW_FILES, PROCESSES = 100, 4
"""Without a lock around the making of a file, one of twelve such files had a process that failed."""


def open_new_files(folder: Path, number: int, together: Barrier) -> None:
    """Make and write many caches, each at the same moment as the other processes."""
    for file in range(NEW_FILES):
        together.wait(60)
        with LabelCache(folder / str(file), "f1") as cache:
            cache.store({number.to_bytes(16, "big"): Label(rows=number, source="memory")})


@pytest.mark.slow
def test_processes_open_a_new_file_at_once(tmp_path: Path) -> None:
    """None fails, and no label is lost."""
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(PROCESSES)
    children = [context.Process(target=open_new_files, args=(tmp_path, number, together)) for number in range(PROCESSES)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0] * PROCESSES
    for file in range(NEW_FILES):
        with LabelCache(tmp_path / str(file), "f1") as cache:
            assert len(cache.look_up([number.to_bytes(16, "big") for number in range(PROCESSES)])) == PROCESSES


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
