"""Play one cell of the fault table, and check its end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pytest_pilotscope.postgres.binaries import find_binaries
from pytest_pilotscope.postgres.databases import drop_database
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.provision.database import steering_libraries
from pytest_pilotscope.provision.loading import load_database, loaded_name
from pytest_pilotscope.tracking.sync import sync
from tests.faults.faults import FAULTS, SMALL, Scene
from tests.faults.program import Ended, Program, Project
from tests.faults.surroundings import adopting, files_below, left_processes, restarted, sessions_end, state_of
from tests.faults.table import AFTER, COLD, POINTS, UNSENT, Cell
from tests.toy import Toy

COMMAND = ("pytest", "-p", "no:cacheprovider", "test_workload.py", "--rounds", "5", "--report", "report.html")
GATE = ("--gate", "baseline", "--gate-delta", "1e9%", "--gate-query-delta", "1e9%", "--gate-exact", "none")
"""A gate that a toy passes: its queries take 0.1 ms, and deciding ten times as long."""
MUTE = ("Traceback (most recent call last)", "INTERNALERROR", "Exception ignored", "core dumped")
"""Texts that no measurement may show, whatever happens to it."""
QUERIES = "".join(f"SELECT count(*) FROM a JOIN b ON b.a = a.id WHERE a.v = {v};\n" for v in (1, 2))
OWN_QUERIES = ("--queries-dir", "queries.sql", "--generate-training", "1")
ROLE = "worker"

_STREAM = "queries = 6\nrepeated = 0.8\n[writes]\nevery = 2\nstatements = [{}]\n"
_ONCE = "INSERT INTO b VALUES (1000, 1, 'new')"
_LATER = "SELECT pg_sleep(3600 * count(*)) FROM b WHERE id = 1000"
"""It sleeps once `_ONCE` has run."""
_NEXT = "INSERT INTO b SELECT 1000 + count(*), 1, 'new' FROM b WHERE id >= 1000 ON CONFLICT DO NOTHING;\n"
"""It runs twice to warm up two clients, and then by both at once."""
FILES = {
    "queries.sql": QUERIES,
    "endless.sql": "SELECT pg_sleep(3600);\n",
    "stream.toml": _STREAM.format('"DELETE FROM b WHERE id % 10 = 3", "ANALYZE"'),
    "failing.toml": _STREAM.format(f'"{_ONCE}"'),
    "sleeping.toml": _STREAM.format(f'"{_ONCE}", "{_LATER}"'),
    "script.sql": "\\set id random(1, 100)\nUPDATE b SET w = 'x' WHERE id = :id;\n",
    "failing.sql": f"SELECT 1 / (3 - count(*)) FROM b WHERE id >= 1000;\n{_NEXT}",
    "sleeping.sql": f"SELECT pg_sleep(3600 * greatest(count(*) - 2, 0)) FROM b WHERE id >= 1000;\n{_NEXT}",
}
"""The files of a project."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """A `folder` with a short path that every account can enter, an empty tracking store, and a cache with a toy that was measured once."""

    folder: Path
    store: Path
    cache: Path


@contextmanager
def given_server(cell: Cell) -> Iterator[EmbeddedServer | None]:
    """
    Give the server of somebody else, for the kinds `given`, `unwilling` and `role`; None for a server that the measurement starts.

    It has the toy as a dataset, and its tables in the database `mine`, which the role `worker` may read and nothing else.
    """
    if cell.server not in ("given", "unwilling", "role"):
        yield None
        return
    binaries = find_binaries()
    few = {"max_connections": "16", "superuser_reserved_connections": "3"}
    with EmbeddedServer(binaries, settings=few, libraries=steering_libraries(binaries.bindir), why="the user's") as server:
        if cell.point not in COLD:
            load_database(server, Toy(test_queries=2))
        with server.connect() as session:
            session.execute(f"CREATE ROLE {ROLE} LOGIN")
            session.execute("CREATE DATABASE mine")
            session.execute("ALTER SYSTEM SET work_mem = '5MB'")  # an entry of somebody else that must stay
        server.restart(few)
        with server.connect("mine") as session:
            Toy().load(session)
            session.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ROLE}")
            session.execute("VACUUM (ANALYZE)")
        yield server


def server_arguments(cell: Cell, server: EmbeddedServer | None) -> list[str]:
    """Return the arguments that name the server and the data."""
    if server is None:
        dask = ("--server", "embedded", "--dask", "local:1")
        return ["--db", "toy", *(dask if cell.server == "dask" else ("--server", cell.server))]
    host = str(server._sockets)
    if cell.server == "role":
        return [
            "--server",
            f"postgresql://{ROLE}@/mine?host={host}",
            "--db",
            "mine",
            "--queries-dir",
            "queries.sql",
            "--generate-training",
            "1",
        ]
    consent = ("--allow-changes", "databases,settings") if cell.server == "given" else ()
    return ["--server", f"postgresql://postgres@/postgres?host={host}", "--db", "toy", *consent]


@contextmanager
def project_of(cell: Cell, basis: Basis, folder: Path) -> Iterator[Project]:
    """Give a project with empty folders for temporary files, a cold cache if the cell needs one, and a small file system."""
    with tempfile.TemporaryDirectory(prefix="cell-", dir=basis.folder) as own, ExitStack() as stack:
        Path(own).chmod(0o755)
        temporary, cache = Path(own) / "tmp", basis.cache
        temporary.mkdir()
        temporary.chmod(0o1777)
        if cell.point in COLD:
            cache = Path(own) / "cache"
            shutil.copytree(basis.cache, cache, ignore=shutil.ignore_patterns("templates", "servers", "labels"))
            for built, copied in ((path, cache / path.relative_to(basis.cache)) for path in basis.cache.rglob("*")):
                if copied.exists():
                    os.chown(copied, built.stat().st_uid, built.stat().st_gid)
        shutil.rmtree(cache / "labels", ignore_errors=True)
        project = Project(folder, store=basis.store, cache=cache, temporary=temporary)
        for name, text in FILES.items():
            (folder / name).write_text(text, encoding="utf-8")
        if SMALL in " ".join(cell.arguments):
            stack.enter_context(small_disk(folder / SMALL))
            shutil.copy(basis.store, folder / SMALL)
        yield project


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a file system of a few megabytes; skip the test where that is not possible."""
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=False).returncode:
        pytest.skip("only root can mount the small file system that this needs")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@contextmanager
def silent_server() -> Iterator[str]:
    """Give the address of a web server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def play(cell: Cell, basis: Basis, folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Measure with the fault of the cell, and check everything that its end has to be."""
    with adopting(), given_server(cell) as server, project_of(cell, basis, folder) as project, silent_server() as silent:
        told = [argument.format(silent=silent) for argument in cell.arguments]
        algorithm = () if "--algo" in told else ("--algo", "watched")
        command = [*COMMAND, *GATE, *algorithm, *server_arguments(cell, server), *told]
        before = state_of(server) if server is not None else None
        with adopting() as processes:
            ended = measure(cell, project, server, command, {**cell.environment, **(environment or {})})
            stayed = left_processes(processes)
        problems = [*of_end(cell, ended), *of_record(cell, project), *of_places(project, stayed)]
        if server is not None:
            problems += of_server(cell, project, server, command, before)
    if problems:
        pytest.fail("\n".join([*problems, ended.output]), pytrace=False)


def measure(cell: Cell, project: Project, server: EmbeddedServer | None, command: list[str], environment: Mapping[str, str]) -> Ended:
    """Start the measurement, let the faults happen at their points, and wait for the end."""
    faults = [(point, name) for point, name in ((cell.point, cell.fault), *((cell.then,) if cell.then else ())) if name in FAULTS]
    stops = [POINTS[point] for point, _ in faults]
    with ExitStack() as stack, Program(project, command, stops=stops, environment=environment) as program:
        for number, (_, name) in enumerate(faults):
            program.at(number)
            FAULTS[name](Scene(project=project, program=program, server=server, stack=stack))
            program.go_on()
        return program.end()


def of_end(cell: Cell, ended: Ended) -> Iterator[str]:
    """Yield what is wrong with the exit code and the message."""
    if ended.code != cell.code:
        yield f"exit code {ended.code}, not {cell.code}"
    if found := [text for text in MUTE if text in ended.output]:
        yield f"in the output: {found}"
    said = {line for line in ended.lines if re.search(cell.says, line)}  # pytest and our summary may both show one
    if cell.says and len(said) != 1:
        yield f"not one line with {cell.says!r}, but {said}"


def of_record(cell: Cell, project: Project) -> Iterator[str]:
    """Yield what is wrong with the record and, after `pilotscope sync` where that is needed, with MLflow."""
    records = project.records()
    statuses = [record.status for record in records]
    if any(record.ignored or (record.truncated and cell.fault != "disk full") for record in records):
        yield "a line of the record cannot be read"
    if statuses != cell.records:
        yield f"records {statuses}, not {cell.record}"
    if cell.tracking_elsewhere:
        return
    if cell.record == "INTERRUPTED" or cell.code == -signal.SIGKILL or cell.says == UNSENT:
        list(sync(project.folder / "results", tracking_uri=f"sqlite:///{project.folder}/mlflow.db"))
    true = "KILLED" if cell.record == "INTERRUPTED" else cell.record
    allowed = {true, "KILLED"} if cell.point in AFTER else {true}  # stopped while it was sent
    found = project.statuses()
    if len(found) != len(statuses) or not set(found) <= allowed:
        yield f"runs in MLflow {found}, not {true}"


def of_places(project: Project, stayed: list[str]) -> Iterator[str]:
    """Yield every process, socket, folder of a server and half-made cache entry that is left."""
    yield from (f"a process is left: {command}" for command in stayed)
    yield from (f"left in the temporary folder: {path}" for path in files_below(project.temporary))
    yield from (f"left in the cache: {path}" for path in (*project.cache.glob("uid-*/servers/*"), *project.cache.rglob("*.partial")))


def of_server(
    cell: Cell, project: Project, server: EmbeddedServer, command: list[str], before: Mapping[str, list[object]] | None
) -> Iterator[str]:
    """Yield every difference that somebody else's server has; after SIGKILL or a lost server, once somebody has measured again."""
    restarted(server)
    if not sessions_end(server):
        yield "a session is left on the server"
    if cell.mended_later:
        with Program(project, command, environment={}) as program:
            ended = program.end()
        if ended.code != 0:
            yield f"the next measurement ended with {ended.code}:\n{ended.output}"
        if cell.point in COLD:
            with server.connect() as session:
                drop_database(session, loaded_name(Toy()))
    after = state_of(server)
    for what in (before or {}).keys() & after.keys():  # a database that is gone or new is among the databases
        old, new = (before or {})[what], after[what]
        if old != new:
            yield f"{what}: gone {[row for row in old if row not in new]}, new {[row for row in new if row not in old]}"
