"""Ranks by speed-up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.statistics.ranking import ranks
from pytest_pilotscope.statistics.summary import summarize
from tests.record.building import record_of, run_of


def record_of_sides(**factors: float) -> Record:
    """Return a comparison of sides that take so many times as long as the baseline, with 1 % of noise."""
    random = np.random.default_rng(0)
    return record_of(
        {
            side: {f"q{i}": [(20.0 + i) * factor * float(np.exp(random.normal(0, 0.01))) for _ in range(5)] for i in range(20)}
            for side, factor in {"baseline": 1.0, **factors}.items()
        },
        algorithm="compare",
    )


def shown(record: Record) -> dict[str, str]:
    """Return the ranks as they are printed."""
    return {side: str(rank) for side, rank in ranks(summarize(record)).items()}


def test_sides_that_differ_are_ranked() -> None:
    """The fastest side is first, and the baseline has a rank, too."""
    assert shown(record_of_sides(slow=2.0, fast=0.5)) == {"baseline": "2", "slow": "3", "fast": "1"}


def test_sides_that_noise_does_not_tell_apart_share_their_ranks() -> None:
    """Two equal sides are both first or second, whichever of them has the better figure."""
    assert shown(record_of_sides(a=0.5, b=0.5, c=2.0)) == {"baseline": "3", "a": "1-2", "b": "1-2", "c": "4"}


def test_half_a_workload_has_no_rank() -> None:
    """A side with a failed query gets no rank, and the others are ranked without it."""
    record = record_of_sides(fast=0.5, broken=0.1)
    failure = run_of("broken", "q0", 5, "boom")
    runs = tuple(run for run in record.runs if (run.side, run.query_id) != ("broken", "q0"))
    assert shown(replace(record, runs=(*runs, failure))) == {"baseline": "2", "fast": "1"}
