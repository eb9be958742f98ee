"""Estimates beside the truth."""

from __future__ import annotations

from pytest_pilotscope.measurement.accuracy import estimates_of
from pytest_pilotscope.queries.joins import LeveledSubplan
from pytest_pilotscope.record.results import SubplanEstimate


def test_estimates_without_a_truth_are_left_out() -> None:
    """A subplan that was not counted is not judged."""
    estimated = {frozenset("a"): 7.0, frozenset("ab"): 9.0}
    assert estimates_of(estimated, {frozenset("ab"): 3}) == (SubplanEstimate(aliases=("a", "b"), estimated=9.0, true=3.0),)


def test_all_levels_are_judged() -> None:
    """The same alias in a subquery is another relation: every level has a truth of its own."""
    estimated: dict[frozenset[str], float] = {LeveledSubplan(1, "a"): 5.0, LeveledSubplan(2, "a"): 7.0, LeveledSubplan(2, "ab"): 9.0}
    assert estimates_of(estimated, {LeveledSubplan(1, "a"): 3, LeveledSubplan(2, "a"): 0}) == (
        SubplanEstimate(aliases=("a",), estimated=5.0, true=3.0),
        SubplanEstimate(aliases=("a",), estimated=7.0, true=0.0),
    )
