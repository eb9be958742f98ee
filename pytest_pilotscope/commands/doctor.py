"""Check this machine, and name the command that repairs a fault. Each check does its own imports and reports a missing library."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from textwrap import wrap
from typing import TYPE_CHECKING, Literal

import click

from pytest_pilotscope.commands.output import show_json, size
from pytest_pilotscope.errors import PilotscopeError, ServerError, TrackingError
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.report.text_tables import terminal_width

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.server import Server
    from pytest_pilotscope.provision.database import PostgreSQLConfig

State = Literal["ok", "none", "warn", "FAULT"]
"""`ok`: it works. `none`: it is missing but optional. `warn`: it works, but read the line. `FAULT`: it has to be repaired."""

LITTLE_ROOM_BYTES = 500_000_000
"""Twice the size of a prepared `stats_tiny` and the copy that is measured."""

INDENT = 25
"""The width of a check's state and name."""

DISTRIBUTION = "pytest-pilotscope"
LAST_WITH_13 = "0.3"
_PROBE_ROWS = 12_345
_PROBE_SQL = "SELECT count(*) FROM pg_class AS c, pg_attribute AS a WHERE c.oid = a.attrelid"
_COLOURS = {"ok": "green", "none": "yellow", "warn": "yellow", "FAULT": "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """The result of one check, and the remedy if there is one."""

    name: str
    state: State
    found: str
    remedy: str | None = None


def examine(config: PostgreSQLConfig, tracking_uri: str | StoreUri | None) -> Iterator[Check]:
    """Check everything. Really start the embedded server, and really inject a cardinality."""
    yield check_suite()
    yield from check_postgresql(config)
    yield check_docker()
    yield check_gpu()
    yield check_cache()
    yield check_tracking(tracking_uri)


def show_checks(checks: Iterable[Check], *, as_json: bool) -> bool:
    """Show each check as soon as it is done; return True if there is no fault."""
    done = []
    for check in checks:
        done.append(check)
        if not as_json:
            for line in _lines(check, terminal_width()):
                click.echo(line)
    works = all(check.state != "FAULT" for check in done)
    if as_json:
        show_json({"works": works, "checks": done})
    else:
        click.echo("\neverything that is needed works" if works else "\nsomething that is needed does not work; see FAULT above")
    return works


def _lines(check: Check, width: int | None) -> Iterator[str]:
    """Yield the lines of a check, wrapped between words on a terminal."""
    state = click.style(f"{check.state:<7}", fg=_COLOURS[check.state], bold=check.state == "FAULT")
    for text, hanging in ((check.found, ""), (f"-> {check.remedy}" if check.remedy else "", "   ")):
        lines = wrap(text, width - INDENT, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False) if width else [text]
        for line in filter(None, lines):
            yield f"{state}{check.name:<{INDENT - 7}}{line}" if line is lines[0] and not hanging else f"{'':<{INDENT}}{line}"


def check_suite() -> Check:
    """Check this package and its Python."""
    try:
        ours = version(DISTRIBUTION)
    except PackageNotFoundError:
        return Check(name="suite", state="FAULT", found=f"{DISTRIBUTION} is not installed", remedy=f"pip install {DISTRIBUTION}")
    where = f"{platform.python_implementation()} {platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check(name="suite", state="ok", found=f"{DISTRIBUTION} {ours}, {where}, {sys.prefix}")


def check_postgresql(config: PostgreSQLConfig) -> Iterator[Check]:
    """Check the server that a benchmark would get, its build, the steering library and HypoPG."""
    try:
        from pytest_pilotscope.provision.database import open_server

        server = open_server(config)
    except ImportError as error:
        yield Check(name="server", state="FAULT", found=f"cannot be used: {error}", remedy=f"pip install '{DISTRIBUTION}[embedded]'")
        return
    except PilotscopeError as error:
        yield _fault("server", error)
        return
    try:
        yield from check_server(server)
    except ServerError as error:
        yield _fault("server", error)
    finally:
        server.stop()


def check_docker() -> Check:
    """Check the Docker daemon that `--server container` needs."""
    if find_spec("testcontainers") is None or find_spec("docker") is None:
        return Check(
            name="Docker", state="none", found="testcontainers is not installed", remedy=f"pip install '{DISTRIBUTION}[container]'"
        )
    import docker
    from docker.errors import DockerException

    try:
        with closing(docker.from_env(timeout=5)) as client:
            found = client.version()["Version"]
    except (DockerException, OSError) as error:
        remedy = "only `--server container` needs it; start Docker, or set DOCKER_HOST to where it listens"
        return Check(name="Docker", state="none", found=f"no daemon answers: {' '.join(str(error).split())}", remedy=remedy)
    return Check(name="Docker", state="ok", found=f"engine {found}")


def check_gpu() -> Check:
    """Check PyTorch and its device."""
    try:
        import torch
    except ModuleNotFoundError:
        return Check(name="GPU", state="none", found="PyTorch is not installed", remedy=f"pip install '{DISTRIBUTION}[torch]'")
    except (ImportError, OSError) as error:
        return Check(name="GPU", state="FAULT", found=f"PyTorch is broken: {error}", remedy="pip install --force-reinstall torch")
    if not torch.cuda.is_available():
        return Check(name="GPU", state="none", found=f"PyTorch {torch.__version__} sees no CUDA device; networks are trained on the CPU")
    devices = ", ".join(torch.cuda.get_device_name(device) for device in range(torch.cuda.device_count()))
    return Check(name="GPU", state="ok", found=f"PyTorch {torch.__version__}, {devices}")


def check_cache() -> Check:
    """Check the folder of prepared databases, and the free space on its disk."""
    from pytest_pilotscope.commands.cleaning import entries_of
    from pytest_pilotscope.places.folders import cache_folder

    try:
        folder = cache_folder()
    except ServerError as error:
        return _fault("cache", error)
    free_bytes = shutil.disk_usage(folder).free
    found = f"{folder}: {size(sum(entry.size_bytes for entry in entries_of(folder)))} in it, {size(free_bytes)} free on its disk"
    if free_bytes < LITTLE_ROOM_BYTES:
        remedy = "pilotscope clean --yes, or set PILOTSCOPE_CACHE to a folder on a larger disk"
        return Check(name="cache", state="FAULT", found=found, remedy=remedy)
    return Check(name="cache", state="ok", found=found)


def check_tracking(tracking_uri: str | StoreUri | None) -> Check:
    """Check the MLflow store."""
    from pytest_pilotscope.tracking.store import resolve_uri, sqlite_path

    uri = resolve_uri(tracking_uri)
    path = sqlite_path(uri)
    try:
        if path is not None and path.parent.is_dir() and not path.exists():
            return Check(name="tracking store", state="ok", found=f"{uri}: not there yet, the first run makes it")
        from pytest_pilotscope.tracking.find import experiments

        found = experiments(tracking_uri)
    except TrackingError as error:
        return _fault("tracking store", error)
    except ImportError as error:
        return Check(name="tracking store", state="FAULT", found=f"MLflow cannot be used: {error}", remedy="pip install 'mlflow>=3.4,<4'")
    many = "1 experiment" if len(found) == 1 else f"{len(found)} experiments"
    return Check(name="tracking store", state="ok", found=f"{uri}: {many}")


def check_server(server: Server) -> Iterator[Check]:
    """Check the build of a running server, the steering library and HypoPG."""
    from pytest_pilotscope.postgres import hypopg
    from pytest_pilotscope.postgres.given import GivenServer
    from pytest_pilotscope.postgres.server import Capability
    from pytest_pilotscope.postgres.steering import has_extension
    from pytest_pilotscope.provision.obstacles import unusable_relations

    report = server.report()
    yield Check(name="server", state="ok", found=f"{report.provider} PostgreSQL {report.version} ({report.why})")
    if report.gateable:
        yield Check(name="build", state="ok", found=report.flags)
    else:
        remedy = "choose another build with --pg-bindir or --server; times measured on this one mean nothing"
        yield Check(name="build", state="FAULT", found=report.flags, remedy=remedy)
    major = report.version_num // 10_000
    yield from check_version(major)
    yield _steering(server)
    if isinstance(server, GivenServer):
        for capability in (Capability.CREATE_DATABASE, Capability.ALTER_SYSTEM):
            if capability not in server.rights:
                yield Check(name="rights", state="none", found=server.refusal(capability))
    with server.connect() as session:
        yield from (_noted("tables", sentence) for sentence in unusable_relations(session))
        obstacle, steered = hypopg.obstacle(session), has_extension(session)
    if obstacle is None:
        yield Check(name="HypoPG", state="ok", found="available")
    else:
        instead = "; index selection builds its candidates instead, and hides them from the planner"
        absent = f"{obstacle}{instead if steered else f', and {hypopg.NO_WHAT_IF}'}"
        yield Check(name="HypoPG", state="none", found=absent, remedy=_hypopg_remedy(server, major))


def check_version(major: int) -> Iterator[Check]:
    """Warn of a version that support ends for, and of one that nobody has tried."""
    from pytest_pilotscope.postgres.binaries import OLDEST_MAJOR
    from pytest_pilotscope.postgres.extension.build import TRIED_MAJORS

    if major == OLDEST_MAJOR:
        found = f"PostgreSQL {major} is past its end of life; pytest-pilotscope {LAST_WITH_13} is the last release for it"
        yield Check(name="version", state="warn", found=found, remedy=f"upgrade the server to PostgreSQL {major + 1} or newer")
    elif major > TRIED_MAJORS[-1]:
        found = f"not tried on {major}: the steering library is written by its sources, and no test has run on a server of it"
        yield Check(
            name="version", state="warn", found=found, remedy=f"for figures that others should believe, use {TRIED_MAJORS[-1]} or older"
        )


def _steering(server: Server) -> Check:
    from pytest_pilotscope.provision.obstacles import no_library

    if problem := no_library(server, None, "algorithms"):
        return _noted("steering library", problem, state="FAULT")
    try:
        with server.connect() as session, session.cardinalities({frozenset({"c", "a"}): _PROBE_ROWS}):
            plan = session.explain(_PROBE_SQL)
    except PilotscopeError as error:
        return _fault("steering library", error)
    if not any(node.is_join and node.rows == _PROBE_ROWS for node in plan.nodes()):
        return Check(name="steering library", state="FAULT", found="loaded, but PostgreSQL did not take an injected cardinality")
    return Check(name="steering library", state="ok", found="loaded; PostgreSQL took an injected cardinality")


def _hypopg_remedy(server: Server, major: int) -> str:
    package = f"apt-get install postgresql-{major}-hypopg"
    if server.provider == "embedded":
        return f"for a system PostgreSQL: {package}, then --pg-bindir /usr/lib/postgresql/{major}/bin"
    return f"on the server: {package}, and a superuser's CREATE EXTENSION hypopg in the database"


def _fault(name: str, error: Exception) -> Check:
    return _noted(name, str(error), state="FAULT")


def _noted(name: str, sentence: str, *, state: State = "none") -> Check:
    """Make a check of a sentence of ours, which ends with the remedy, after the last semicolon."""
    found, _, remedy = sentence.rpartition("; ")
    return Check(name=name, state=state, found=found or remedy, remedy=remedy if found else None)
