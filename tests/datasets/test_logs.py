"""Workloads from the logs of a real server, and from pg_stat_statements."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from pytest_pilotscope.commands.cli import cli
from pytest_pilotscope.datasets.files import load_workload_files
from pytest_pilotscope.datasets.logs import extract
from pytest_pilotscope.errors import WorkloadError
from pytest_pilotscope.postgres.embedded import EmbeddedServer

TRICKY = "SELECT 'a, \"b\"\n; it''s' AS x FROM t WHERE id = 7"


@pytest.fixture(scope="module")
def logs(newest_server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the csvlog and the jsonlog of one server that ran queries, other statements, and a query in another database."""
    settings = {"logging_collector": "on", "log_destination": "csvlog,jsonlog", "log_statement": "all", "log_filename": "postgresql.log"}
    folder = tmp_path_factory.mktemp("logs")
    with EmbeddedServer(newest_server.binaries, settings=settings) as server:
        with server.connect() as session:
            session.execute("CREATE DATABASE shop")
            session.execute("SELECT 1 + 1")
        with server.connect("shop") as session:
            session.execute("CREATE TABLE t (id int, v int)")
            session.execute("CREATE TABLE u (t int)")
            for number in range(30):
                session.execute(f"SELECT count(*) FROM t, u WHERE t.id = u.t AND t.v = {number % 25}")
            session.execute(TRICKY)
            session.execute("INSERT INTO t VALUES (1, 2)")
            session.execute("SELECT count(*) FROM pg_class")
            session.execute("SELECT v FROM t WHERE v < 3")
        server.stop(keep_data=folder / "data")
    return {kind: folder / "data" / "log" / f"postgresql.{kind}" for kind in ("csv", "json")}


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_server_log(logs: dict[str, Path], kind: str) -> None:
    """Each query is there once, as it ran; what is no query, about the catalog or one too many of its template is counted."""
    found = extract(logs[kind], database="shop")
    texts = [query.sql for query in found.workload.test]
    assert len(texts) == 22
    assert TRICKY in texts
    assert "SELECT v FROM t WHERE v < 3" in texts
    assert sorted(found.templates.values()) == [1, 1, 30]
    assert found.left_out["the same query again"] == 5
    assert found.left_out["more than 20 of one template"] == 5
    assert found.left_out["no queries"] >= 3
    assert found.left_out["about the server itself"] >= 2
    everywhere = extract(logs[kind]).workload.test
    assert "SELECT 1 + 1" in [query.sql for query in everywhere]


def test_parameters_of_prepared_statements(tmp_path: Path) -> None:
    """A statement that ran with parameters is written with them; a literal that looks like one is left alone."""
    path = tmp_path / "log.json"
    path.write_text(
        '{"message":"duration: 0.5 ms  execute s1: SELECT * FROM t WHERE a = $1 AND b = $2 AND c = \'$1\'",'
        '"detail":"parameters: $1 = \'it\'\'s\', $2 = NULL"}\n{"message":"execute s2: SELECT $1"}\n'
    )
    found = extract(path)
    assert [query.sql for query in found.workload.test] == ["SELECT * FROM t WHERE a = 'it''s' AND b = NULL AND c = '$1'"]
    assert found.left_out == {"without the constants that they ran with": 1}


def test_statistics_of_statements(tmp_path: Path) -> None:
    """pg_stat_statements has no constants: what had some is counted, what had none is a query."""
    path = tmp_path / "statements.csv"
    path.write_text("calls,query\n7,SELECT * FROM t WHERE a = $1\n3,SELECT count(*) FROM t\n")
    found = extract(path)
    assert [query.sql for query in found.workload.test] == ["SELECT count(*) FROM t"]
    assert found.left_out == {"without the constants that they ran with": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,b\n",
            "{path}:1: 2 columns; a csvlog has 23 to 26, and an export of pg_stat_statements begins with the names of its columns, query "
            "among them",
        ),
        ("{nothing\n", "{path}:1: no line of a jsonlog; give the file that log_destination = 'jsonlog' writes"),
        ('{"message":"ready"}\n', "{path}: no query to run in 0 logged statements (it holds no statements: log_statement was off?)"),
        ("query\nSELECT $1\n", "{path}: no query to run in 1 logged statements (1 without the constants that they ran with)"),
    ],
)
def test_what_is_no_log(tmp_path: Path, text: str, message: str) -> None:
    """It is said what was found, where, and what to give instead."""
    path = tmp_path / "log"
    path.write_text(text)
    with pytest.raises(WorkloadError, match=f"^{re.escape(message.format(path=path))}$"):
        extract(path)


def test_another_database(logs: dict[str, Path]) -> None:
    """A name that no statement ran in is said."""
    message = f"{logs['csv']}: no query to run in 0 logged statements (none of database 'shp': is it called so?)"
    with pytest.raises(WorkloadError, match=f"^{re.escape(message)}$"):
        extract(logs["csv"], database="shp")


def test_the_command(logs: dict[str, Path], tmp_path: Path) -> None:
    """It writes a workload that can be measured, and leaves a folder alone that is not empty."""
    arguments = ["workload", "from-log", str(logs["csv"]), "--db", "shop", "-o", str(tmp_path / "mine")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    workload = load_workload_files(tmp_path / "mine", "shop", None)
    assert [len(part) for part in (workload.train, workload.validation, workload.test)] == [16, 2, 4]
    assert f"{tmp_path / 'mine'}: 16 train, 2 validation, 4 test queries" in result.output
    again = CliRunner().invoke(cli, arguments)
    assert (again.exit_code, again.output) == (
        2,
        f"Error: {tmp_path / 'mine'}: there is something in this folder already; name another one with --output\n",
    )
