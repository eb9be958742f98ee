"""The gate's rates of false alarms and of misses, over simulated sessions with the noise of real machines (see noise.py)."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pilotscope.gate.exact_figures import Regression
from pytest_pilotscope.gate.noise import Noise
from pytest_pilotscope.gate.rules import Policy, gate_pairs
from tests.gate.noise import Machine, recorded

SESSIONS = 1000
POWER_SESSIONS = 300
MACHINE = Machine()
SLOW_QUERY = "q25"


def regressions(number: int, seed: int, machine: Machine = MACHINE, **changes: float) -> list[list[Regression]]:
    """Return the regressions of the default gate for so many independent pairs of a run and its reference."""
    random = np.random.default_rng(seed)
    now, before = machine.sessions(number, random, **changes), machine.sessions(number, random)
    policy = Policy()
    return [
        [found for found in gate_pairs("mscn", run, reference, policy) if isinstance(found, Regression)]
        for run, reference in zip(now, before, strict=True)
    ]


@pytest.mark.slow
def test_an_unchanged_program_is_stopped_in_one_run_of_a_hundred_at_most() -> None:
    """Over 1000 simulated A/A sessions, at most 1 % trip the gate."""
    assert sum(map(bool, regressions(SESSIONS, 1))) <= 0.01 * SESSIONS


def test_five_percent_more_are_caught() -> None:
    """A true slow-down of the workload by 5 % is caught in at least 95 % of the sessions."""
    assert sum(map(bool, regressions(POWER_SESSIONS, 2, slowdown=1.05))) >= 0.95 * POWER_SESSIONS


def test_one_query_twice_as_slow_is_caught_and_named() -> None:
    """One query of 50 at twice its time is named in at least 95 % of the sessions, and no other one in more than 1 %."""
    named = [{regression.query_id for regression in found} - {None} for found in regressions(POWER_SESSIONS, 3, slow_query=2.0)]
    assert sum(SLOW_QUERY in queries for queries in named) >= 0.95 * POWER_SESSIONS
    assert sum(bool(queries - {SLOW_QUERY}) for queries in named) <= 0.01 * POWER_SESSIONS


def test_queries_that_are_noisier_than_others_raise_no_alarm() -> None:
    """If some queries are ten times as noisy as others (their log noise spreads by 0.8), at most 1 % of A/A sessions trip."""
    assert sum(map(bool, regressions(POWER_SESSIONS, 4, Machine(unlike=0.8)))) <= 0.01 * POWER_SESSIONS


def test_the_noise_of_a_busy_machine_raises_no_alarm() -> None:
    """Simulated from a recorded A/A run on a machine under load, 1000 gates with the default deltas trip at most 10 times."""
    random, noise, policy = np.random.default_rng(5), Noise.of(recorded()), Policy()
    alarms = [
        any(isinstance(found, Regression) for found in gate_pairs("again", now, before, policy))
        for now, before in (noise.sessions(random) for _ in range(SESSIONS))
    ]
    assert sum(alarms) <= 0.01 * SESSIONS
