"""The test of `pytest benchmarks --algo NAME --db NAME`: one per algorithm and dataset, one subtest per query."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from pytest_pilotscope.runs.shared import MeasuredRun
from pytest_pilotscope.runs.single import BenchmarkRun

OpenRun = Callable[[], AbstractContextManager[BenchmarkRun | MeasuredRun]]


def test_workload(pilotscope_run: OpenRun, subtests: pytest.Subtests) -> None:
    """Every test query runs to its end on every side, with the same answer, and PostgreSQL follows the steering."""
    with pilotscope_run() as run:
        for query, problems in run.measure_all():
            with subtests.test(query.id):
                assert not problems, "\n".join(problems)
