"""`pilotscope verify-labels` compares the labels of a workload with PostgreSQL's own counts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_pilotscope.commands import verifying
from pytest_pilotscope.labels.executed import Executed
from pytest_pilotscope.labels.verifying import Mismatch, Verification
from pytest_pilotscope.postgres.binaries import find_binaries
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.provision.database import steering_libraries
from tests.commands.conftest import Command

TABLES = """
    CREATE TABLE a (id int PRIMARY KEY, v int); CREATE TABLE b (id int PRIMARY KEY, k int);
    INSERT INTO a SELECT i, i % 3 FROM generate_series(1, 30) AS i; INSERT INTO b SELECT i, i % 9 FROM generate_series(1, 20) AS i; ANALYZE;
"""
QUERIES = """\
joined\tSELECT count(*) FROM a JOIN b ON a.id = b.k WHERE a.v = 1
limited\tSELECT count(*) FROM a JOIN (SELECT k FROM b LIMIT 3) AS s ON a.id = s.k
absent\tSELECT count(*) FROM no_such_table
"""


@pytest.fixture(scope="module")
def steerable() -> Iterator[EmbeddedServer]:
    """Give a server with the library in every session."""
    binaries = find_binaries()
    with EmbeddedServer(binaries, libraries=steering_libraries(binaries.bindir), why="for the tests") as started:
        with started.connect() as session:
            session.execute(TABLES)
        yield started


@pytest.fixture
def dsn(steerable: EmbeddedServer) -> str:
    """Give the connection string of a user's database."""
    return steerable.dsn.reveal()


@pytest.fixture
def queries(workplace: Path) -> str:
    """Give a file of three queries."""
    (workplace / "mine.sql").write_text(QUERIES)
    return "mine.sql"


def test_what_was_compared_is_told(pilotscope: Command, dsn: str, queries: str) -> None:
    """Numbers of statements and sets, and the share without SQL with the reasons; exit code 0 where nothing differs."""
    result = pilotscope("verify-labels", "--server", dsn, "--queries-dir", queries)
    executed = r"  [1-5] compared with an executed plan node, 1 of them joins\n"  # which nodes tell depends on the version
    assert re.sub(executed, "", result.stdout) == (
        "3 statements, 7 sets of relations\n"
        "  5 counted by their SQL, 5 compared with their label\n"
        "  1 whole statements compared with their own COUNT(*)\n"
        "  2 without SQL (28.6%)\n"
        "    2: LIMIT or DISTINCT ON, and no order that decides which rows these are\n"
        '  absent not planned: relation "no_such_table" does not exist\n'
        "no set differs\n"
    )
    assert result.exit_code == 0


def test_json(pilotscope: Command, dsn: str, queries: str) -> None:
    """`--json` has the same numbers for programs."""
    told = json.loads(pilotscope("verify-labels", "--server", dsn, "--queries-dir", queries, "--limit", "1", "--json").stdout)
    assert (told["statements"], told["counted"], told["labelled"], told["mismatches"]) == (1, 3, 3, [])


def test_a_difference_is_shown_in_full(pilotscope: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A difference is shown with the statement, the set, the three numbers and the SQL; exit code 1."""
    both = frozenset("ab")
    mismatch = Mismatch(
        query_id="joined",
        sql="SELECT the statement",
        subplan=both,
        count_sql="SELECT the count",
        label=8,
        counted=7,
        executed=(Executed(both, 7, "Inner Hash Join"),),
    )
    found = Verification(statements=1, sets=3, counted=3, labelled=3, executed=3, joins=1, mismatches=(mismatch,))
    monkeypatch.setattr(verifying, "verify_labels", lambda *args, **options: found)
    result = pilotscope("verify-labels", "--db", "stats_tiny")
    assert result.stdout.splitlines()[5:] == [
        "DIFFERENT joined: {a, b}",
        "  label 8 rows, by SQL 7 rows",
        "  7 rows in Inner Hash Join",
        "  SELECT the count",
        "  SELECT the statement",
        "1 sets differ",
    ]
    assert result.exit_code == 1


def test_nothing_is_written(pilotscope: Command, dsn: str, steerable: EmbeddedServer, workplace: Path) -> None:
    """A query that would change the user's database is refused by PostgreSQL, whatever the plan."""
    (workplace / "writing.sql").write_text("one\tSELECT count(*) FROM a JOIN b ON a.id = b.k WHERE counted(a.v)\n")
    with steerable.connect() as session:
        session.execute(
            "CREATE SEQUENCE counter; CREATE FUNCTION counted(int) RETURNS bool STABLE LANGUAGE plpgsql AS "
            "'BEGIN PERFORM nextval(''counter''); RETURN true; END'"
        )
        for command in (("verify-labels",), ("subplans", "--true-rows", "-o", "rows.jsonl")):
            pilotscope(*command, "--server", dsn, "--queries-dir", "writing.sql")
        assert session.scalar("SELECT is_called FROM counter") is False
        session.execute("DROP FUNCTION counted; DROP SEQUENCE counter")


def test_a_database_without_queries(pilotscope: Command, dsn: str) -> None:
    """Without queries the command is rejected."""
    result = pilotscope("verify-labels", "--server", dsn)
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: database 'postgres' has no queries of its own; name them with --queries-dir\n",
    )
