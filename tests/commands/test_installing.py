"""`pilotscope install-library` builds the library for a server of the user's, and prints two commands that really load it."""

from __future__ import annotations

import json
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pilotscope.commands import installing
from pytest_pilotscope.commands.installing import install_library, show_installation
from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.postgres.connecting import dsn_of
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.extension import build
from pytest_pilotscope.postgres.process import temporary_folder
from pytest_pilotscope.postgres.steering import has_extension
from tests.commands.conftest import Command
from tests.conftest import ServerOf


@pytest.fixture
def libraries() -> Iterator[Path]:
    """Give a folder that the account of servers can read, in place of PostgreSQL's own folder of libraries."""
    with temporary_folder(prefix="pilotscope-test-libraries-") as folder:
        folder.chmod(0o755)
        yield folder


def _dsn(server: EmbeddedServer, role: str = "postgres") -> str:
    return dsn_of(host=str(server._sockets), port=5432, user=role, password="hunter2", dbname="my shop").reveal()  # noqa: S106


@pytest.mark.parametrize("major", [18, 15])
def test_the_commands_load_it(server_of: ServerOf, libraries: Path, pilotscope: Command, major: int) -> None:
    """Run as printed, the first puts the file where PostgreSQL finds it, and the second gives it to every new session of the database."""
    settings = {"dynamic_library_path": f"$libdir:{libraries}", "session_preload_libraries": "plpgsql"}
    with EmbeddedServer(server_of(major).binaries, settings=settings) as server, server.connect() as administrator:
        administrator.execute('CREATE DATABASE "my shop"')
        result = pilotscope("install-library", _dsn(server))
        assert result.exit_code == 0, result.stderr
        lines = result.stdout.splitlines()
        install, load = (line.strip() for line in lines[2:4])
        words = shlex.split(install)
        assert (words[:4], words[5].endswith("/pilotscope.so")) == (["sudo", "install", "-m", "755"], True)
        assert lines[0] == f"built {words[4]}"
        shutil.copyfile(words[4], libraries / "pilotscope.so")
        (libraries / "pilotscope.so").chmod(0o755)
        command = shlex.split(load)
        command[0] = str(server.binaries.bindir / "psql")
        subprocess.run([*command, f"--host={server._sockets}", "--username=postgres"], check=True, capture_output=True)
        with server.connect("my shop") as session:
            assert has_extension(session)
            assert session.scalar("SHOW session_preload_libraries") == "plpgsql, pilotscope"
        assert lines[-1] == f"new sessions have it then; check it with: pilotscope doctor --server {shlex.quote(dsn_shown(server))}"
        assert pilotscope("install-library", _dsn(server)).stdout == f"the pilotscope library is loaded already on {dsn_shown(server)}\n"
        assert "hunter2" not in result.stdout


def dsn_shown(server: EmbeddedServer) -> str:
    """Return the connection string without its password."""
    return _dsn(server).replace("hunter2", "***")


def test_a_role_without_rights(newest_server: EmbeddedServer, pilotscope: Command) -> None:
    """It may ask: PostgreSQL's folder is then for the administrator's pg_config to say; JSON has the same."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE ROLE visitor LOGIN")
        administrator.execute('CREATE DATABASE "my shop"')
        try:
            told = json.loads(pilotscope("install-library", _dsn(newest_server, "visitor"), "--json").stdout)
        finally:
            administrator.execute('DROP DATABASE "my shop"')
            administrator.execute("DROP ROLE visitor")
    assert told["commands"] == [
        f'sudo install -m 755 {shlex.quote(told["library"])} "$(pg_config --pkglibdir)/pilotscope.so"',
        "psql --dbname='my shop' --command='ALTER DATABASE \"my shop\" SET session_preload_libraries = '\"'\"'pilotscope'\"'\"''",
    ]
    assert (told["loaded"], told["host"]) == (False, None)


def test_a_server_on_another_port(newest_server: EmbeddedServer, pilotscope: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of psql names the port that the server listens on there, unless it is PostgreSQL's own."""
    monkeypatch.setattr(installing, "_asked", lambda session, sql: "5433" if sql == "SHOW port" else None)
    told = json.loads(pilotscope("install-library", newest_server.dsn.reveal(), "--json").stdout)
    assert told["commands"][1].startswith("psql --port=5433 --dbname=postgres --command=")


def test_a_server_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    """The file has to be copied to its machine first."""
    made = installing.Installation(
        server="postgresql://me@db.example/shop", loaded=False, library=Path("/cache/x.so"), host="db.example", commands=("one x.so", "two")
    )
    show_installation(made, as_json=False)
    assert capsys.readouterr().out == (
        "built /cache/x.so\ncopy it to db.example, for instance with: scp /cache/x.so db.example:\n"
        "an administrator of the server runs there, in the folder of the file and as a superuser of PostgreSQL:\n  one x.so\n  two\n"
        "new sessions have it then; check it with: pilotscope doctor --server postgresql://me@db.example/shop\n"
    )


@pytest.mark.parametrize(
    ("machine", "libc", "version", "fits"),
    [
        ("x86_64", "glibc", "PostgreSQL 18.4 on x86_64-pc-linux-gnu, compiled by gcc", True),
        ("aarch64", "glibc", "PostgreSQL 18.4 on aarch64-unknown-linux-gnu, compiled by gcc", True),
        ("x86_64", "glibc", "PostgreSQL 18.4 on aarch64-unknown-linux-gnu, compiled by gcc", False),
        ("x86_64", "glibc", "PostgreSQL 18.4 on x86_64-pc-linux-musl, compiled by gcc", False),
        ("x86_64", "", "PostgreSQL 18.4 on x86_64-pc-linux-musl, compiled by gcc", True),
        ("x86_64", "glibc", "PostgreSQL 16.2, compiled by Visual C++ build 1937, 64-bit", False),
        ("x86_64", "glibc", "PostgreSQL 16.2 on x86_64-apple-darwin22, compiled by Apple clang", False),
    ],
)
def test_another_kind_of_machine(monkeypatch: pytest.MonkeyPatch, machine: str, libc: str, version: str, fits: bool) -> None:
    """A library that the server cannot load is not built: the message says on which machine to run the command."""
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, ""))
    monkeypatch.setattr(sys, "platform", "linux")
    if fits:
        installing._check_machine(version)
        return
    with pytest.raises(MissingExtension, match=r"^the server runs on .+, and this machine is x86_64 with linux: a library that "):
        installing._check_machine(version)


def test_headers_of_another_version(newest_server: EmbeddedServer, server_of: ServerOf, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers have to be of the server's version; where there are none, the package is named."""
    dsn, bindir = dsn_of(host=str(newest_server._sockets), user="postgres", dbname="postgres").reveal(), server_of(15).binaries.bindir
    major = newest_server.binaries.major
    with pytest.raises(MissingExtension, match=f"^the server is PostgreSQL {major}, that of --pg-bindir {bindir} is 15; name another one$"):
        install_library(dsn, bindir)
    monkeypatch.setattr(build, "available_binaries", lambda: iter(()))
    expected = (
        "the pilotscope library cannot be built for PostgreSQL 17: its server headers (postgres.h) are not on this machine; install them, "
        "on Debian and Ubuntu with: apt-get install postgresql-server-dev-17, or name their PostgreSQL with --pg-bindir"
    )
    with pytest.raises(MissingExtension, match=f"^{re.escape(expected)}$"):
        build.headers_of(17)
