"""Prepared data directories: made once, whole or not at all."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import threading
from pathlib import Path

import pytest

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.account import server_account
from pytest_pilotscope.postgres.binaries import Binaries, find_binaries
from pytest_pilotscope.postgres.clustercache import ClusterCache, cluster_key
from pytest_pilotscope.postgres.clusters import copy_cluster
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from tests.postgres.children import start_child

KILLED = """
import os, signal
from pathlib import Path
from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.account import server_account
from pytest_pilotscope.postgres.binaries import find_binaries
from pytest_pilotscope.postgres.clustercache import ClusterCache
with ClusterCache(server_account()).missing("key", find_binaries()) as data:
    data.mkdir()
    (data / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Builder:
    """Makes a real, empty cluster by copying one, and counts how often."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.calls = 0

    def ensure(self, clusters: ClusterCache, binaries: Binaries) -> Path:
        """Make the data directory of `key` if it is not there; return it."""
        with clusters.missing("key", binaries) as data_folder:
            if data_folder is not None:
                self.calls += 1
                copy_cluster(self.source, data_folder, server_account())
        return clusters.data_folder("key")


@pytest.fixture
def builder(newest_server: EmbeddedServer) -> Builder:
    """Return a build from the shared empty cluster; asked for before `cache`, which hides it."""
    return Builder(ClusterCache(server_account()).empty(newest_server.binaries))


@pytest.fixture
def binaries(newest_server: EmbeddedServer) -> Binaries:
    """Return the default PostgreSQL."""
    return newest_server.binaries


def test_made_once(builder: Builder, binaries: Binaries, cache: Path) -> None:
    """The second time the entry is there; it starts."""
    clusters = ClusterCache(server_account())
    assert builder.ensure(clusters, binaries) == builder.ensure(clusters, binaries)
    assert builder.calls == 1
    assert cache in clusters.folder.parents
    with EmbeddedServer(binaries, template=builder.ensure(clusters, binaries)) as server, server.connect() as session:
        assert session.scalar("SELECT 1") == 1


def test_made_by_programs_out_of_reach(builder: Builder, cache: Path, tmp_path: Path) -> None:
    """As root, programs in a folder that is closed to the server's account are run from their copy in the cache."""
    if os.geteuid() != 0:
        pytest.skip("only root has to hand its server to another account")
    bindir = tmp_path / "private" / "pginstall" / "bin"  # below a folder of mode 0700
    bindir.mkdir(parents=True)
    for name in ("initdb", "postgres", "pg_resetwal"):
        (bindir / name).write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 18.4'\necho $0 >>$2/ran\n")
        (bindir / name).chmod(0o755)
    data = builder.ensure(ClusterCache(server_account()), find_binaries(bindir))
    (program,) = (data / "ran").read_text().splitlines()
    assert cache / "binaries" in Path(program).parents


def test_two_at_once_make_it_once(builder: Builder, binaries: Binaries, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One makes the entry, the other waits for it and says so."""
    assert cache.is_dir()
    clusters = ClusterCache(server_account())
    building, finish = threading.Event(), threading.Event()

    def slow() -> None:
        with clusters.missing("key", binaries) as data_folder:
            assert data_folder is not None
            building.set()
            finish.wait(20)
            builder.calls += 1
            copy_cluster(builder.source, data_folder, server_account())

    class Finisher(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            """Let the builder go on as soon as the other one waits."""
            if record.getMessage() == "waiting for another process that prepares key":
                finish.set()

    handler = Finisher()
    logger = logging.getLogger("pytest_pilotscope.postgres.clustercache")
    logger.addHandler(handler)
    first = threading.Thread(target=slow)
    with caplog.at_level(logging.INFO, logger=logger.name):
        first.start()
        building.wait(20)
        builder.ensure(ClusterCache(server_account()), binaries)
    first.join()
    logger.removeHandler(handler)
    assert finish.is_set()
    assert builder.calls == 1


def test_killed_while_building(builder: Builder, binaries: Binaries, cache: Path) -> None:
    """A build that is killed half-way leaves nothing and does not stand in the way of the next."""
    child = start_child(KILLED, environment={"PILOTSCOPE_CACHE": str(cache)})
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    clusters = ClusterCache(server_account())
    data = builder.ensure(clusters, binaries)  # waits for the watchdog, which holds the lock while it deletes
    assert not (data / "half").exists()
    assert sorted(path.name for path in clusters.folder.iterdir()) == ["key", "key.lock"]


def test_a_failed_build_leaves_nothing(binaries: Binaries, cache: Path) -> None:
    """The block's exception arrives, and no file stays behind."""
    assert cache.is_dir()
    clusters = ClusterCache(server_account())

    def fail() -> None:
        with clusters.missing("key", binaries) as data_folder:
            assert data_folder is not None
            data_folder.mkdir()
            raise ValueError("no data today")

    with pytest.raises(ValueError, match=r"^no data today$"):
        fail()
    assert [path.name for path in clusters.folder.iterdir()] == ["key.lock"]


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        "flipped",
        *(
            pytest.param(damage, marks=pytest.mark.slow)
            for damage in ("deleted", "no manifest", "broken manifest", "a file", "manifest is a folder", "deep manifest")
        ),
    ],
)
def test_a_damaged_entry_is_made_again(
    damage: str, builder: Builder, binaries: Binaries, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Missing or short files are noticed, said, and repaired."""
    assert cache.is_dir()
    clusters = ClusterCache(server_account())
    data = builder.ensure(clusters, binaries)
    match damage:
        case "truncated":
            os.truncate(data / "global" / "pg_control", 10)
        case "deleted":
            (data / "PG_VERSION").unlink()
        case "no manifest":
            (data.parent / "manifest.json").unlink()
        case "flipped":
            with (data / "global" / "pg_control").open("r+b") as file:
                file.write(b"\xff")
        case "a file":
            data.parent.rename(data.parent.with_name("moved"))
            data.parent.touch()
        case "manifest is a folder":
            (data.parent / "manifest.json").unlink()
            (data.parent / "manifest.json").mkdir()
        case "deep manifest":
            (data.parent / "manifest.json").write_text("[" * 100_000)
        case _:
            (data.parent / "manifest.json").write_text("{")
    assert builder.ensure(clusters, binaries) == data
    assert builder.calls == 2
    assert (data / "PG_VERSION").read_text().strip() == str(binaries.major)
    assert caplog.messages == [f"the prepared data directory {data.parent} is damaged; it is made again"]


def test_the_manifest_counts_files_and_bytes(builder: Builder, binaries: Binaries, cache: Path) -> None:
    """It is what a damaged entry is known by, and little WAL is kept."""
    assert cache.is_dir()
    data = builder.ensure(ClusterCache(server_account()), binaries)
    manifest = json.loads((data.parent / "manifest.json").read_text())
    assert manifest["files"] > 500
    assert manifest["bytes"] == sum(path.lstat().st_size for path in data.rglob("*") if not path.is_dir() or path.is_symlink())
    assert len([path for path in (data / "pg_wal").iterdir() if path.is_file()]) == 1


def test_keys(server: EmbeddedServer, newest_server: EmbeddedServer) -> None:
    """Content and PostgreSQL version are part of the key; the same again gives the same key."""
    binaries = server.binaries
    assert cluster_key("x", "content", binaries) == cluster_key("x", "content", binaries)
    assert cluster_key("x", "content", binaries).startswith(f"x-pg{binaries.major}-")
    assert cluster_key("x", "content", binaries) != cluster_key("x", "other", binaries)
    if binaries != newest_server.binaries:
        assert cluster_key("x", "content", binaries) != cluster_key("x", "content", newest_server.binaries)


def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container without coreutils has no `cp`."""
    monkeypatch.setenv("PATH", "/nowhere")
    wanted = "there is no program 'cp', which is needed to make a cluster; install it, or add it to PATH"
    with pytest.raises(ServerError, match=f"^{re.escape(wanted)}$"):
        copy_cluster(tmp_path / "source", tmp_path / "target", server_account())
    with pytest.raises(FileNotFoundError, match="nowhere"):
        copy_cluster(tmp_path / "source", tmp_path / "nowhere" / "target", server_account())
