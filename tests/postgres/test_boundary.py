"""The account of the server gets nothing but its data: no rights through links, no secrets, nothing that is left behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
from pathlib import Path

import pytest

from pytest_pilotscope.errors import MissingExtension, ServerError
from pytest_pilotscope.places.account import server_account
from pytest_pilotscope.places.folders import server_folder
from pytest_pilotscope.postgres.binaries import find_binaries
from pytest_pilotscope.postgres.clustercache import ClusterCache
from pytest_pilotscope.postgres.clusters import check_version
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.extension.build import build_library
from tests.places.test_environment import SECRETS
from tests.postgres.children import start_child, wait_for_end

HANGING_INITDB = """#!/bin/sh
data=$(echo "$@" | sed 's/.*-D \\([^ ]*\\).*/\\1/')
mkdir -p "$data/base" && echo half > "$data/base/half"
env > {folder}/environment
echo $$ > {folder}/begun
exec sleep 1000
"""

START = """
from pathlib import Path
from pytest_pilotscope.postgres.binaries import find_binaries
from pytest_pilotscope.postgres.embedded import EmbeddedServer
EmbeddedServer(find_binaries(Path({bindir!r})))
"""


def treasure(folder: Path) -> Path:
    """Make a file that nobody may change."""
    path = folder / "treasure"
    path.write_text("gold")
    path.chmod(0o600)
    return path


def state(path: Path) -> tuple[str, int, int, int]:
    """Return the content, owner and mode of a file."""
    status = path.stat()
    return path.read_text(), status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "postmaster.pid", "server.log"])
def test_links_in_the_data_directory(name: str, newest_server: EmbeddedServer, cache: Path, tmp_path: Path) -> None:
    """The server's account may put a link anywhere in its folder: what it points to is neither written nor given away."""
    path = treasure(tmp_path)
    before = state(path)
    with EmbeddedServer(newest_server.binaries) as server:
        link = server.data_folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        try:
            server.restart({"work_mem": "5MB"})
        except ServerError:
            assert name != "postgresql.conf"  # PostgreSQL itself cannot read the file of root, and says so
    assert state(path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as somebody else")
def test_only_data_belongs_to_the_server(newest_server: EmbeddedServer) -> None:
    """Whoever has taken over the server can put nothing where root writes: log, configuration, libraries, locks, manifests."""
    uid = server_account().uid
    template = ClusterCache(server_account()).empty(newest_server.binaries)
    assert [newest_server.data_folder.stat().st_uid, template.stat().st_uid] == [uid, uid]
    folders = [
        newest_server.data_folder.parent,
        template.parent,
        *(server_folder(server_account(), kind) for kind in ("servers", "templates")),
    ]
    for folder in (*folders, folders[-1].parent):
        assert (folder.stat().st_uid, folder.stat().st_mode & 0o027) == (0, 0)


@pytest.mark.parametrize("content", ["link", "pipe", "folder"])
def test_a_version_that_is_no_file(content: str, newest_server: EmbeddedServer, tmp_path: Path) -> None:
    """A link to a secret is not read, and a pipe is not waited for."""
    marker = tmp_path / "PG_VERSION"
    if content == "link":
        marker.symlink_to(treasure(tmp_path))
    elif content == "pipe":
        os.mkfifo(marker)
    else:
        marker.mkdir()
    with pytest.raises(ServerError, match=rf"^{re.escape(str(tmp_path))} is not a PostgreSQL data directory: it has no PG_VERSION$"):
        check_version(tmp_path, newest_server.binaries)


def test_a_library_that_others_may_change(newest_server: EmbeddedServer, tmp_path: Path) -> None:
    """A library runs with the rights of the server, so one that others may have written is refused."""
    library = build_library(newest_server.binaries.bindir, tmp_path)
    library.chmod(0o757)
    wanted = (
        f"the library {library} is not used: others may change it (mode 0757); run: chmod go-w {library}, "
        "or set PILOTSCOPE_CACHE to a folder of your own"
    )
    with pytest.raises(ServerError, match=f"^{re.escape(wanted)}$"):
        build_library(newest_server.binaries.bindir, tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")
def test_a_library_of_somebody_else(newest_server: EmbeddedServer, tmp_path: Path) -> None:
    """So is one that somebody else made."""
    library = build_library(newest_server.binaries.bindir, tmp_path)
    os.chown(library, 65534, -1)
    with pytest.raises(ServerError, match=rf"^the library {re.escape(str(library))} is not used: it belongs to nobody \(uid 65534\)"):
        build_library(newest_server.binaries.bindir, tmp_path)


def test_secrets_do_not_reach_the_server(newest_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither PostgreSQL nor its watchdog has a variable that is not on the list."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("needs /proc (Linux)")
    for name in SECRETS:
        monkeypatch.setenv(name, "geheim")
    with EmbeddedServer(newest_server.binaries) as server:
        for pid in (server.pid, server._watchdog.pid):
            assert b"geheim" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_secrets_do_not_reach_the_compiler(newest_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler gets its own variables and nothing else."""
    compiler = tmp_path / "cc"
    compiler.write_text(f"#!/bin/sh\nenv > {tmp_path}/environment\nexit 1\n")
    compiler.chmod(0o755)
    for name in (*SECRETS, "CPATH"):
        monkeypatch.setenv(name, "geheim")
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(MissingExtension, match="could not be compiled"):
        build_library(newest_server.binaries.bindir, tmp_path / "cache")
    given = (tmp_path / "environment").read_text().splitlines()
    assert [line for line in given if "geheim" in line] == ["CPATH=geheim"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_during_initdb(number: signal.Signals, newest_server: EmbeddedServer, cache: Path) -> None:
    """Nothing is left: no initdb, no half data directory, no folder of a server or of a socket; and initdb got no secret."""
    if not Path("/proc/self").exists():
        pytest.skip("needs /proc (Linux)")
    bindir = cache / "hanging" / "bin"
    shutil.copytree(find_binaries().bindir.parent, bindir.parent, symlinks=True)
    folder = cache / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    (bindir / "initdb").write_text(HANGING_INITDB.format(folder=folder))
    os.mkfifo(folder / "begun")
    (folder / "begun").chmod(0o666)
    child = start_child(
        START.format(bindir=str(bindir)),
        environment={"PILOTSCOPE_CACHE": str(cache), "TMPDIR": str(folder), **dict.fromkeys(SECRETS, "geheim")},
    )
    initdb = (folder / "begun").read_text()
    watchdogs = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    assert len(list(cache.glob("uid-*/templates/*.partial/data/base/half"))) == 1
    child.send_signal(number)
    child.communicate()
    assert child.returncode == -number
    assert all(wait_for_end(int(pid)) for pid in (initdb, *watchdogs))
    left = [*folder.glob("pilotscope-*"), *cache.glob("uid-*/servers/*"), *cache.glob("uid-*/templates/*")]
    assert [path.suffix for path in left] == [".lock"]
    assert "geheim" not in (folder / "environment").read_text()
