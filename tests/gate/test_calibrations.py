"""Calibration from an A/A run."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from pytest_pilotscope.gate.exact_figures import Regression
from pytest_pilotscope.gate.rules import Policy, gate_pairs
from pytest_pilotscope.gate.simulation import calibrate
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import BASELINE_AGAIN
from tests.gate.noise import Machine
from tests.record.building import record_of


def a_against_a(noise: float, *, luck: float = 1.0, queries: int = 20, rounds: int = 5) -> Record:
    """Return an A/A record with that much noise on each run, whose second connection takes `luck` times as long."""
    random = np.random.default_rng(0)
    factors = {"baseline": 1.0, BASELINE_AGAIN: luck}
    return record_of(
        {
            side: {f"q{i}": [(50.0 + i) * factor * float(np.exp(random.normal(0, noise))) for _ in range(rounds)] for i in range(queries)}
            for side, factor in factors.items()
        },
        algorithm="baseline",
    )


def test_a_noisier_machine_needs_more_room() -> None:
    """Twenty times the noise: a larger query delta, a slow-down must be larger to be seen, and neither is below zero."""
    quiet, loud = (calibrate(a_against_a(noise), sessions=100) for noise in (0.01, 0.2))
    assert quiet.delta <= 0.01
    assert quiet.query_delta == 0.05
    assert loud.query_delta is not None
    assert loud.query_delta > 0.05
    assert 0 < quiet.detectable < loud.detectable
    assert (quiet.queries, quiet.rounds, quiet.sessions) == (20, 5, 100)


def test_a_lucky_connection_is_part_of_the_noise() -> None:
    """If either of two equal connections is 4 % slower throughout, the delta is above 4 %."""
    for luck in (1.04, 1 / 1.04):
        assert 0.04 < calibrate(a_against_a(0.01, luck=luck), sessions=100).delta < 0.12


def test_the_calibrated_delta_holds() -> None:
    """A gate with the deltas of one simulated A/A session stays within 2 false alarms in 100 other sessions of that machine."""
    random = np.random.default_rng(1)
    sample = next(Machine().sessions(1, random))
    times = {"baseline": sample.baseline_ms, BASELINE_AGAIN: sample.candidate_ms}
    record = record_of({side: {f"q{i}": row.tolist() for i, row in enumerate(ms)} for side, ms in times.items()}, algorithm="baseline")
    calibration = calibrate(record, sessions=100)
    assert calibration.query_delta is not None
    policy = Policy(delta=max(calibration.delta, 0.01), query_delta=calibration.query_delta)
    now, before = Machine().sessions(100, random), Machine().sessions(100, random)
    alarms = [
        any(isinstance(found, Regression) for found in gate_pairs("again", run, reference, policy))
        for run, reference in zip(now, before, strict=True)
    ]
    assert sum(alarms) <= 2


def test_a_calibration_is_reproducible() -> None:
    """Seeded: the same record gives the same deltas."""
    record = a_against_a(0.05)
    assert calibrate(record, sessions=30) == calibrate(record, sessions=30)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (replace(a_against_a(0.01), end=None), "is INTERRUPTED; calibrate with one that finished"),
        (
            record_of({"baseline": {"q": [1.0]}, "mscn": {"q": [1.0]}}, algorithm="baseline"),
            "has no side 'baseline-again' but ['baseline', 'mscn']; calibrate with an A/A run of the baseline",
        ),
        (a_against_a(0.01, queries=1), "has 1 queries with 5 rounds; calibrating needs at least 2 of each"),
        (a_against_a(0.01, rounds=1), "has 20 queries with 1 rounds; calibrating needs at least 2 of each"),
    ],
)
def test_what_cannot_be_calibrated_with_is_refused(record: Record, message: str) -> None:
    """An interrupted run, a run without a second baseline, and one that is too small say so."""
    name = "run 'baseline_stats_tiny_20250101_000000'"
    with pytest.raises(ValueError, match=f"^{re.escape(f'{name} {message}')}$"):
        calibrate(record, sessions=10)
