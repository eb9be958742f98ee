"""Change points are found where there are some, and rarely elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pilotscope.statistics.change_points import LEVEL, change_points


def positions(*levels: tuple[int, float], noise: float = 0.01, seed: int = 0) -> list[int]:
    """Return the change points of a noisy series of these lengths and levels."""
    random = np.random.default_rng(seed)
    series = np.concatenate([np.full(length, level) for length, level in levels])
    return [found.position for found in change_points((series + random.normal(0, noise, len(series))).tolist())]


def test_a_change_is_found_where_it_is() -> None:
    """One, two and three levels; a change of twice the noise needs some more runs."""
    assert positions((12, 1.0), (8, 1.05)) == [12]
    assert positions((10, 1.0), (10, 0.9), (10, 1.0)) == [10, 20]
    (found,) = positions((30, 1.0), (30, 1.02))
    assert abs(found - 30) <= 2


def test_of_series_without_a_change_few_have_one() -> None:
    """The share is the level of the test, whatever the distribution of the noise."""
    random = np.random.default_rng(1)
    alarms = sum(bool(change_points(random.standard_cauchy(20).tolist(), seed=number)) for number in range(100))
    assert alarms <= 100 * LEVEL + 7  # three standard deviations


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 9.0], [1.0, 1.0, 9.0, 9.0], [2.0] * 30, [1.0, 2.0, 3.0, 4.0, 5.0]])
def test_too_few_or_equal_values_have_none(values: list[float]) -> None:
    """Nothing can be said of them."""
    assert change_points(values) == ()


def test_four_and_four_are_the_fewest_that_can_change() -> None:
    """Of six values in two levels, one order in ten looks as much like a change; of eight, one in 35."""
    assert change_points([1.0, 1.1, 0.9, 5.0, 5.1, 4.9]) == ()
    (found,) = change_points([1.0, 1.1, 0.9, 1.05, 5.0, 5.1, 4.9, 5.05])
    assert (found.position, found.p_value < LEVEL) == (4, True)


def test_a_single_outlier_is_no_change() -> None:
    """One disturbed run among many does not begin a level."""
    random = np.random.default_rng(2)
    series = 1 + random.normal(0, 0.01, 20)
    series[9] = 3.0
    assert change_points(series.tolist()) == ()


def test_the_same_series_has_the_same_change_points() -> None:
    """The random orders have a seed."""
    series = np.random.default_rng(3).normal(0, 1, 25).tolist()
    assert change_points(series) == change_points(series)
