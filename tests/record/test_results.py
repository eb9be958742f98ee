"""The values of a measurement."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pytest_pilotscope.record.results import QueryRun, RunHeader, SubplanEstimate

BASE = QueryRun(query_id="q1", side="mscn", repetition=1, order=0, inference_ms=1.0, planning_ms=2.0, execution_ms=4.0)


def test_end_to_end_is_the_sum_of_the_three_clocks() -> None:
    """A client waits for inference, planning and execution; the server spends the last two."""
    assert (BASE.end_to_end_ms, BASE.server_ms) == (7.0, 6.0)


def test_repetition_zero_is_the_warm_up() -> None:
    """Repetition 0 is a warm-up, 1 is not."""
    warm = QueryRun(query_id="q", side="baseline", repetition=0, order=0, inference_ms=0, planning_ms=0, execution_ms=0)
    assert (warm.warm_up, BASE.warm_up) == (True, False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
@pytest.mark.parametrize("clock", ["inference_ms", "planning_ms", "execution_ms"])
def test_an_impossible_time_is_refused(clock: str, value: float) -> None:
    """A time that is negative or not finite is rejected."""
    message = f"{clock} of query 'q1', side 'mscn' must be from 0 to 1e+12, found {value}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(BASE, **{clock: value})  # type: ignore[arg-type]  # the name is a parameter of the test


def test_the_baseline_is_one_of_the_sides() -> None:
    """A header without its baseline side is rejected."""
    message = "the baseline side 'baseline' of run 'r' is not among its sides ['mscn']"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RunHeader(
            run_name="r",
            algorithm="mscn",
            dataset="d",
            started_at="2025-01-01T00:00:00+00:00",
            sides=("mscn",),
            rounds=5,
            seed=0,
            suite_version="0",
        )


def test_a_subplan_has_one_join_less_than_relations() -> None:
    """Joins are counted from the aliases."""
    assert SubplanEstimate(aliases=("p", "u"), estimated=1.0, true=2.0).joins == 1
