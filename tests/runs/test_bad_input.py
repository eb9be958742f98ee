"""Impossible requests end with exit code 4 and one line, and nothing is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import UnknownName
from tests.projects import BENCHMARK, measure

ALGORITHMS = [entry.name for entry in builtin_registry().algorithms]
DATASETS = [entry.name for entry in builtin_registry().datasets]


@pytest.fixture(autouse=True)
def _nobodys_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algo", "mscm"], str(UnknownName("algorithm", "mscm", ALGORITHMS))),
        (
            ["--db", "stats_tny"],
            f"unknown dataset 'stats_tny'; did you mean 'stats_tiny' or 'stats' or 'stats_small'? known: {', '.join(sorted(DATASETS))}; "
            "name a database of yours with --server postgresql://HOST/stats_tny, or its dump with --dump",
        ),
        (
            ["--db", "shoplive", "--server", "postgresql://reader@127.0.0.1:1/My Shop"],
            "--server names database 'My Shop'; leave --db out, or write --db 'My Shop'",
        ),
        (
            ["--db", "stats_tny", "--server", "postgresql://reader@127.0.0.1:1/Shop"],
            f"unknown dataset 'stats_tny'; did you mean 'stats_tiny' or 'stats' or 'stats_small'? known: {', '.join(sorted(DATASETS))}; "
            "--server names database 'Shop'; leave --db out, or write --db Shop",
        ),
        (
            ["--db", "imdb", "--data-dir", "nowhere"],
            "dataset 'imdb': there is no nowhere; --data-dir names a file or a folder with the data",
        ),
        (
            ["--db", "shop", "--dump", "shop.dump"],
            "there is no dump shop.dump; make it with pg_dump or pilotscope clone, and name it with --dump",
        ),
        (["--db", "shop,mart", "--dump", "shop.dump"], "--dump shop.dump is the data of one database; name one with --db, not 2"),
        (["--queries", "z*"], "--queries z* matches none of the 146 test queries (ids: q001 .. q146); nothing to measure"),
        (
            ["--algo", "baseline", "-n2"],
            "times taken beside other workers are noise: measure without -n (or with -n0); collecting and training alone (--no-measure) "
            "may use it",
        ),
        (
            ["--load-model", "nonsense"],
            "no model 'nonsense': give best, a run id of 32 hex digits, models:/NAME/VERSION, or the path of an existing folder",
        ),
        (["--register-model"], "--register-model registers in MLflow, which --no-mlflow switches off; leave one of them out"),
        (["--results", "test_workload.py"], "--results test_workload.py: test_workload.py is a file; name a folder"),
        (["--results", "test_workload.py/in"], "--results test_workload.py/in: test_workload.py is a file; name a folder"),
        (["--no-training", "--algo", "mscn"], "--no-training needs a model: add --load-model best|RUN_ID|PATH|models:/NAME/VERSION"),
    ],
)
def test_usage_errors(pytester: pytest.Pytester, arguments: list[str], message: str) -> None:
    """Exit code 4 and the message, without a traceback."""
    pytester.makepyfile(test_workload=BENCHMARK)
    result = pytester.runpytest_inprocess("--no-mlflow", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.stderr.lines if line]
    assert len(lines) == 1, lines
    assert lines[0] == f"ERROR: {message}"
    assert not (pytester.path / "results").exists()


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="no folder here in which nobody can make a file")
def test_scripts_that_would_never_run(pytester: pytest.Pytester) -> None:
    """A run with `--writes` whose rounds have no script would say that it measured beside them."""
    pytester.makefile(".sql", writes="UPDATE users SET views = 1")
    pytester.makepyfile(test_workload=BENCHMARK)
    result = pytester.runpytest_inprocess("--no-mlflow", "--limit", "3", "--writes", "writes.sql", "--writes-per-query", "0.1")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    message = "--writes-per-query 0.1: beside 3 queries no script would run; give at least 0.33, or measure more queries"
    assert [line for line in result.stderr.lines if line] == [f"ERROR: {message}"]


def test_results_that_cannot_be_written(pytester: pytest.Pytester) -> None:
    """The message has the system's reason, and nothing is started."""
    with pytest.raises(OSError, match=r"/proc/in") as refused:
        Path("/proc/in").touch()
    pytester.makepyfile(test_workload=BENCHMARK)
    result = pytester.runpytest_inprocess("--no-mlflow", "--results", "/proc/in")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    message = f"--results /proc/in: nothing can be written to /proc ({refused.value.strerror}); name another folder"
    assert [line for line in result.stderr.lines if line] == [f"ERROR: {message}"]


def test_a_server_that_does_not_answer(pytester: pytest.Pytester) -> None:
    """The message names the server and PostgreSQL's reason; the password is nowhere in the output, and nothing is recorded."""
    pytester.makepyfile(test_workload=BENCHMARK)
    result = pytester.runpytest_inprocess("--no-mlflow", "-l", "--server", "postgresql://me:s3cret@127.0.0.1:1/mine")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line]
    assert line.startswith("ERROR: ")
    assert "127.0.0.1" in line
    assert "Connection refused" in line
    assert "s3cret" not in result.stdout.str() + result.stderr.str()
    assert not (pytester.path / "results").exists()


def test_a_broken_query_file(pytester: pytest.Pytester) -> None:
    """The message names file and line, and nothing is started."""
    pytester.makepyfile(test_workload=BENCHMARK)
    (pytester.path / "mine.sql").write_text("SELECT count(*) FROM users;\nSELECT 'never closed;\n")
    result = pytester.runpytest_inprocess("--no-mlflow", "--queries-dir", "mine.sql", "--server", "postgresql://me@127.0.0.1:1/mine")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line]
    assert line.startswith("ERROR: mine.sql:2: ")
    assert not (pytester.path / "results").exists()


@pytest.mark.parametrize(
    ("split", "sql", "reason", "more"),
    [
        pytest.param("test", "SELECT FROM WHERE", 'syntax error at or near "WHERE"', "", marks=pytest.mark.slow),
        pytest.param("train", "SELECT count(*) FROM people", 'relation "people" does not exist', "", marks=pytest.mark.slow),
        (
            "train",
            "SELECT count(*) FROM users WHERE id = 'one'",
            'invalid input syntax for type integer: "one"',
            ";\nSELECT 1 / 0;\nSELECT;\nSELECT nothing",
        ),
    ],
)
def test_queries_that_postgresql_refuses(split: str, sql: str, reason: str, more: str, pytester: pytest.Pytester) -> None:
    """PostgreSQL's reason is shown with file and line, and with the lines of other refused queries, before any training."""
    for name in ("test", "train"):
        (pytester.path / f"{name}.sql").write_text(f"SELECT count(*) FROM {'users' if name == 'test' else 'posts'};\n")
    with (pytester.path / f"{split}.sql").open("a") as file:
        file.write(f"\n{sql}{more};\n")
    result = measure(pytester, "--no-mlflow", "--queries-dir", ".")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line]
    others = f" (refused, too: {split}.sql:4, {split}.sql:6)" if more else ""
    assert line == f"ERROR: {split}.sql:3: {reason}; mend this query: {sql}{others}"
    assert not (pytester.path / "results").exists()
