"""The q-error and its quantiles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_pilotscope.record.results import QueryReport, SubplanEstimate
from pytest_pilotscope.statistics.accuracy import (
    in_ranges,
    p_errors_by_joins,
    q_error,
    q_errors,
    q_errors_by_joins,
    quantiles,
    size_ranges,
)
from tests.record.building import record_of

ROWS = st.floats(min_value=0, max_value=1e18)


@given(ROWS, ROWS)
def test_q_error_is_symmetric_and_at_least_one(estimated: float, true: float) -> None:
    """Over- and underestimates by the same factor are equally wrong, and nothing is better than right."""
    assert q_error(estimated, true) == q_error(true, estimated) >= 1


def test_q_error_is_the_factor_with_at_least_one_row() -> None:
    """Both sides count as at least one row, as in the planner."""
    assert q_error([10, 1000, 0, 0.2, 0], [100, 10, 0, 5, 7]).tolist() == [10, 100, 1, 5, 7]


@pytest.mark.parametrize("rows", [np.nan, np.inf, -1])
def test_q_error_rejects_impossible_rows(rows: float) -> None:
    """A NaN estimate is a broken model, not an infinitely bad one; a NaN truth is a broken label."""
    with pytest.raises(ValueError, match=r"^estimated cardinalities must be finite and >= 0$"):
        q_error([1, rows], [1, 1])
    with pytest.raises(ValueError, match=r"^true cardinalities must be finite and >= 0$"):
        q_error([1, 1], [1, rows])


def test_quantiles_are_those_of_numpy() -> None:
    """The 90th percentile of 1..101 is 91, and so on."""
    q = quantiles(range(1, 102))
    assert (q.count, q.p50, q.p90, q.p95, q.p99, q.max) == (101, 51, 91, 96, 100, 101)


def test_quantiles_of_nothing_are_refused() -> None:
    """No values have no quantiles, rather than zeros that look perfect."""
    with pytest.raises(ValueError, match=f"^{re.escape('there are no quantiles of no values')}$"):
        quantiles([])


def test_q_errors_keep_empty_results_apart() -> None:
    """An estimator of one row is perfect on empty results; `nonempty` shows its error."""
    estimates = [
        SubplanEstimate(aliases=("a",), estimated=1, true=0),
        SubplanEstimate(aliases=("b",), estimated=1, true=4),
        SubplanEstimate(aliases=("a", "b"), estimated=1, true=0),
        SubplanEstimate(aliases=("a", "b", "c"), estimated=1, true=100),
    ]
    errors = q_errors(estimates)
    assert errors.all.p50 == 2.5
    assert errors.nonempty is not None
    assert (errors.nonempty.count, errors.nonempty.p50) == (2, 52)


def test_errors_are_by_side_and_joins() -> None:
    """Joins are aliases less one; empty results are left out."""
    subplans = (("a",), 1, 0), (("b",), 1, 4), (("a", "b"), 1, 0), (("a", "b", "c"), 1, 100)
    estimates = tuple(SubplanEstimate(aliases=aliases, estimated=estimated, true=true) for aliases, estimated, true in subplans)
    record = record_of({side: {"q0": [1.0]} for side in ("baseline", "mscn")})
    record = replace(record, reports=(QueryReport(query_id="q0", side="mscn", estimates=estimates, p_error=1.5),))
    assert q_errors_by_joins(record) == {"mscn": {0: [4], 2: [100]}}
    assert p_errors_by_joins(record) == {"mscn": {2: [1.5]}}


@pytest.mark.parametrize(
    ("sizes", "names"),
    [
        ((), ()),
        (range(8), ("0", "1", "2", "3", "4", "5", "6", "7")),
        ((7, 39, 7, 3), ("3", "7", "39")),
        (range(9), ("0", "1", "2", "3-4", "5-8")),
        (range(1, 40), ("1", "2", "3-4", "5-8", "9-16", "17-32", "33-39")),
        ((0, 1, 4, 5, 6, 7, 10, 13, 18), ("0", "1", "4", "5-7", "10-13", "18")),
    ],
)
def test_many_sizes_are_in_a_few_ranges(sizes: Iterable[int], names: Sequence[str]) -> None:
    """Up to eight have a name each; more are between powers of two, and a range is named after the sizes that are there."""
    assert tuple(dict.fromkeys(size_ranges(sizes).values())) == tuple(names)


def test_values_of_a_range_are_together() -> None:
    """A side has the ranges in which it has values, in their order."""
    assert in_ranges({9: [1.0], 3: [2.0, 3.0], 4: [4.0]}, size_ranges(range(9)) | {9: "9"}) == {"3-4": [2.0, 3.0, 4.0], "9": [1.0]}


def test_q_errors_of_empty_results_only() -> None:
    """If every true result is empty, `nonempty` is None."""
    assert q_errors([SubplanEstimate(aliases=("a",), estimated=3, true=0)]).nonempty is None
