"""What a user sees who asked for something impossible: exit code 4, one line, nothing started."""

from __future__ import annotations

import pytest

from tests.projects import BENCHMARK


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algo", "mscm"], "unknown algorithm 'mscm'; did you mean 'mscn'? known: "),
        (["--db", "stats_tny"], "unknown dataset 'stats_tny'; did you mean 'stats_tiny'? known: "),
        (["--queries", "z*"], "--queries z* matches none of the 146 test queries (ids: q001 .. q146); nothing to measure"),
        (
            ["--algo", "baseline", "-n2"],
            "times taken beside other workers are noise: measure without -n (or with -n0); training, labelling and tests may use it",
        ),
        (["--no-training", "--algo", "mscn"], "--no-training needs a model: add --load-model best|RUN_ID|PATH|models:/NAME/VERSION"),
    ],
)
def test_usage_errors(pytester: pytest.Pytester, arguments: list[str], message: str) -> None:
    """Exit code 4 and the message, without a traceback."""
    pytester.makepyfile(test_workload=BENCHMARK)
    result = pytester.runpytest_subprocess("--no-mlflow", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.stderr.lines if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"ERROR: {message}")
    assert not (pytester.path / "results").exists()
