"""Objectives, the log of trials, and the loop without a real server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.algorithms.knob.measuring import Pass, compare, run_pass, select_queries
from pytest_pilotscope.algorithms.knob.objective import WORST, Target
from pytest_pilotscope.algorithms.knob.space import KnobSpace, Values, knob_space
from pytest_pilotscope.algorithms.knob.trial_server import Reach
from pytest_pilotscope.algorithms.knob.trials import Proposal, Trial, best_trial, open_log, search_key
from pytest_pilotscope.algorithms.knob.tuner import Tuner
from pytest_pilotscope.algorithms.knob.tuning_report import Found, scalars, series, write_configurations
from pytest_pilotscope.errors import AlgorithmError, ServerError
from pytest_pilotscope.postgres.knobs import LEVELS
from pytest_pilotscope.statistics.intervals import Interval
from tests.algorithms.knob_clock import QUERIES, SELECTED, Tried, clock, objective, times
from tests.algorithms.test_knob_space import MACHINE, ROWS

__all__ = ["clock"]  # a fixture


def test_targets() -> None:
    """Sum, 95th percentile by rank (19th of 20), mean; throughput is reported in queries per second."""
    measured = [float(n) for n in range(1, 21)]
    assert objective("total_time").cost(measured) == 210
    assert objective("p95_time").cost(measured[::-1]) == 19
    assert objective("p99_time").cost(measured) == 20
    assert objective("throughput").cost(measured) == 10.5
    assert objective("throughput").performance(0.5) == 2
    assert objective("p95_time").performance(0.5) == 0.5


@pytest.mark.parametrize(("target", "factor", "expected_runs"), [("total_time", 2.9, 11), ("throughput", 2.9, 11), ("p95_time", 2.9, 2)])
def test_a_hopeless_trial_is_cut_off(target: Target, factor: float, expected_runs: int) -> None:
    """At 1.5 times the incumbent, as soon as the rest cannot save it: p95 allows one slow query in twenty."""
    incumbent = objective(target).cost(SELECTED.default_s)
    session = times(factor)
    result = run_pass(session, SELECTED, objective(target), 1.5 * incumbent)  # type: ignore[arg-type]
    assert result.capped
    assert len(session.runs) == len(result.times_s) == expected_runs
    assert objective(target).extrapolated(result.times_s, SELECTED.default_s) == pytest.approx(factor * incumbent, rel=0.1)


def test_a_query_is_not_waited_for_longer_than_the_trial_has_left() -> None:
    """The statement timeout of the third query is what 1.5 x 2 s leaves; a trial that runs to its end is not cut off."""
    session = times(q2=50.0)
    result = run_pass(session, SELECTED, objective(), 3.0)  # type: ignore[arg-type]
    assert (session.runs, result.capped) == (["0", "1", "2"], True)
    assert session.limit_s == pytest.approx(1.0)  # 10 times its default, at least 1 s
    assert run_pass(times(1.4), SELECTED, objective(), 3.0) == Pass(times_s=(0.1 * 1.4,) * 20, capped=False)  # type: ignore[arg-type]


def test_extrapolation_is_bounded() -> None:
    """However slow the first query was, the trial counts as ten times the default at most."""
    assert objective().extrapolated([1000.0], SELECTED.default_s) == WORST * sum(SELECTED.default_s)
    assert objective().extrapolated([1.0], (0.0, 1.0)) == WORST


def test_queries_are_drawn_until_a_trial_is_full() -> None:
    """In an order that depends on the seed alone; those that take more than a quarter of a trial are left out and counted."""
    session = times(q3=9.0, q4=9.0)
    selected = select_queries(session, QUERIES, trial_s=0.95, seed=0)  # type: ignore[arg-type]
    assert len(selected.queries) == 10
    assert selected == select_queries(times(q3=9.0, q4=9.0), QUERIES, trial_s=0.95, seed=0)  # type: ignore[arg-type]
    everything = select_queries(times(q3=99.0, q4=99.0), QUERIES, trial_s=100.0, seed=0)  # type: ignore[arg-type]
    assert (len(everything.queries), everything.too_long) == (18, 2)
    expected = "none of the 20 queries runs within 0.02 s with the default settings, a quarter of a trial; raise --knob-trial-s (now 0.08)"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(expected)}$"):
        select_queries(times(), QUERIES, trial_s=0.08, seed=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["total_time", "p95_time", "p99_time", "throughput"])
def test_comparing_in_turns(target: Target) -> None:
    """Half the time is found as half the time, and both sides run equally often."""
    default, candidate = times(), times(0.5)
    ratio = compare(default, candidate, SELECTED, target=target, rounds=3, seed=0)  # type: ignore[arg-type]
    assert (ratio.low, ratio.estimate, ratio.high) == pytest.approx((0.5, 0.5, 0.5))
    assert default.runs == candidate.runs
    assert len(default.runs) == 80


@dataclass
class Listed:
    """A search that proposes what it was given, and remembers what it was told."""

    space: KnobSpace
    proposals: Sequence[Values]
    told: list[tuple[str, float]] = field(default_factory=list)
    asked: int = 0

    def ask(self) -> Proposal:
        """The next in the list."""
        values = self.space.complete(self.proposals[self.asked])
        self.asked += 1
        return Proposal(values, {"n": self.asked})

    def tell(self, values: Values, cost: float, *, point: Mapping[str, Any] | None = None) -> None:
        """Remember."""
        self.told.append((values["random_page_cost"], cost))


PROPOSALS = ({"random_page_cost": "2"}, {"random_page_cost": "8"}, {"shared_buffers": "2048"}, {"random_page_cost": "2.8"})


def tuner(folder: Path, log: Any, search: Listed, trial_server: Tried) -> Tuner:
    """Make the loop with a fake server."""
    return Tuner(space=search.space, trial_server=trial_server, search=search, log=log, objective=objective(), selected=SELECTED, cap=1.5)


@pytest.fixture
def search() -> Listed:
    """Four proposals: better, hopeless, refused, in between."""
    return Listed(space=knob_space(ROWS, MACHINE, LEVELS), proposals=PROPOSALS)


def test_the_loop(tmp_path: Path, search: Listed) -> None:
    """Trial 0 is the default; a hopeless trial is cut off, a refused one gets a bounded penalty, and every cost is told."""
    with open_log(tmp_path, "k") as log:
        log.begin("k", {})
        loop = tuner(tmp_path, log, search, trial_server := Tried())
        steps: list[int] = []
        loop.run(5, steps.append)
        trials = log.trials
    assert [trial.status for trial in trials] == ["ok", "ok", "capped", "failed", "ok"]
    assert [round(trial.cost, 6) for trial in trials] == [2.0, 1.0, 3.75, 4.0, 1.4]
    assert trials[3].message == "PostgreSQL stopped while starting"
    assert search.told == [(trial.values["random_page_cost"], trial.cost) for trial in trials]
    assert trial_server.applied[0] == search.space.defaults == trials[0].values
    assert loop.incumbent_cost == pytest.approx(1.0)
    assert best_trial(trials).number == 1
    assert steps == [1] * 5


def test_a_search_is_resumed(tmp_path: Path, search: Listed) -> None:
    """Logged trials are told to the search and not tried again; the rest follows."""
    with open_log(tmp_path, "k") as log:
        log.begin("k", {"queries": ["q0"]})
        tuner(tmp_path, log, search, Tried()).run(3, lambda n: None)
    first = list(search.told)
    again = Listed(space=search.space, proposals=PROPOSALS[2:])
    with open_log(tmp_path, "k") as log:
        assert log.common == {"queries": ["q0"]}
        trial_server = Tried()
        tuner(tmp_path, log, again, trial_server).run(5, lambda n: None)
        assert [trial.number for trial in log.trials] == list(range(5))
    assert again.told[:3] == first
    assert again.asked == 2


def test_a_default_that_fails_is_no_trial(tmp_path: Path, search: Listed) -> None:
    """There is nothing to compare with."""
    trial_server = Tried()
    trial_server.apply = lambda values: (_ for _ in ()).throw(ServerError("disk full"))  # type: ignore[method-assign]
    expected = "the training queries fail with the settings that the server has, so there is nothing to tune: disk full"
    with open_log(tmp_path, "k") as log, pytest.raises(AlgorithmError, match=f"^{re.escape(expected)}$"):
        tuner(tmp_path, log, search, trial_server).run(5, lambda n: None)


def test_a_server_that_is_lost_is_no_trial(tmp_path: Path, search: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The search ends with the error, and what was tried when the server went away is not in the log."""
    answers = iter("yes" for _ in range(4))  # before each of the first four trials, and not after the last one, which is refused

    def ready(_: Tried) -> None:
        if next(answers, "no") == "no":
            raise ServerError("it stays away")

    monkeypatch.setattr(Tried, "ready", ready)
    with open_log(tmp_path, "k") as log:
        log.begin("k", {})
        with pytest.raises(ServerError, match=r"^it stays away$"):
            tuner(tmp_path, log, search, Tried()).run(5, lambda n: None)
        assert [trial.status for trial in log.trials] == ["ok", "ok", "capped"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from pytest_pilotscope.algorithms.knob.trial_server import Reach
from pytest_pilotscope.algorithms.knob.trials import Proposal, Trial, open_log

with open_log(Path(sys.argv[1]), "k") as log:
    log.begin("k", {"a": 1})
    for number in range(3):
        log.append(Trial(number=number, values={}, status="ok", cost=1.0, applied=None, apply_s=0, search_s=0, elapsed_s=1))
    with log.path.open("a") as file:
        file.write('{"number": 3, "val')
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_after_kill_9_the_trials_are_there(tmp_path: Path) -> None:
    """A line that was cut off is dropped, the lock is free, and the file goes on after the last whole line."""
    subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False, cwd=Path(__file__).parents[2])
    with open_log(tmp_path, "k") as log:
        assert [trial.number for trial in log.trials] == [0, 1, 2]
        log.append(log.trials[0])
    assert [json.loads(line).get("number") for line in log.path.read_text().splitlines()] == [None, 0, 1, 2, 0]


def test_two_processes_do_not_write_to_one_file(tmp_path: Path) -> None:
    """The second one gets a file of its own."""
    with open_log(tmp_path, "k") as first, open_log(tmp_path, "k") as second:
        first.begin("k", {})
        assert second.path != first.path
        assert second.trials == []


@pytest.mark.parametrize("text", ["", "{}\n", "[1]\n", '{"key": "other", "common": {}}\n', '{"key": "k", "common": {}}\n{"x": 1}\n'])
def test_a_file_that_cannot_be_read_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str) -> None:
    """And says so."""
    (tmp_path / "knob_k.jsonl").write_text(text)
    with open_log(tmp_path, "k") as log:
        assert (log.trials, log.common) == ([], {})
    assert re.match(rf"^{tmp_path}/knob_k\.jsonl cannot be read \(.*\); the search starts anew$", caplog.messages[0])


def test_the_key_depends_on_everything() -> None:
    """Sixteen hex digits; another seed is another search."""
    assert re.fullmatch("[0-9a-f]{16}", search_key({"seed": 0}))
    assert search_key({"seed": 0}) != search_key({"seed": 1})
    assert search_key({"a": 1, "b": 2}) == search_key({"b": 2, "a": 1})


def trial(number: int, status: Any, cost: float, **other: Any) -> Trial:
    """A trial of which only some fields matter."""
    known = {"applied": "restart", "apply_s": 0.2, "search_s": 0.05, "elapsed_s": 1.0, "values": {}}
    return Trial(number=number, status=status, cost=cost, **{**known, **other})


def test_figures(tmp_path: Path) -> None:
    """The fixed names, the running incumbent, and one artifact per improvement."""
    space = knob_space(ROWS, MACHINE, LEVELS, names=["geqo", "work_mem"])
    trials = [
        trial(0, "ok", 4.0, values=space.defaults, applied=None),
        trial(1, "capped", 1.0),
        trial(2, "ok", 2.0, values={**space.defaults, "geqo": "off"}),
        trial(3, "failed", 8.0, applied=None),
        trial(4, "ok", 3.0),
    ]
    assert series(trials) == {
        "trial_cost": [4.0, 1.0, 2.0, 8.0, 3.0],
        "incumbent_cost": [4.0, 4.0, 2.0, 2.0, 2.0],
        "knob_optimization_time_seconds": [1.0] * 5,
    }
    found = Found(
        space=space,
        reach=Reach(levels=LEVELS, own=True),
        trials=trials,
        objective=objective("throughput"),
        selected=SELECTED,
        confirmed=Interval(estimate=0.5, low=0.4, high=0.8),
        values={"geqo": "off"},
    )
    figures = {
        "knob_trials_seconds": 5.0,
        "best_performance": 0.5,
        "default_performance": 0.25,
        "num_knobs_tuned": 2,
        "num_knobs_changed": 1,
        "num_knob_queries": 20,
        "num_knob_queries_too_long": 0,
        "knob_trials_ok": 3,
        "knob_trials_capped": 1,
        "knob_trials_failed": 1,
        "knob_restarts": 3,
        "knob_restart_seconds": 0.2,
        "knob_search_seconds": pytest.approx(0.05),
        "knob_confirmed": 1,
        "knob_validation_speedup": 2.0,
        "knob_speedup": 2.0,
        "knob_speedup_ci_low": 1.25,
        "knob_speedup_ci_high": 2.5,
    }
    assert scalars(found) == figures
    stays = scalars(replace(found, confirmed=None, values={}))
    assert {name: stays[name] for name in ("knob_confirmed", "knob_validation_speedup")} == {
        "knob_confirmed": 0,
        "knob_validation_speedup": 1,
    }
    assert "knob_speedup" not in stays
    paths = write_configurations(tmp_path, trials, space, {"geqo": "off"})
    assert [path.name for path in paths] == ["knob_config_iteration_0.json", "knob_config_iteration_2.json", "knob_space.json"]
    assert json.loads(paths[1].read_text())["changed"] == {"geqo": "off"}
