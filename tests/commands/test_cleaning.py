"""`pilotscope clean` removes what is ours, not in use and in the cache folder, and nothing else."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_pilotscope.commands import cleaning
from tests.commands.conftest import Command

MTIME_S = 1_800_000_000


@pytest.fixture
def cache(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a cache folder with one entry of each kind, and with foreign files."""
    with tempfile.TemporaryDirectory() as open_to_all:  # as root the folder has to be one that the servers' account can enter
        Path(open_to_all).chmod(0o755)
        folder = Path(open_to_all) / "cache"
        monkeypatch.setenv("PILOTSCOPE_CACHE", str(folder))
        _fill(folder)
        yield folder


def _fill(folder: Path) -> None:
    for place in (
        "uid-1/templates/toy/data/base",
        "uid-1/servers/server-a/data",
        "libraries/pilotscope-pg18.so",
        "photos/me.jpg",
        "notes.txt",
    ):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1500)
    (folder / "uid-1/templates/toy.lock").touch()
    (folder / "uid-1/servers/server-a/lock").touch()
    for path in (folder / "uid-1/templates/toy", folder / "uid-1/servers/server-a", folder / "libraries/pilotscope-pg18.so"):
        os.utime(path, (MTIME_S, MTIME_S))


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_without_yes_nothing_is_removed(pilotscope: Command, cache: Path) -> None:
    """The table has every entry with its size, and the command that removes them."""
    result = pilotscope("clean")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        f"cache folder {cache}\n"
        "what                 size  changed (UTC)     state  where\n"
        "prepared database  1.5 kB  2027-01-15 08:00  there  uid-1/templates/toy\n"
        "server             1.5 kB  2027-01-15 08:00  there  uid-1/servers/server-a\n"
        "steering library   1.5 kB  2027-01-15 08:00  there  libraries/pilotscope-pg18.so\n"
        "\n"
        "nothing was removed; `pilotscope clean --yes` removes 3 entries, 4.5 kB; a run makes again what it needs\n"
    )
    assert (cache / "uid-1/templates/toy/data/base").exists()


def test_yes_removes_ours_and_only_ours(pilotscope: Command, cache: Path, workplace: Path) -> None:
    """Foreign files, and the targets of symbolic links, stay: the user may have named a wrong folder."""
    treasure = workplace / "treasure"
    treasure.mkdir()
    (treasure / "gold").write_text("x")
    (cache / "uid-1/templates/link").symlink_to(treasure)
    (cache / "uid-2").symlink_to(treasure)
    (treasure / "templates").mkdir()
    (treasure / "templates" / "data").write_text("x")
    result = pilotscope("clean", "--yes")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "removed 3 entries, 4.5 kB")
    assert {str(path.relative_to(cache)) for path in cache.rglob("*") if not path.is_dir()} == {
        "notes.txt",
        "photos/me.jpg",
        "uid-1/templates/toy.lock",
    }
    assert {path.name for path in treasure.rglob("*")} == {"gold", "templates", "data"}
    assert (cache / "uid-1/templates/link").is_symlink()
    assert pilotscope("clean").stdout == f"cache folder {cache}\nit is empty\n"


def test_while_a_server_runs_everything_is_in_use(pilotscope: Command, cache: Path) -> None:
    """While a server runs, its programs and library stay, and so does the data of the next server."""
    with _held(cache / "uid-1/servers/server-a/lock"):
        result = pilotscope("clean", "--json")
        assert [entry["in_use"] for entry in json.loads(result.stdout)["entries"]] == [True, True, True]
        assert pilotscope("clean", "--yes").stdout.endswith("\nremoved 0 entries, 0 bytes\n")
        assert pilotscope("clean").stdout.endswith("\nnothing was removed; every entry is in use\n")
    assert (cache / "uid-1/servers/server-a/data").exists()


def test_a_database_that_is_being_prepared_is_in_use(pilotscope: Command, cache: Path) -> None:
    """An entry whose lock another process holds stays; the others are removed."""
    (cache / "uid-1/templates/toy").rename(cache / "uid-1/templates/toy.partial")
    with _held(cache / "uid-1/templates/toy.lock"):
        cleaned = json.loads(pilotscope("clean", "--yes", "--json").stdout)
    assert cleaned["removed"] == [str(cache / "uid-1/servers/server-a"), str(cache / "libraries/pilotscope-pg18.so")]
    assert (cache / "uid-1/templates/toy.partial").exists()


def test_what_another_process_removes_meanwhile_is_left_out(pilotscope: Command, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ends while its folder is looked at is neither an entry nor an error, for `doctor` either."""

    def size_of_the_vanished(path: Path) -> int:
        if path.name == "server-a":
            shutil.rmtree(path)
        return path.lstat().st_size

    monkeypatch.setattr(cleaning, "size_bytes", size_of_the_vanished)
    result = pilotscope("clean")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "server-a" not in result.stdout
    assert "removes 2 entries" in result.stdout


def test_what_cannot_be_removed_is_named(pilotscope: Command, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other entries are removed; the exit code is 1 because one stayed."""

    def refuse(path: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    result = pilotscope("clean", "--yes")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[0] == f"{cache}/uid-1/templates/toy could not be removed: Permission denied"


@pytest.mark.parametrize(
    ("path", "removed"),
    [
        ("labels/abc/labels.sqlite", True),
        ("lero/abc/0.jsonl", True),
        ("hintset/abc/0.jsonl", True),
        ("workloads/k.json", True),
        ("downloads/stats.zip", True),
        ("calibrations/machine-toy-0.json", True),
        ("binaries/abc/bin/postgres", True),
        ("extension/pilotscope-pg18-0-0.so", True),
        ("smac-x/file", False),
        ("tpch-x/file", False),
        ("settings/1.json", False),
    ],
)
def test_every_folder_of_the_cache_is_known(pilotscope: Command, cache: Path, path: str, removed: bool) -> None:
    """An entry of every kind is listed and removed; but the old settings of a server, which a run puts back, and what is being made."""
    (cache / path).parent.mkdir(parents=True)
    (cache / path).write_bytes(b"x" * 1500)
    (cache / path).with_name("binaries.sha256").touch()
    assert path.partition("/")[0] in pilotscope("clean").stdout
    pilotscope("clean", "--yes")
    assert (cache / path).exists() is not removed
