"""`pilotscope doctor` tells what works, and what to do about what does not; nothing that is absent breaks it."""

from __future__ import annotations

import json
import shutil
import sys
from collections import namedtuple
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import pytest

from pytest_pilotscope.commands import doctor
from pytest_pilotscope.commands.doctor import Check, check_cache, check_docker, check_gpu, check_postgresql, check_suite, check_tracking
from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.extension import build
from pytest_pilotscope.postgres.server import Server
from pytest_pilotscope.provision.database import PostgreSQLConfig
from tests.commands.conftest import Command


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide PyTorch and Docker, because their checks are slow."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(doctor, "check_docker", lambda: Check(name="Docker", state="none", found="no daemon answers"))


@pytest.mark.slow
@pytest.mark.usefixtures("bare")
def test_a_healthy_machine_passes(pilotscope: Command, newest_server: EmbeddedServer) -> None:
    """The doctor starts the server, injects a cardinality and reads it back; optional parts may be missing."""
    result = pilotscope("doctor")
    assert (result.exit_code, result.stderr) == (0, ""), result.stdout
    lines = result.stdout.splitlines()
    version = newest_server.binaries.version
    assert any(line.startswith(f"ok     server            embedded PostgreSQL {version} (") for line in lines)
    assert "ok     build             no assertions, optimized" in lines
    assert "ok     steering library  loaded; PostgreSQL took an injected cardinality" in lines
    assert f"none   GPU               PyTorch is not installed\n{'':25}-> pip install 'pytest-pilotscope[torch]'\n" in result.stdout
    assert "ok     tracking store    sqlite:///mlflow.db: not there yet, the first run makes it" in lines
    assert lines[-1] == "everything that is needed works"


@pytest.mark.usefixtures("bare")
def test_a_fault_is_named_with_its_remedy_and_fails(pilotscope: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, also for programs that read the JSON; the checks after the fault are still made."""
    result = pilotscope("doctor", "--pg-bindir", str(workplace), "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert told["works"] is False
    assert [check["name"] for check in told["checks"]] == ["suite", "server", "Docker", "GPU", "cache", "tracking store"]
    assert told["checks"][1] == {
        "name": "server",
        "state": "FAULT",
        "found": f"no initdb in {workplace}",
        "remedy": "--pg-bindir wants the folder that `pg_config --bindir` of a server installation prints",
    }
    monkeypatch.setattr(doctor, "examine", lambda *_: iter([Check(name="a", state="FAULT", found="b", remedy="c")]))
    result = pilotscope("doctor")
    assert (result.exit_code, result.stdout) == (
        1,
        f"FAULT  a                 b\n{'':25}-> c\n\nsomething that is needed does not work; see FAULT above\n",
    )


def test_an_unknown_server_is_misuse(pilotscope: Command) -> None:
    """An impossible server is rejected before any check."""
    result = pilotscope("doctor", "--server", "emdedded")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: unknown server 'emdedded'; known: auto, embedded, container, or a connection string postgresql://user@host:port/database\n",
    )


@pytest.mark.usefixtures("bare")
def test_a_given_server_that_does_not_answer_keeps_its_password(pilotscope: Command) -> None:
    """The message is the driver's, without the password."""
    result = pilotscope("doctor", "--server", "postgresql://me:geheim@127.0.0.1:1/db")
    assert result.exit_code == 1
    assert "FAULT  server" in result.stdout
    assert "check host, port, user and password, and that the server is running" in result.stdout
    assert "geheim" not in result.stdout + result.stderr


def test_a_given_server_without_our_library(newest_server: EmbeddedServer) -> None:
    """Such a server can be measured but not steered, and the remedy is shown."""
    checks = {check.name: check for check in check_postgresql(PostgreSQLConfig(server=newest_server.dsn))}
    assert list(checks) == ["server", "build", "steering library", "HypoPG"]
    assert checks["server"].found == f"given PostgreSQL {newest_server.binaries.version} (--server)"
    steering = checks["steering library"]
    assert steering.state == "FAULT"
    assert steering.found.endswith(" has no pilotscope library, so algorithms cannot steer it")
    assert steering.remedy is not None
    assert steering.remedy.startswith("load it there: pilotscope install-library ")
    assert checks["HypoPG"] == Check(
        name="HypoPG",
        state="none",
        found="HypoPG is not on this server, and indexes cannot be hidden from the planner, because the pilotscope library is not loaded "
        "(docs/steering.md); index selection needs one of the two",
        remedy=f"on the server: apt-get install postgresql-{newest_server.binaries.major}-hypopg, "
        "and a superuser's CREATE EXTENSION hypopg in the database",
    )


def test_a_library_that_cannot_be_built_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """On our own server the reason is the builder's, not just that it is missing."""

    def refuse(*_: object) -> NoReturn:
        raise MissingExtension("there is no C compiler; pip install ziglang")

    monkeypatch.setattr(build, "build_library", refuse)
    checks = {check.name: check for check in check_postgresql(PostgreSQLConfig(server="embedded"))}
    assert checks["server"].state == "ok"
    assert checks["steering library"] == Check(
        name="steering library",
        state="FAULT",
        found="algorithms cannot steer this server: there is no C compiler",
        remedy="pip install ziglang",
    )


@pytest.mark.parametrize(
    ("major", "warning", "remedy"),
    [
        (
            13,
            "PostgreSQL 13 is past its end of life; pytest-pilotscope 0.3 is the last release for it",
            "upgrade the server to PostgreSQL 14 or newer",
        ),
        (
            19,
            "not tried on 19: the steering library is written by its sources, and no test has run on a server of it",
            "for figures that others should believe, use 18 or older",
        ),
    ],
)
def test_the_ends_of_support_are_told(newest_server: EmbeddedServer, major: int, warning: str, remedy: str) -> None:
    """The oldest version has a line with its end, one that was never tried another; they are no faults, and the others have none."""

    class Other:
        provider = "given"
        connect = newest_server.connect

        def report(self) -> object:
            return replace(newest_server.report(), version_num=major * 10_000)

    other: Server = Other()  # type: ignore[assignment]  # only what the doctor asks for
    checks = {check.name: check for check in doctor.check_server(other)}
    assert checks["version"] == Check(name="version", state="warn", found=warning, remedy=remedy)
    assert [list(doctor.check_version(tried)) for tried in range(14, 19)] == [[]] * 5


def test_a_build_with_assertions_is_a_fault(newest_server: EmbeddedServer) -> None:
    """A build with assertions is a fault, because its times mean nothing."""

    class Slow:
        provider = "given"
        connect = newest_server.connect

        def report(self) -> object:
            return replace(newest_server.report(), debug_assertions=True)

    slow: Server = Slow()  # type: ignore[assignment]  # only what the doctor asks for
    checks = {check.name: check for check in doctor.check_server(slow)}
    assert checks["build"] == Check(
        name="build",
        state="FAULT",
        found="ASSERTIONS ON, optimized",
        remedy="choose another build with --pg-bindir or --server; times measured on this one mean nothing",
    )


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """If a library is missing, the doctor goes on and names the command that installs it."""

    def absent(*_: object) -> NoReturn:
        raise ImportError("No module named 'psycopg2'")

    monkeypatch.setattr("pytest_pilotscope.provision.database.open_server", absent)
    assert list(check_postgresql(PostgreSQLConfig())) == [
        Check(
            name="server",
            state="FAULT",
            found="cannot be used: No module named 'psycopg2'",
            remedy="pip install 'pytest-pilotscope[embedded]'",
        )
    ]
    monkeypatch.setitem(sys.modules, "mlflow.store.db", None)
    store = tmp_path / "mlflow.db"
    store.touch()
    assert check_tracking(f"sqlite:///{store}") == Check(
        name="tracking store",
        state="FAULT",
        found="MLflow cannot be used: import of mlflow.store.db halted; None in sys.modules",
        remedy="pip install 'mlflow>=3.4,<4'",
    )


def test_suite_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an installation pytest would not load the plugin, so that is a fault."""

    def absent(name: str) -> NoReturn:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(doctor, "version", absent)
    assert check_suite() == Check(
        name="suite", state="FAULT", found="pytest-pilotscope is not installed", remedy="pip install pytest-pilotscope"
    )


def test_docker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing daemon is no fault, because the embedded server needs none. A daemon that answers is shown with its version."""
    import docker

    def silent(timeout: int) -> NoReturn:
        raise docker.errors.DockerException("Error while\nfetching server API version")

    monkeypatch.setattr(docker, "from_env", silent)
    assert check_docker() == Check(
        name="Docker",
        state="none",
        found="no daemon answers: Error while fetching server API version",
        remedy="only `--server container` needs it; start Docker, or set DOCKER_HOST to where it listens",
    )
    engine = SimpleNamespace(version=lambda: {"Version": "20.10.24"}, close=lambda: None)
    monkeypatch.setattr(docker, "from_env", lambda timeout: engine)
    assert check_docker() == Check(name="Docker", state="ok", found="engine 20.10.24")
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert check_docker() == Check(
        name="Docker", state="none", found="testcontainers is not installed", remedy="pip install 'pytest-pilotscope[container]'"
    )


def test_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Present, absent, and PyTorch without one."""
    cuda = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2, get_device_name=lambda number: f"device {number}")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(__version__="2.9", cuda=cuda))
    assert check_gpu() == Check(name="GPU", state="ok", found="PyTorch 2.9, device 0, device 1")
    cuda.is_available = lambda: False
    assert check_gpu() == Check(name="GPU", state="none", found="PyTorch 2.9 sees no CUDA device; networks are trained on the CPU")


def test_cache_without_room_or_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A disk that is nearly full, and a folder that cannot be made."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10, 9, 1_000_000))
    full = check_cache()
    assert (full.state, full.remedy) == ("FAULT", "pilotscope clean --yes, or set PILOTSCOPE_CACHE to a folder on a larger disk")
    assert full.found.endswith(" in it, 1.0 MB free on its disk")
    (tmp_path / "file").touch()
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(tmp_path / "file" / "cache"))
    assert check_cache() == Check(
        name="cache",
        state="FAULT",
        found=f"cannot make the cache folder {tmp_path}/file/cache: Not a directory",
        remedy="set PILOTSCOPE_CACHE to a folder that can be written",
    )


def test_tracking_store_that_is_there_and_one_that_is_broken(store: str) -> None:
    """The store is really opened."""
    assert check_tracking(None) == Check(name="tracking store", state="ok", found="sqlite:///mlflow.db: 0 experiments")
    assert check_tracking("http://me:geheim@127.0.0.1:1") == Check(
        name="tracking store",
        state="FAULT",
        found="the MLflow server 'http://me:***@127.0.0.1:1' does not answer: Connection refused",
        remedy="check the address, or name another store with --tracking-uri",
    )
