"""Many runs in one process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.playing import Basis, project_of
from tests.faults.program import LIMIT_S, Program
from tests.faults.table import cell

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]

RUNS = 40
SETTLED = 10
"""Runs after which everything that is loaded or made once is there."""
ALLOWED_KB = 50
"""Growth per run. A leak of one plan or one parsed statement per query is several times as much."""

SOAK = f"""
import ctypes, gc, json, os, sys
from contextlib import closing, nullcontext
from pathlib import Path
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.runs.bench import Bench
from pytest_pilotscope.runs.cases import Case
from tests.faults.algorithm import pytest_pilotscope_register

def resident_kb():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024

registry = builtin_registry()
pytest_pilotscope_register(registry)
settings = Settings(algorithms=("watched",), datasets=("stats_tiny",), scale=0.01, rounds=1, limit=10, training_size=3)
bench = Bench(settings=settings, registry=registry, say=print, progress=lambda text, total: nullcontext(lambda steps: None))
sizes = []
with closing(bench):
    for _ in range({RUNS}):
        with bench.open_run(Case(algorithms=("watched",), dataset="stats_tiny")) as run:
            assert not [problems for _, problems in run.measure_all() if problems]
        bench.finished.clear()
        sizes.append(resident_kb())
Path("sizes.json").write_text(json.dumps(sizes))
"""


def test_forty_runs(basis: Basis, tmp_path: Path) -> None:
    """40 runs in one process, each recorded and sent to MLflow, need as much memory as ten."""
    with project_of(cell("executing", "nothing", 0, "FINISHED", ""), basis, tmp_path) as project:
        (tmp_path / "soak.py").write_text(SOAK, encoding="utf-8")
        with Program(project, ["soak"], environment={}) as program:
            ended = program.end(10 * LIMIT_S)
        assert ended.code == 0, ended.output
        assert [record.status for record in project.records()] == ["FINISHED"] * RUNS
        assert project.statuses() == ["FINISHED"] * RUNS
        sizes = json.loads((tmp_path / "sizes.json").read_text())
        growth_kb = (sizes[-1] - sizes[SETTLED - 1]) / (RUNS - SETTLED)
        assert growth_kb < ALLOWED_KB, sizes
