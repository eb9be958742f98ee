"""
The time of queries when several algorithms share one baseline, beside that of a run for each.

    pytest benchmarks/speed/test_shared_baseline.py

Both measure `--algo baseline,oracle,mscn` on the first 30 test queries of `stats_tiny`, with 5 rounds. Apart, each algorithm has a baseline
of its own, and the baseline by itself has a second one. Warm-ups count, and so does inference. On a busy machine the ratio scatters; the
times of the sides within one measurement tell what it is without that: all of them had the same load. MSCN learns for 5 epochs only.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import MissingServer
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.runs.bench import Bench
from pytest_pilotscope.runs.cases import Case, cases_of

ALGORITHMS = ("baseline", "oracle", "mscn")


def _measured(bench: Bench, cases: Sequence[Case]) -> list[Record]:
    """Open these cases, which take turns, and return their records."""
    before = len(bench.finished)
    bench.to_open = Counter(cases)
    for case in cases:
        with bench.open_run(case) as run:
            assert not any(problems for _, problems in run.measure_all())
    return [finished.record for finished in bench.finished[before:]]


def _side_s(record: Record, side: str) -> float:
    return sum(run.end_to_end_ms for run in record.runs if run.side == side) / 1e3


def test_query_time(show: Callable[[str], None]) -> None:
    """Measure together, apart, and together again, so that a machine that grows slower shows."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(algorithms=ALGORITHMS, datasets=("stats_tiny",), limit=30, epochs=5, mlflow=False, results=Path(folder))
        cases = cases_of(settings)
        bench = Bench(settings=settings, registry=builtin_registry(), say=show, progress=silent, cases=cases)
        with closing(bench):
            try:
                bench.provision()
            except MissingServer as error:
                pytest.skip(str(error))
            together = [_measured(bench, cases)]
            apart = [record for case in cases for record in _measured(bench, [case])]
            together.append(_measured(bench, cases))
    apart_s = sum(_side_s(record, side) for record in apart for side in record.header.sides)
    for records in together:
        baseline_s, *others_s = (_side_s(record, side) for record, side in zip(records, ALGORITHMS, strict=True))
        together_s = baseline_s + sum(others_s)
        steady = (4 * baseline_s + sum(others_s)) / together_s
        show(f"queries apart {apart_s:.2f} s, together {together_s:.2f} s: {apart_s / together_s:.2f} times as long; by sides {steady:.2f}")
