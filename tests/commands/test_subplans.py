"""`pilotscope subplans` writes every subplan of a workload, and `replay` reads what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_pilotscope.algorithms.replay.estimates import read_estimates
from tests.commands.conftest import Command
from tests.commands.test_verifying import dsn, queries, steerable  # noqa: F401  # fixtures

COUNTED = {("a",): 10, ("b",): 20, ("a", "b"): 7}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_true_rows_come_back(pilotscope: Command, dsn: str, queries: str, workplace: Path, kind: str) -> None:  # noqa: F811
    """Every format keeps the query, the set and its rows; a query that PostgreSQL does not plan is named on the terminal."""
    result = pilotscope("subplans", "--server", dsn, "--queries-dir", queries, "--true-rows", "-o", f"out.{kind}")
    assert result.stdout == f"7 subplans in out.{kind}\n"
    found = read_estimates(workplace / f"out.{kind}")
    assert {tuple(sorted(subplan)): rows for subplan, rows in found["joined"].items()} == COUNTED


def test_a_line_has_the_sql_that_counts_its_set(pilotscope: Command, dsn: str, queries: str, workplace: Path) -> None:  # noqa: F811
    """Without --true-rows nothing is counted: the line has the SQL and PostgreSQL's estimate, or why there is no SQL."""
    pilotscope("subplans", "--server", dsn, "--queries-dir", queries, "--limit", "2", "-o", "out.jsonl")
    lines = [json.loads(line) for line in (workplace / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines][:3] == ["joined/1", "joined/2", "joined/3"]
    assert {name for line in lines for name in line} == {"id", "query", "level", "aliases", "sql", "no_sql", "postgresql_rows"}
    assert all((line["sql"] is None) is (line["no_sql"] is not None) for line in lines)
    assert all(line["postgresql_rows"] >= 1 for line in lines)
    assert any(line["no_sql"] for line in lines if line["query"] == "limited")


def test_an_unknown_kind_of_file_is_refused(pilotscope: Command, dsn: str, queries: str) -> None:  # noqa: F811
    """The error names the kinds that there are."""
    result = pilotscope("subplans", "--server", dsn, "--queries-dir", queries, "-o", "out.txt")
    assert "out.txt: unknown kind of file '.txt'; let its name end in .jsonl, .csv, .parquet" in result.stderr
