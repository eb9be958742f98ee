"""Counts that are exact at any size: every operation against Python's own integers."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.labels import compiled
from pytest_pilotscope.labels.exact import Counts, Sum, counts, dot, gather, ones, product, scatter, total
from pytest_pilotscope.postgres.extension.compiling import find_compiler

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


@pytest.fixture(params=["C", "NumPy"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Let C add, or only NumPy."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "NumPy":
            patch.setattr(compiled, "function", lambda: None)
        elif compiled.function() is None:
            pytest.skip("no C compiler")
        yield request.param


keys = st.integers(-1, 2)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(numbers, min_size=3, max_size=3), max_size=3), st.data())
def test_sums_of_products(way: str, weights: list[list[int]], data: st.DataObject) -> None:
    """They are exact with any number of weights, block after block, beyond 64 bits, and leave out rows with a NULL."""
    rows = st.lists(st.tuples(*[keys] * (1 + len(weights))), min_size=1, max_size=6)
    blocks = data.draw(st.lists(rows, max_size=4))
    found = Sum(3)
    expected = [0, 0, 0]
    for block in blocks:
        found.add_products([np.array(column, dtype=np.int32) for column in zip(*block, strict=True)], [of(one) for one in weights])
        for code, *places in block:
            if min(code, *places, 0) == 0:
                expected[code] += prod(one[place] for one, place in zip(weights, places, strict=True))
    assert [int(value) for value in found.counts.values] == expected
    assert found.counts.largest == max(expected)


@pytest.mark.parametrize("codes", [([0, 3], [0, 0]), ([0, 0], [0, 2])])
def test_a_code_outside_of_its_domain_is_an_error(way: str, codes: tuple[list[int], list[int]]) -> None:
    """Nothing is read or written beside an array."""
    with pytest.raises(IndexError, match="is out of bounds for"):
        Sum(3).add_products([np.array(one, dtype=np.int32) for one in codes], [of([1, 1])])


def test_without_a_compiler_the_reason_is_said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """NumPy counts then."""

    def refused(*_: object) -> None:
        raise MissingExtension("no compiler; pip install ziglang")

    monkeypatch.setattr(compiled, "load_compiled", refused)
    compiled.function.cache_clear()
    try:
        assert compiled.function() is None
    finally:
        compiled.function.cache_clear()
    assert caplog.messages == ["true rows are counted with NumPy, which takes longer: no compiler; pip install ziglang"]


def test_no_compiler_warnings(tmp_path: Path) -> None:
    """The source compiles without a word under -Wall -Wextra."""
    command = [*find_compiler(), "-O3", "-fPIC", "-shared", "-Wall", "-Wextra", "-o", str(tmp_path / "x.so"), str(compiled._SOURCE)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")


def test_ones() -> None:
    """No rows have no ones."""
    assert [back(ones(size)) for size in (0, 3)] == [[], [1] * 3]


def test_a_result_that_just_fits_stays_narrow_and_one_more_does_not() -> None:
    """2^63 - 1 is a 64-bit count, 2^63 is not."""
    assert back(product(of([2**63 - 1]), of([1]))) == [2**63 - 1]
    assert back(product(of([2**62]), of([2]))) == [2**63]
    assert dot(of([2**62, 2**62]), of([1, 1])) == 2**63
    assert total(of([2**62, 2**62])) == 2**63
    assert back(scatter(of([2**62, 2**62]), np.zeros(2, dtype=np.intp), 1)) == [2**63]
