"""Passwords are planted wherever a user may have one, and looked for in everything that is written."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from pytest_pilotscope.tracking.sync import sync
from tests.faults.playing import COMMAND, GATE, OWN_QUERIES, ROLE, Basis, given_server, project_of
from tests.faults.program import Program
from tests.faults.table import cell

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]

DATABASE, STORE, TOKEN = "pa55-of/the@database", "pa55-of/the@store", "t0ken-of-the-store"
SPELLINGS = [spelling.encode() for secret in (DATABASE, STORE, TOKEN) for spelling in (secret, quote(secret), quote(secret, safe=""))]
EVERYTHING = (
    "--showlocals",
    "--log-level",
    "DEBUG",
    "--log-file",
    "log.txt",
    "--junitxml",
    "junit.xml",
    "--benchmark-json",
    "bench.json",
    "-vv",
)
ENVIRONMENT = {
    "PGPASSWORD": DATABASE,
    "MLFLOW_TRACKING_USERNAME": "me",
    "MLFLOW_TRACKING_PASSWORD": STORE,
    "MLFLOW_TRACKING_TOKEN": TOKEN,
}


def found_in(folder: Path) -> dict[str, list[str]]:
    """Return the files below a folder that contain a planted secret, with the spellings of it, or have one in their name."""
    found = {}
    for path in folder.rglob("*"):
        text = str(path.relative_to(folder)).encode() + (path.read_bytes() if path.is_file() else b"")
        if spellings := sorted({spelling.decode() for spelling in SPELLINGS if spelling in text}):
            found[str(path.relative_to(folder))] = spellings
    return found


@pytest.mark.parametrize(
    ("arguments", "code", "stop"),
    [
        pytest.param((), 0, "", id="a run that passes"),
        pytest.param(("--algo", "raises-in-training"), 1, "", id="an algorithm that raises"),
        pytest.param(("--algo", "raises-in-deciding", "--tb", "long", "--full-trace"), 1, "", id="its traceback is asked for"),
        pytest.param(
            ("--tb", "long"),
            1,
            "pytest_pilotscope.measurement.clocks:clock_of",
            id="it breaks beside a connection string",
        ),
        pytest.param(("--tracking-uri", f"http://me:{STORE}@127.0.0.1:1/path?token={TOKEN}"), 0, "", id="a store that does not answer"),
        pytest.param(("--tracking-uri", f"http://{TOKEN}@127.0.0.1:1"), 0, "", id="a token in place of a user"),
        pytest.param(("--tracking-uri", f"postgresql://me:{STORE}@127.0.0.1:1/mlflow"), 0, "", id="a database as store"),
        pytest.param(("--server", f"postgresql://me:{quote(DATABASE, safe='')}@127.0.0.1:1/mine"), 4, "", id="nobody listens"),
        pytest.param(("--server", f"postgresql://me:{DATABASE}@127.0.0.1:1/mine"), 4, "", id="not escaped"),
        pytest.param(("--server", f"host=127.0.0.1 port=1 dbname=mine password='{DATABASE}'"), 4, "", id="keywords"),
    ],
)
def test_no_password_anywhere(arguments: tuple[str, ...], code: int, stop: str, basis: Basis, tmp_path: Path) -> None:
    """Output, log, record, pages, JSON, JUnit, tracking store, cache and server log have no planted secret in any spelling."""
    nothing = cell("executing", "nothing", code, None, "", server="role")
    with given_server(nothing) as server, project_of(nothing, basis, tmp_path) as project:
        assert server is not None
        dsn = f"postgresql://{ROLE}:{quote(DATABASE, safe='')}@/mine?host={server._sockets}"
        given = ("--server", dsn, "--db", "mine", *OWN_QUERIES, "--algo", "watched")
        command = [*COMMAND, *GATE, *given, *EVERYTHING, *arguments]
        with Program(project, command, stops=[stop] if stop else [], environment=ENVIRONMENT) as program:
            if stop:
                program.at(0)
                program.fail()
            ended = program.end()
        if (project.folder / "results").is_dir():
            list(sync(project.folder / "results", tracking_uri=f"sqlite:///{project.folder}/mlflow.db"))
        places = (project.folder, project.cache, project.temporary, server.data_folder.parent)
        found = {path: spellings for folder in places for path, spellings in found_in(folder).items()}
    if found or ended.code != code:
        pytest.fail(f"exit code {ended.code}, secrets {found}\n{ended.output}", pytrace=False)


def test_planted_secrets_are_found(tmp_path: Path) -> None:
    """The search finds a secret in contents and in names."""
    (tmp_path / TOKEN).write_text("nothing")
    (tmp_path / "file").write_bytes(b"\0" + quote(STORE, safe="").encode() + b"\0")
    assert found_in(tmp_path) == {TOKEN: [TOKEN], "file": [quote(STORE, safe="")]}
