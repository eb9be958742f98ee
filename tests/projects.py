"""Small pytest projects that measure, in a pytest of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = (Path(__file__).resolve().parents[1] / "benchmarks" / "test_workload.py").read_text(encoding="utf-8")
"""The module that `pytest benchmarks` runs."""

SMALL = ("--scale", "0.01", "--rounds", "2")
"""Enough to go the whole way, too little to say anything."""


def measure(pytester: pytest.Pytester, *arguments: str, conftest: str = "") -> pytest.RunResult:
    """Run the benchmark on a small generated dataset in an empty project; its tracking store and results are in the project."""
    pytester.makepyfile(test_workload=BENCHMARK)
    if conftest:
        pytester.makeconftest(conftest)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PYTEST_XDIST_WORKER", raising=False)  # the inner pytest is nobody's worker
        return pytester.runpytest_subprocess("test_workload.py", *SMALL, *arguments)


def record_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of the only record in a project."""
    (path,) = (folder / "results").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary(folder: Path) -> dict[str, Any]:
    """The summary of the only run in a project."""
    (path,) = (folder / "results").glob("*.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
