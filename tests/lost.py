"""A measurement whose server is lost in the middle."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import AlgorithmError, ServerError
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.runs.bench import Bench
from pytest_pilotscope.runs.cases import Case
from pytest_pilotscope.runs.finished import FinishedRun
from pytest_pilotscope.runs.single import BenchmarkRun
from tests.toy import Toy


def measure_and_lose(results: Path, server: str, lose: Callable[[BenchmarkRun], None], *, expected: str) -> FinishedRun:
    """Measure the toy's three queries, and call `lose` after the first; the error must be the `expected` one."""
    registry = builtin_registry()
    registry.add_dataset("toy", lambda **_: Toy(test_queries=3), origin=__name__)
    settings = Settings(algorithms=("baseline",), datasets=("toy",), rounds=1, results=results, mlflow=False, server=server)
    bench = Bench(settings=settings, registry=registry, say=lambda text: None, progress=lambda text, total: nullcontext(lambda steps: None))
    with closing(bench):
        with pytest.raises((ServerError, AlgorithmError), match=expected):
            _measure(bench, lose)
        return bench.finished[0]


def _measure(bench: Bench, lose: Callable[[BenchmarkRun], None]) -> None:
    with bench.open_run(Case(algorithms=("baseline",), dataset="toy")) as run:
        assert isinstance(run, BenchmarkRun)
        for query, problems in run.measure_all():
            assert bool(problems) == (query.id == "q3")
            if query.id == "q2":
                lose(run)
