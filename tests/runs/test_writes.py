"""`--writes`: whole runs with scripts that write."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.connecting import connect
from pytest_pilotscope.postgres.session import Session
from tests.projects import BENCHMARK, measure, record_lines

SCRIPT = r"""
\set v random(1000000, 2000000000)
BEGIN;
INSERT INTO tags VALUES (:v, 1, NULL);
UPDATE users SET reputation = :v WHERE id = 1;
END;
"""


@pytest.mark.slow
def test_every_slice_begins_with_the_same_data(pytester: pytest.Pytester, cache: Path) -> None:
    """
    Each script adds a row, and no query ever finds more rows than those of its own slice, on either side.

    The record has every script, and the header which ones; the database stays as it was, so that a second run has its fingerprints.
    """
    pytester.makefile(".sql", writes=SCRIPT, select="SELECT count(*) FROM users", all="SELECT id FROM tags")
    queries = pytester.mkdir("queries")
    (queries / "all.sql").write_text("SELECT id FROM tags")
    (queries / "other.sql").write_text("SELECT id FROM users WHERE id < 5")
    chosen = ("--no-mlflow", "--queries-dir", "queries", "--rounds", "3", "--writes", "writes.sql@2,select.sql", "--clients", "2")
    result = measure(pytester, *chosen, "--writes-per-query", "1.5", "--variant", "memory:work_mem=64MB", "--variant", "fifteen@15")
    assert result.ret == 0, result.stdout.str()
    result.stdout.fnmatch_lines(
        [
            "*FINISHED, 3 rounds, seed 0, --clients 2 --writes*",
            "*executions/s*",
            "*writes/s*",
            "*write speed-up*",
            "*write latency ms*",
            "*write latency p99*",
        ]
    )
    header, *lines = record_lines(pytester.path)
    assert (header["parameters"]["writes"], header["parameters"]["writes_per_query"]) == ("writes.sql@2,select.sql", 1.5)
    assert len(header["fingerprints"]["writes"]) == 12
    writes = [line for line in lines if line["kind"] == "write_run"]
    by_slice = {
        (side, number): sorted((one["client"], one["script"]) for one in writes if (one["side"], one["repetition"]) == (side, number))
        for side in header["sides"]
        for number in (1, 2, 3)
    }
    assert [line["writes"] for line in lines if line["kind"] == "time_slice"] == [6] * 9
    for number in (1, 2, 3):
        (same,) = {tuple(by_slice[side, number]) for side in ("baseline", "memory", "fifteen")}
        assert len(same) == 6
    rows = [line["row_count"] for line in lines if line["kind"] == "query_run" and line["query_id"] == "all" and line["client"]]
    (before,) = {line["row_count"] for line in lines if line["kind"] == "query_run" and line["query_id"] == "all" and not line["client"]}
    assert len(rows) == 18
    assert before + 2 <= min(rows) <= max(rows) <= before + 2 + 6  # each client runs each script once to warm up
    assert max(rows) > before + 2


@pytest.mark.slow
def test_what_does_not_fit_is_refused(pytester: pytest.Pytester, cache: Path) -> None:
    """Options that contradict scripts, and a script that PostgreSQL refuses, are told before anything is measured."""
    pytester.makefile(".sql", good="SELECT 1", bad="UPDATE tags SET nothing = 1")
    for other, message in {
        "--cold": "ERROR: --cold: each client would drop the caches of the others; leave --cold or --writes out",
        "--rounds=auto": "ERROR: --rounds auto measures query by query, and --writes all queries at once; give the number of slices with "
        "--rounds",
        "--writes=none.sql": "ERROR: --writes none.sql: the script cannot be read: No such file or directory; name a file",
        "--writes=bad.sql": 'ERROR: --writes bad.sql: statement failed: column "nothing" of relation "tags" does not exist*',
    }.items():
        refused = measure(pytester, "--no-mlflow", "--writes", "good.sql", other)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        refused.stderr.fnmatch_lines([message])
    assert not list(pytester.path.glob("results/*.jsonl"))


@pytest.mark.slow
def test_a_database_of_the_users_is_never_written_to(pytester: pytest.Pytester, cache: Path, newest_scratch: Session) -> None:
    """Copies need permission; with it, neither the database nor the list of databases is another one afterwards."""
    newest_scratch.execute("CREATE TABLE t (id int PRIMARY KEY, v int)")
    newest_scratch.execute("INSERT INTO t SELECT i, 0 FROM generate_series(1, 100) AS i")
    databases = "SELECT datname FROM pg_database ORDER BY 1"
    before, where, name = newest_scratch.execute(databases), newest_scratch.parameters, newest_scratch.database
    newest_scratch.close()  # PostgreSQL copies idle databases only
    pytester.makefile(".sql", move="\\set id random(1, 100)\nUPDATE t SET v = v + 1 WHERE id = :id")
    queries = pytester.mkdir("queries")
    (queries / "all.sql").write_text("SELECT sum(v) FROM t")
    dsn = f"postgresql://{where['user']}@/{name}?host={where['host']}&port={where['port']}"
    chosen = ("--no-mlflow", "--server", dsn, "--queries-dir", "queries", "--generate-training", "0", "--writes", "move.sql")
    for more, why in (
        ((), "nobody has allowed that: add --allow-changes databases"),
        (("--read-only",), "--read-only forbids it"),
    ):
        refused = measured(pytester, *chosen, *more)
        assert refused.ret == pytest.ExitCode.USAGE_ERROR
        message = (
            f"ERROR: --writes move.sql would make the database 'pilotscope_{name}_...' on this server: {why}; or use --server embedded"
        )
        refused.stderr.fnmatch_lines([message])
    allowed = measured(pytester, *chosen, "--allow-changes", "databases")
    assert allowed.ret == 0, allowed.stdout.str()
    with connect(Dsn(dsn)) as session:
        assert session.execute("SELECT sum(v) FROM t") == [(0,)]
        assert session.execute(databases) == before


def measured(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the benchmark without the scale that `measure` gives, because a database of the user's has none."""
    pytester.makepyfile(test_workload=BENCHMARK)
    return pytester.runpytest_subprocess("test_workload.py", "--rounds", "2", *arguments)
