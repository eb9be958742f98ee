"""The intervals of many repetitions at once."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pilotscope.gate.noise import Noise
from pytest_pilotscope.statistics.intervals import workload_ratios
from pytest_pilotscope.statistics.pairs import Pairs
from pytest_pilotscope.statistics.repeated import lower_ends, true_ratios
from tests.gate.noise import Machine, recorded


def machine(queries: int) -> Pairs:
    """Return a run of so many queries, some of them ten times as noisy as others."""
    (run,) = Machine(queries=queries, unlike=0.8).sessions(1, np.random.default_rng(5))
    return run


RUNS = {"quiet": recorded("quiet_noise"), "loaded": recorded("loaded_noise"), "one": machine(1), "two": machine(2), "many": machine(200)}


@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("name", RUNS)
def test_they_are_those_of_each_repetition_with_many_draws(name: str, sides: int) -> None:
    """The margins differ by less than a tenth from those of 10,000 draws, with a reference and without one; the ratios are the same."""
    noise, random = Noise.of(RUNS[name]), np.random.default_rng(1)
    true = np.linspace(-0.5, 0.5, len(noise.times_ms))
    sessions = [[noise.session(random, true) for _ in range(3)] for _ in range(sides)]
    lows = lower_ends([[one.log_ratios for one in side] for side in sessions], [noise.times_ms] * sides, 0.95)
    for repetition, found in zip(zip(*sessions, strict=True), lows, strict=True):
        drawn = workload_ratios(*repetition, replicates=10_000, seed=3)
        for interval, low in zip((drawn.geometric_mean, drawn.total), found, strict=True):
            assert np.log(interval.estimate) - low == pytest.approx(np.log(interval.estimate / interval.low), rel=0.1)


def test_a_true_ratio_has_no_noise() -> None:
    """Two queries of 1 and 3 ms at twice and half their times: the geometric mean is 1, the total is 3.5 / 4."""
    true, times_ms = np.log([2.0, 0.5]), np.array([1.0, 3.0])
    assert np.exp(true_ratios([true], [times_ms])) == pytest.approx([1, 3.5 / 4])
    assert np.exp(true_ratios([true, true], [times_ms, times_ms])) == pytest.approx([1, 1])
