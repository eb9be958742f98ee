"""Student's t, against published table values and the distribution's own laws."""

from __future__ import annotations

import numpy as np
import pytest

from pytest_pilotscope.core.student import quantile, upper_tail


@pytest.mark.parametrize(
    ("freedom", "two_sided_95"),
    [(1, 12.706205), (2, 4.302653), (3, 3.182446), (4, 2.776445), (30, 2.042272), (145, 1.976460)],
)
def test_quantiles_are_those_of_the_tables(freedom: int, two_sided_95: float) -> None:
    """The 97.5 % points printed in every textbook, for odd and even degrees of freedom."""
    assert quantile(0.975, freedom) == pytest.approx(two_sided_95, abs=2e-6)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 100])
def test_tails_and_quantiles_are_inverse(freedom: int) -> None:
    """The upper tail beyond a quantile is what is left of its probability, and the tails on both sides add up to one."""
    t = np.array([quantile(p, freedom) for p in (0.5, 0.9, 0.999)])
    np.testing.assert_allclose(upper_tail(t, freedom), [0.5, 0.1, 0.001], atol=1e-11)
    np.testing.assert_allclose(upper_tail(-t, freedom), [0.5, 0.9, 0.999], atol=1e-11)


@pytest.mark.parametrize("freedom", [1, 2, 5])
def test_infinity_has_no_tail(freedom: int) -> None:
    """Infinite t are certain, in either direction."""
    assert upper_tail(np.array([np.inf, -np.inf]), freedom).tolist() == [0.0, 1.0]


def test_the_density_integrates_to_the_tail() -> None:
    """The closed form agrees with a numerical integral of the density of 4 degrees of freedom, 3/8 (1 + t^2/4)^(-5/2)."""
    t = np.linspace(1.5, 2000, 4_000_001)
    density = 0.375 * (1 + t**2 / 4) ** -2.5
    integral = float((density[:-1] + density[1:]).sum() / 2 * (t[1] - t[0]))
    assert upper_tail(np.array([1.5]), 4)[0] == pytest.approx(integral, abs=1e-8)


def test_impossible_questions_are_refused() -> None:
    """No distribution has less than one degree of freedom; lower quantiles are the caller's to mirror."""
    with pytest.raises(ValueError, match=r"^Student's t needs at least 1 degree of freedom, found 0$"):
        upper_tail(np.array([1.0]), 0)
    with pytest.raises(ValueError, match=r"^a quantile of Student's t is computed for 0\.5 <= p < 1, found 0\.2$"):
        quantile(0.2, 3)
