"""The Python in docs and README, as written, on a small run of the real thing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_pilotscope import load_workload
from tests.projects import measure

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def _blocks(document: str) -> list[str]:
    return BLOCK.findall((ROOT / document).read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.usefixtures("prepared_cache")
def test_the_examples_run_as_written(pytester: pytest.Pytester) -> None:
    """After one small run of mscn and of the baseline: both found by `MLflowTracker`, then the model at work, untrained."""
    # A run of some of the queries is no best run, so the workload itself has three.
    few = [query.sql for query in load_workload("stats_tiny", scale=0.01).test[:3]]
    (pytester.path / "few.sql").write_text(";\n".join(few) + ";\n", encoding="utf-8")
    for arguments in (("--algo", "baseline"), ("--algo", "mscn", "--epochs", "2", "--training-size", "100")):
        result = measure(pytester, "--queries-dir", "few.sql", *arguments)
        assert result.ret == 0, result.stdout.str()
    blocks = _blocks("docs/python.md")
    assert len(blocks) >= 3
    # The examples say `stats_tiny`; the same name at a smaller scale keeps this test short.
    shorter = 'PostgreSQLConfig(db="stats_tiny")'
    program = "\n".join(blocks).replace(shorter, 'PostgreSQLConfig(db="stats_tiny", scale=0.01)')
    program = program.replace('load_workload("stats_tiny").test', 'load_workload("stats_tiny", scale=0.01).test[:5]')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], cwd=pytester.path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"mscn_stats_tiny_\d{8}_\d{6}: [0-9.]+ s, baseline [0-9.]+ s, improvement -?[0-9.]+ %", done.stdout)
    assert len(re.findall(r"^q00\d: 1 row in ", done.stdout, re.MULTILINE)) == 5
