"""Building the library: once, whole or not at all, and with a remedy in every complaint."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.extension import build
from pytest_pilotscope.postgres.extension.build import build_library, compile_command, find_headers
from pytest_pilotscope.postgres.extension.compiling import find_compiler
from tests.labels.test_labelcache import spoil


def _fake_postgres(folder: Path, version: str, *, headers: str | None = None) -> Path:
    """Make a bin directory whose `postgres` only knows its version, with headers of the given version beside it."""
    bindir = folder / "bin"
    bindir.mkdir()
    program = bindir / "postgres"
    program.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n", encoding="utf-8")
    program.chmod(0o755)
    if headers is not None:
        include = folder / "include" / "server"
        include.mkdir(parents=True)
        (include / "postgres.h").write_text("", encoding="utf-8")
        (include / "pg_config.h").write_text(f'#define PG_MAJORVERSION "{headers}"\n', encoding="utf-8")
    return bindir


@pytest.mark.slow
def test_compiled_once(server: EmbeddedServer, tmp_path: Path) -> None:
    """The second call finds the file of the first, which everybody can read, and nothing else is left in the cache."""
    library = build_library(server.binaries.bindir, tmp_path)
    written = library.stat().st_mtime_ns
    assert build_library(server.binaries.bindir, tmp_path) == library
    assert library.stat().st_mtime_ns == written
    assert stat.S_IMODE(library.stat().st_mode) & 0o444 == 0o444
    assert list(tmp_path.iterdir()) == [library]


def test_no_compiler_warnings(server: EmbeddedServer, tmp_path: Path) -> None:
    """The sources compile without a word under -Wall -Wextra."""
    command = compile_command(find_compiler(), find_headers(server.binaries.bindir).folder, tmp_path / "x.so")
    result = subprocess.run([*command, "-Wall", "-Wextra"], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_every_header_there_is_compiles(tmp_path: Path) -> None:
    """The sources compile against the headers of every PostgreSQL version installed on this machine, with or without its server."""
    folders = sorted(Path("/usr/include/postgresql").glob("*/server")) if Path("/usr/include/postgresql").is_dir() else []
    if not folders:
        pytest.skip("no server headers in /usr/include/postgresql; install postgresql-server-dev-15 or another version")
    for folder in folders:
        subprocess.run(compile_command(find_compiler(), folder, tmp_path / f"{folder.parent.name}.so"), capture_output=True, check=True)


def test_concurrent_builds_agree(newest_server: EmbeddedServer, tmp_path: Path) -> None:
    """Several builders at once all get the same complete file."""
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(build_library(newest_server.binaries.bindir, tmp_path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert list(tmp_path.iterdir()) == [found[0]]
    with newest_server.connect() as session:
        copy = newest_server.data_folder / "built.so"
        shutil.copyfile(found[0], copy)
        copy.chmod(0o755)
        session.execute(f"LOAD '{copy}'")


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["empty", "cut off", "flipped", "another file", "folder"])
def test_a_damaged_library_is_built_again(
    damage: str, newest_server: EmbeddedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A library that is not what was built is replaced, with a line; PostgreSQL never gets it."""
    bindir = newest_server.binaries.bindir
    library = build_library(bindir, tmp_path)
    built = library.read_bytes()
    spoil(library, damage)
    again = build_library(bindir, tmp_path)
    assert (again.read_bytes(), list(tmp_path.iterdir())) == (built, [again])
    assert stat.S_IMODE(again.stat().st_mode) == 0o755
    assert caplog.messages == [f"the library {library} is damaged; it is built again"]


@pytest.mark.slow
def test_changed_source_is_another_library(newest_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's name depends on the sources, so that an old build is never taken for a new one."""
    bindir = newest_server.binaries.bindir
    sources = tmp_path / "sources"
    shutil.copytree(Path(build.__file__).parent, sources)
    before = build_library(bindir, tmp_path / "cache")
    monkeypatch.setattr(build, "_SOURCES", sources)
    with (sources / "report.c").open("a", encoding="utf-8") as file:
        file.write("/* changed */\n")
    after = build_library(bindir, tmp_path / "cache")
    assert after != before
    assert sorted((tmp_path / "cache").iterdir()) == sorted([before, after])


def test_without_cc_the_pip_compiler_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no cc on PATH, the compiler of the ziglang package is used."""
    pytest.importorskip("ziglang", reason="the ziglang package is not installed")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert find_compiler() == (sys.executable, "-m", "ziglang", "cc")


@pytest.mark.slow
def test_the_pip_compiler_makes_a_library_that_loads(
    newest_server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server loads the library made by `python -m ziglang cc`."""
    pytest.importorskip("ziglang", reason="the ziglang package is not installed")
    monkeypatch.setenv("CC", f"{sys.executable} -m ziglang cc")
    copy = newest_server.data_folder / "zig.so"
    shutil.copyfile(build_library(newest_server.binaries.bindir, tmp_path), copy)
    copy.chmod(0o755)
    with newest_server.connect() as session:
        session.execute(f"LOAD '{copy}'")
        assert session.scalar("SHOW pilotscope.subplans") == "[]"


def test_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """With neither cc nor ziglang the message says what to install."""
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    message = (
        "the pilotscope library cannot be built: there is neither a C compiler (cc) nor the ziglang package; "
        "install one, for instance with: pip install ziglang"
    )
    with pytest.raises(MissingExtension, match=f"^{re.escape(message)}$"):
        find_compiler()


@pytest.mark.parametrize("headers", [None, "13"])
def test_no_headers(tmp_path: Path, headers: str | None) -> None:
    """Headers that are missing, or of another version, are named with the package that has them."""
    if Path("/usr/include/postgresql/14/server").exists():
        pytest.skip("this machine has the headers that the test wants missing")
    bindir = _fake_postgres(tmp_path, "14.2", headers=headers)
    message = (
        f"the pilotscope library cannot be built for PostgreSQL 14 in {bindir}: its server headers (postgres.h) are not there; "
        "install them, on Debian and Ubuntu with: apt-get install postgresql-server-dev-14"
    )
    with pytest.raises(MissingExtension, match=f"^{re.escape(message)}$"):
        find_headers(bindir)


@pytest.mark.parametrize("version", ["12.22", "20.0"])
def test_unsupported_version(tmp_path: Path, version: str) -> None:
    """A version that the library is not written for is refused before anything is compiled."""
    bindir = _fake_postgres(tmp_path, version, headers=version.split(".")[0])
    message = (
        f"PostgreSQL {version.split('.')[0]} in {bindir} cannot be steered: the pilotscope library supports 13 to 19; "
        "use a server of one of these versions"
    )
    with pytest.raises(MissingExtension, match=f"^{re.escape(message)}$"):
        build_library(bindir, tmp_path / "cache")


def test_no_server_program(tmp_path: Path) -> None:
    """A folder without `postgres` is no PostgreSQL."""
    message = f"the pilotscope library cannot be built: there is no PostgreSQL server program in {tmp_path}"
    with pytest.raises(MissingExtension, match=f"^{re.escape(message)}$"):
        build_library(tmp_path)


def test_compiler_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message quotes a failing compiler, and the cache stays empty."""
    bindir = _fake_postgres(tmp_path, "17.1", headers="17")
    compiler = tmp_path / "compiler"
    compiler.write_text("#!/bin/sh\necho 'no such luck' >&2\nexit 3\n", encoding="utf-8")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", os.fspath(compiler))
    message = f"the pilotscope library could not be compiled for PostgreSQL 17 with {compiler} (exit status 3): no such luck"
    with pytest.raises(MissingExtension, match=f"^{re.escape(message)}$"):
        build_library(bindir, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
