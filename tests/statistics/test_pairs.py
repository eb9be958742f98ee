"""Pairing of runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pytest_pilotscope.statistics.pairs import pairs_of
from tests.record.building import record_of, run_of


def test_a_pair_is_one_round_of_one_query() -> None:
    """Rounds are matched by their number, not by the order in which they were written."""
    record = record_of({"baseline": {"q1": [10.0, 20.0], "q2": [5.0, 5.0]}, "mscn": {"q1": [20.0, 20.0], "q2": [5.0, 10.0]}})
    pairs = pairs_of(replace(record, runs=record.runs[::-1]), "mscn")
    assert pairs.query_ids == ("q1", "q2")
    assert pairs.rounds == 2
    np.testing.assert_allclose(np.exp(pairs.log_ratios), [[2, 1], [1, 2]])


def test_warm_ups_form_no_pair() -> None:
    """A warm-up, however slow, is in no pair."""
    record = record_of({"baseline": {"q1": [10.0]}, "mscn": {"q1": [10.0]}})
    warm = run_of("mscn", "q1", 0, 9000.0)
    assert pairs_of(replace(record, runs=(warm, *record.runs)), "mscn").candidate_ms.tolist() == [[10.0]]


def test_a_time_out_counts_with_its_limit_and_two_are_a_tie() -> None:
    """One-sided time-outs keep their limit as a lower bound; where both sides timed out, neither is faster."""
    record = record_of({"baseline": {"q1": [10.0, ">500", 10.0]}, "mscn": {"q1": [">500", ">700", 10.0]}})
    pairs = pairs_of(record, "mscn")
    np.testing.assert_allclose(np.exp(pairs.log_ratios), [[50, 1, 1]])
    assert pairs.candidate_timed_out.tolist() == [[True, True, False]]
    assert pairs.baseline_timed_out.tolist() == [[False, True, False]]


def test_a_query_without_all_rounds_on_both_sides_is_left_out_with_the_reason() -> None:
    """Failed, unmeasured and incomplete queries are left out and named."""
    record = record_of(
        {
            "baseline": {"ok": [1.0, 1.0], "short": [1.0, 1.0], "baseline_failed": ["no", 1.0], "failed": [1.0, 1.0], "never": []},
            "mscn": {"ok": [2.0, 2.0], "short": [1.0], "baseline_failed": [1.0, 1.0], "failed": [1.0, "division by zero"], "never": []},
        }
    )
    pairs = pairs_of(record, "mscn")
    assert pairs.query_ids == ("ok",)
    assert pairs.left_out == {
        "short": "measured in 1 of 2 rounds",
        "baseline_failed": "failed",
        "failed": "failed",
        "never": "not measured",
    }


def test_a_failed_warm_up_is_a_failure() -> None:
    """A query that failed in its warm-up has no measured run, and still counts as failed."""
    record = record_of({"baseline": {"q1": [1.0]}, "mscn": {"q1": []}})
    failed = replace(record, runs=(*record.runs, run_of("mscn", "q1", 0, "boom")))
    assert pairs_of(failed, "mscn").left_out == {"q1": "failed"}


def test_no_pairs_have_the_shape_of_pairs() -> None:
    """A record without any complete query gives zero rows, not an error."""
    assert pairs_of(record_of({"baseline": {}, "mscn": {}}), "mscn").log_ratios.shape == (0, 5)


def test_a_time_of_zero_still_has_a_ratio() -> None:
    """Times below the clock's resolution count as the resolution: no ratio is infinite."""
    record = record_of({"baseline": {"q1": [2.0]}, "mscn": {"q1": [3.0]}})
    zero = tuple(replace(run, inference_ms=0.0, planning_ms=0.0, execution_ms=0.0) for run in record.runs)
    assert pairs_of(replace(record, runs=zero), "mscn").log_ratios.tolist() == [[0.0]]


def test_pairs_can_be_restricted_and_reordered() -> None:
    """`restricted_to` picks queries in the order asked for."""
    record = record_of({"baseline": {"q1": [10.0], "q2": [20.0], "q3": [30.0]}, "mscn": {"q1": [4.0], "q2": [5.0], "q3": [6.0]}})
    chosen = pairs_of(record, "mscn").restricted_to(["q3", "q1"])
    assert (chosen.query_ids, chosen.baseline_ms.tolist(), chosen.candidate_ms.tolist()) == (("q3", "q1"), [[30], [10]], [[6], [4]])
