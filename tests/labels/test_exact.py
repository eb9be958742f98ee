"""Counts that are exact at any size: every operation against Python's own integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_pilotscope.labels.exact import Counts, counts, dot, gather, histogram, ones, product, scatter, total

numbers = st.one_of(st.integers(0, 5), st.integers(0, 2**31), st.integers(2**61, 2**63 - 1), st.integers(0, 2**200))


def of(values: list[int]) -> Counts:
    """Return counts of Python integers."""
    return counts(np.array(values, dtype=object))


def back(found: Counts) -> list[int]:
    """Python integers of counts, whose bookkeeping is checked on the way."""
    values = [int(value) for value in found.values]
    assert found.largest == max(values, default=0)
    assert (found.values.dtype == object) == (found.largest >= 2**63)
    return values


pairs = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8)


@settings(deadline=None)
@given(pairs)
def test_product_and_dot(pair_values: list[tuple[int, int]]) -> None:
    """No product and no sum of products wraps around or is rounded."""
    left, right = (of([pair[side] for pair in pair_values]) for side in (0, 1))
    assert back(product(left, right)) == [a * b for a, b in pair_values]
    assert dot(left, right) == sum(a * b for a, b in pair_values)
    assert total(left) == sum(a for a, _ in pair_values)


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, st.integers(0, 3)), max_size=12))
def test_scatter_and_gather(weighted: list[tuple[int, int]]) -> None:
    """Sums per code are exact, and looking them up gives them back."""
    codes = np.array([code for _, code in weighted], dtype=np.intp)
    summed = scatter(of([weight for weight, _ in weighted]), codes, 4)
    expected = [sum(weight for weight, code in weighted if code == wanted) for wanted in range(4)]
    assert back(summed) == expected
    assert [int(value) for value in gather(summed, codes).values] == [expected[code] for code in codes]


@pytest.mark.parametrize("size", [0, 3])
def test_histogram_and_ones(size: int) -> None:
    """An empty relation has a histogram of zeros, and no rows have no ones."""
    assert back(histogram(np.zeros(size, dtype=np.intp), 2)) == [size, 0]
    assert back(ones(size)) == [1] * size


def test_a_result_that_just_fits_stays_narrow_and_one_more_does_not() -> None:
    """2^63 - 1 is a 64-bit count, 2^63 is not."""
    assert back(product(of([2**63 - 1]), of([1]))) == [2**63 - 1]
    assert back(product(of([2**62]), of([2]))) == [2**63]
    assert dot(of([2**62, 2**62]), of([1, 1])) == 2**63
    assert total(of([2**62, 2**62])) == 2**63
    assert back(scatter(of([2**62, 2**62]), np.zeros(2, dtype=np.intp), 1)) == [2**63]
