"""Every verdict says how small a slow-down the run would have caught; rounds go on until that is enough."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pytest_pilotscope.gate import power
from pytest_pilotscope.gate.exact_figures import Regression
from pytest_pilotscope.gate.noise import Noise
from pytest_pilotscope.gate.power import largest_seen, power_of, sees_enough
from pytest_pilotscope.gate.rules import GateReport, Policy, decide, decide_against_baseline, describe_power, gate_pairs
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.statistics.intervals import increases_until_certain, mean_ratios
from pytest_pilotscope.statistics.pairs import Pairs
from tests.gate.noise import Machine, a_against_a, recorded
from tests.gate.power import MOST_ROUNDS, alarm, auto, first, sessions
from tests.record.building import record_of

MACHINES = ("quiet_noise", "loaded_noise")
DELTAS = (Policy().delta, Policy().query_delta)


def run_of_pairs(pairs: Pairs) -> Record:
    """Return the record of a run of mscn with these times."""
    sides = {"baseline": pairs.baseline_ms, "mscn": pairs.candidate_ms}
    return record_of({side: dict(zip(pairs.query_ids, ms.tolist(), strict=True)) for side, ms in sides.items()})


def judged(name: str, policy: Policy) -> GateReport:
    """Gate a recorded A/A run against itself."""
    run = run_of_pairs(recorded(name))
    return decide(run, run, policy)


def test_a_quiet_run_passes_and_a_noisy_one_says_what_it_was_blind_to() -> None:
    """The verdict on the noise of a quiet machine is a plain pass; that on a loaded one names both slow-downs, and warns or fails."""
    quiet = judged("quiet_noise", Policy())
    assert (quiet.verdict, quiet.exit_code, quiet.blind) == ("PASSED", 0, "")
    loaded = judged("loaded_noise", Policy())
    assert loaded.verdict == f"PASSED, but blind below {loaded.blind}"
    assert loaded.blind == "15.4 %, 312 % for a single query"
    assert (loaded.exit_code, judged("loaded_noise", Policy(on_blind="fail")).exit_code) == (0, 1)
    assert judged("quiet_noise", Policy(on_blind="fail")).exit_code == 0


def test_larger_deltas_need_less() -> None:
    """A loaded machine sees enough for a gate that allows 20 % and a query five times as long; each delta counts by itself."""
    assert judged("loaded_noise", Policy(delta=0.2, query_delta=4.0)).verdict == "PASSED"
    assert judged("loaded_noise", Policy(delta=0.2)).blind.endswith(" for a single query")
    assert "query" not in judged("loaded_noise", Policy(query_delta=4.0)).blind


def test_every_verdict_states_what_it_would_have_caught() -> None:
    """The lines of a pass, of a blind pass and of a regression, against a reference and against the run's own baseline."""
    stated = "  mscn: this run would have caught, 19 times in 20, a workload slower by {} %, or a single query slower by {} %"
    assert describe_power(judged("quiet_noise", Policy())) == (stated.format("4.4", "27.9"),)
    assert describe_power(judged("loaded_noise", Policy(on_blind="fail"))) == (
        stated.format("15.4", "312"),
        "  blind: a gate with these deltas should catch 6.1 % and for a single query 44.0 %, so it does not pass (--gate-on-blind fail); "
        "measure with --rounds auto, or on a quieter machine",
    )
    own = decide_against_baseline(run_of_pairs(recorded("quiet_noise")), Policy())
    assert describe_power(own) == (stated.format("4.0", "25.7"),)
    slower = recorded("quiet_noise")
    regressed = decide_against_baseline(run_of_pairs(a_against_a(slower.baseline_ms, slower.candidate_ms * 1.5)), Policy())
    assert (regressed.verdict, len(describe_power(regressed))) == ("REGRESSED", 1)


@pytest.mark.parametrize("name", MACHINES)
def test_what_is_stated_is_caught_nineteen_times_in_twenty(name: str) -> None:
    """Of 100 pairs of sessions with the recorded noise, the gate catches the stated slow-downs in 90 at least."""
    run = recorded(name)
    random, noise = np.random.default_rng(3), replace(Noise.of(run), rounds=run.rounds)
    stated = power_of(run, run, *DELTAS)
    drawn = [[first(one, run.rounds) for one in sessions(noise, 100, random)] for _ in range(2)]
    for change in ((1 + stated.workload, 1.0), (1.0, 1 + stated.query)):
        assert sum(alarm(now, before, *change) for now, before in zip(*drawn, strict=True)) >= 90


def test_a_slow_down_well_below_what_is_stated_is_missed() -> None:
    """The statement is no excuse: half of it (as a logarithm, beyond the delta) is caught in fewer than 60 of 100 sessions."""
    run = recorded("loaded_noise")
    random, noise = np.random.default_rng(4), Noise.of(run)
    half = ((1 + power_of(run, run, *DELTAS).workload) * (1 + DELTAS[0])) ** 0.5
    drawn = [[first(one, run.rounds) for one in sessions(noise, 100, random)] for _ in range(2)]
    assert sum(alarm(now, before, half, 1.0) for now, before in zip(*drawn, strict=True)) < 60


def test_the_rule_for_a_query_is_that_of_the_gate() -> None:
    """A query slowed by a little more than stated regresses, and by a little less it does not, whatever the others do."""
    now, before = list(Machine(queries=12).sessions(2, np.random.default_rng(5)))
    now = a_against_a(now.baseline_ms, now.candidate_ms * np.where(np.arange(12) == 3, 1.22, 1.0)[:, None])
    increases = increases_until_certain(mean_ratios(now, before), np.log1p(0.2), 0.025)
    for row, increase in enumerate(increases):
        for further, expected in ((0.001, True), (-0.001, False)):
            ratios = np.where(np.arange(12) == row, np.exp(increase + further), 1.0)[:, None]
            found = gate_pairs("mscn", a_against_a(now.baseline_ms, now.candidate_ms * ratios), before, Policy(delta=100.0))
            assert any(isinstance(one, Regression) and one.query_id == f"q{row}" for one in found) is expected


def test_true_differences_between_queries_are_no_noise() -> None:
    """An algorithm that halves some queries and doubles others, as it did before, sees as much as one that changes nothing."""
    quiet = recorded("quiet_noise")
    ratios = np.where(np.arange(len(quiet.query_ids)) % 2, 2.0, 0.5)[:, None]
    other = a_against_a(quiet.baseline_ms, quiet.candidate_ms * ratios)
    assert power_of(other, other, *DELTAS).query == power_of(quiet, quiet, *DELTAS).query
    assert power_of(other, other, *DELTAS).workload < 0.05


def test_a_single_round_sees_nothing() -> None:
    """Without a second round there is no noise to go by: no slow-down of a query is certain, and the text says so."""
    once = first(recorded("quiet_noise"), 1)
    assert power_of(once, once, *DELTAS).query == np.inf
    report = decide_against_baseline(run_of_pairs(once), Policy(on_missing="warn"))
    assert report.verdict.startswith("PASSED WITH RESERVATIONS, but blind below ")
    assert report.verdict.endswith("over 1000 % for a single query")


@pytest.mark.slow
def test_only_the_noise_ends_the_rounds_and_never_the_result() -> None:
    """A workload that is 30 % slower or faster has the same power, and needs as many rounds, as one that is equal."""
    for name in MACHINES:
        run = first(recorded(name), 5)
        stated = power_of(run, run, *DELTAS)
        for factor in (0.7, 1.3):
            moved = a_against_a(run.baseline_ms, run.candidate_ms * factor)
            assert power_of(moved, moved, *DELTAS).workload == pytest.approx(stated.workload, rel=0.01)
            assert power_of(moved, moved, *DELTAS).query == pytest.approx(stated.query, rel=0.01)
            assert sees_enough(moved, *DELTAS) is sees_enough(run, *DELTAS)


def test_a_quiet_machine_needs_fewer_rounds() -> None:
    """The first decision to go on is about 5 rounds; a loaded machine needs many times as many, and sees enough in the end."""
    rounds = {}
    for name in MACHINES:
        (session,) = sessions(Noise.of(recorded(name)), 1, np.random.default_rng(6))
        rounds[name] = auto(session).rounds
    assert rounds["quiet_noise"] <= 10 < rounds["loaded_noise"]


@pytest.mark.parametrize(
    ("name", "rounds"), [("quiet_noise", 2), ("quiet_noise", 3), ("quiet_noise", 5), ("quiet_noise", 10), ("loaded_noise", 5)]
)
def test_a_decision_that_ends_early_is_that_of_all_repetitions(name: str, rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 10 repetitions or all 100, enough is seen exactly if the slow-downs that the 100 state are small enough for the deltas."""
    run = first(recorded(name), rounds)
    monkeypatch.setattr(power, "REPETITIONS", power.SHORT)
    for deltas in (DELTAS, (0.05, 0.5), (0.2, 9.0)):
        stated = power_of(run, run, *deltas)
        expected = stated.workload <= largest_seen(deltas[0]) and stated.query <= largest_seen(deltas[1])
        assert sees_enough(run, *deltas) is expected


def test_without_a_query_there_is_nothing_to_wait_for() -> None:
    """If no query ran on both sides, more rounds would not change it."""
    assert sees_enough(a_against_a(np.empty((0, 5)), np.empty((0, 5))), *DELTAS)


def test_twice_the_delta_is_the_limit() -> None:
    """A gate of 3 % shall see 6.09 %, one of 20 % shall see 44 %, and one of 0 % is always blind."""
    assert [round(largest_seen(delta), 4) for delta in (0.03, 0.2, 0.0)] == [0.0609, 0.44, 0.0]
    assert judged("quiet_noise", Policy(delta=0.0)).verdict.startswith("PASSED, but blind below ")


@pytest.mark.slow
def test_deciding_on_the_rounds_raises_no_alarm() -> None:
    """Of 200 pairs of A/A runs that ended by their own noise, after 5 to 80 rounds, at most 1 % trip the gate, as with fixed rounds."""
    random, number, machine = np.random.default_rng(8), 200, Machine(queries=20, rounds=MOST_ROUNDS)
    now, before = ([auto(one) for one in machine.sessions(number, random)] for _ in range(2))
    assert len({one.rounds for one in now}) > 2
    assert sum(alarm(run, reference, 1.0, 1.0) for run, reference in zip(now, before, strict=True)) <= 0.01 * number
