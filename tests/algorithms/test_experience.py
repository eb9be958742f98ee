"""Executions on the way, and the plans that they speak for."""

from __future__ import annotations

import pytest

from pytest_pilotscope.algorithms.plans.experience import Experience


@pytest.mark.parametrize(("own_ms", "other_ms", "best"), [(10.0, 4.0, "other"), (4.0, 10.0, "own")])
def test_a_choice_is_tried_and_compared_once(own_ms: float, other_ms: float, best: str) -> None:
    """First the choice runs, then PostgreSQL's own plan, and from then on the faster of the two."""
    experience = Experience(own="own")
    assert experience.next("q", "other") == "other"
    experience.note("q", "other", other_ms)
    assert (experience.settled("q"), experience.next("q", "other")) == (None, "own")
    experience.note("q", "own", own_ms)
    assert experience.settled("q") == best
    assert experience.settled("another") is None


def test_the_own_plan_needs_no_comparison() -> None:
    """A statement whose choice is PostgreSQL's own plan keeps it until the model prefers another one, which is tried then."""
    experience = Experience(own="own")
    experience.note("q", "own", 5.0)
    assert (experience.settled("q"), experience.next("q", "own"), experience.next("q", "other")) == (None, "own", "other")


def test_the_last_execution_counts() -> None:
    """When the data have changed, a plan that has become slow gives way to the one that is known to be faster."""
    experience = Experience(own="own")
    experience.note("q", "other", 2.0)
    experience.note("q", "own", 3.0)
    experience.note("q", "other", 9.0)
    assert experience.settled("q") == "own"
