"""
Cost of a change of settings and of a search, and SMAC beside random search with the same number of trials.

    pytest benchmarks/speed/test_knob.py
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter_ns

import pytest

from benchmarks.speed.conftest import provisioned, train, workload_of
from pytest_pilotscope.algorithms.knob.measuring import compare, select_queries
from pytest_pilotscope.algorithms.knob.trial_server import open_trial_server, prepared_database, reach_of, space_of
from pytest_pilotscope.algorithms.knob.tuning import KnobOptions, KnobTuning
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.provision.database import Database
from pytest_pilotscope.record.results import TrainingReport

TRIALS = 50
ROUNDS = 10
Show = Callable[[str], None]


@pytest.fixture(scope="module")
def stats() -> Iterator[Database]:
    """Open STATS on the default PostgreSQL."""
    with provisioned() as database:
        yield database


def test_applying(stats: Database, show: Show) -> None:
    """Settings of each level come into force; the report has the times until they are checked."""
    with stats.session() as session:
        reach = reach_of(stats)
        space = space_of(session, reach, None)
    knobs = {"session": "work_mem", "reload": "bgwriter_lru_maxpages", "restart": "shared_buffers"}
    with open_trial_server(stats, space, reach) as trial_server:
        for level, name in knobs.items():
            times_ms = []
            for number in range(ROUNDS):
                values = space.complete({name: str(20_000 + number if level != "reload" else 200 + number)})
                started_ns = perf_counter_ns()
                assert trial_server.apply(values) == level
                times_ms.append((perf_counter_ns() - started_ns) / 1e6)
            show(f"{level}: {statistics.median(times_ms):.1f} ms, at most {max(times_ms):.1f} ms")


def test_smac_beside_chance(stats: Database, tmp_path: Path, show: Show) -> None:
    """Both search the same space with the same queries; each result is then measured against the default in turns."""
    workload = workload_of(stats)
    options = KnobOptions(**builtin_registry().options("knob", {"knob": {"trials": TRIALS, "trial_s": 1.0}}), seed=0)
    on_test: dict[str, float] = {}
    for strategy in ("smac", "random"):
        algorithm = KnobTuning(replace(options, strategy=strategy))
        (tmp_path / strategy).mkdir()
        report = train(algorithm, stats, tmp_path / strategy)
        show(f"{strategy}: {described(report)}")
        best = best_values(Path(report.artifacts[-3]))
        with stats.session() as default, prepared_database(stats, best) as prepared, prepared.session() as candidate:
            selected = select_queries(default, workload.test, trial_s=5.0, seed=0)
            speedup = compare(default, candidate, selected, target="total_time", rounds=3, seed=0).inverse
        on_test[strategy] = speedup.estimate
        show(
            f"{strategy}: on {len(selected.queries)} test queries its best settings are {speedup.estimate:.3f} times as fast as the "
            f"default [{speedup.low:.3f}, {speedup.high:.3f}]"
        )
    ratio = on_test["smac"] / on_test["random"]
    show(f"best of {TRIALS} trials, on the test queries: chance needs {ratio:.3f} times as long as SMAC")


def best_values(path: Path) -> dict[str, str]:
    """Return the changed settings of the last `knob_config_iteration_<n>.json`."""
    import json

    changed: dict[str, str] = json.loads(path.read_text())["changed"]
    return changed


def described(report: TrainingReport) -> str:
    """Return the figures of a search in a sentence."""
    scalars = report.scalars
    trials = ", ".join(f"{scalars[f'knob_trials_{status}']} {status}" for status in ("ok", "capped", "failed"))
    return (
        f"default {scalars['default_performance']:.3f} s, best {scalars['best_performance']:.3f} s; {trials}; "
        f"{scalars['knob_restarts']} restarts of {scalars['knob_restart_seconds']:.2f} s; "
        f"{scalars['knob_optimization_time_seconds']:.0f} s in all, search {1000 * scalars['knob_search_seconds']:.0f} ms per trial; "
        f"confirmed: {bool(scalars['knob_confirmed'])} ({scalars.get('knob_speedup', 1):.3f} times as fast)"
    )
