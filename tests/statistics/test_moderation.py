"""Moderated variances."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pilotscope.statistics.moderation import inverse_trigamma, moderated, trigamma
from pytest_pilotscope.statistics.pairs import Floats


def sample_variances(true: Floats, rounds: int) -> Floats:
    """Return the sample variances of so many normal rounds each."""
    random = np.random.default_rng(0)
    variances: Floats = (random.standard_normal((len(true), rounds)) * np.sqrt(true)[:, None]).var(axis=1, ddof=1)
    return variances


@given(st.floats(min_value=1e-3, max_value=1e4))
def test_trigamma_can_be_inverted(x: float) -> None:
    """The inverse of trigamma returns its argument."""
    assert inverse_trigamma(trigamma(x)) == pytest.approx(x, rel=1e-5)


def test_trigamma_has_its_known_value() -> None:
    """Trigamma at 1 is the sum of the inverse squares."""
    assert trigamma(1) == pytest.approx(math.pi**2 / 6)


def test_equal_noise_is_pooled() -> None:
    """If all queries are equally noisy, the moderated variances are near the true one and have many degrees of freedom."""
    variances, freedom = moderated(sample_variances(np.full(2000, 4.0), 5), 4)
    assert freedom > 40
    assert np.quantile(np.abs(np.log(variances / 4.0)), 0.95) < 0.25


def test_unlike_noise_is_left_alone() -> None:
    """If the true variances span six orders of magnitude, nearly no freedom is gained, and the noisy half keeps its noise."""
    own = sample_variances(np.logspace(-3, 3, 200), 5)
    variances, freedom = moderated(own, 4)
    assert 4 < freedom < 5
    noisy = own > np.median(own)
    np.testing.assert_allclose(variances[noisy] / own[noisy], 1, atol=0.15)


def test_the_freedom_of_the_prior_is_found_back() -> None:
    """Variances drawn from a scaled inverse chi-squared distribution with 8 degrees of freedom yield about 8 + 4."""
    true = 8 * 2.0 / np.random.default_rng(1).chisquare(8, 5000)
    _, freedom = moderated(sample_variances(true, 5), 4)
    assert freedom == pytest.approx(12, rel=0.15)


def test_few_variances_stay_as_they_are() -> None:
    """Four queries, or a single round, leave the variances unchanged."""
    own = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert moderated(own[:4], 4)[1] == 4
    assert moderated(own[:4], 4)[0].tolist() == [1, 2, 3, 4]
    assert moderated(own, 0)[1] == 0


def test_no_variance_is_drawn_towards_the_usual() -> None:
    """Five times that are equal by chance get the variance that is usual among noisy queries."""
    own = sample_variances(np.full(100, 1.0), 5)
    own[0] = 0.0
    assert moderated(own, 4)[0][0] > 0.3
    assert moderated(np.zeros(10), 4)[0].tolist() == [0.0] * 10
