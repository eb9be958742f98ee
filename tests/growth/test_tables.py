"""The tables of growth are made of cases that run in processes of their own."""

from __future__ import annotations

import pytest

from benchmarks.growth import __main__ as growth


@pytest.mark.slow
def test_a_table_is_measured() -> None:
    """A star of three and of four relations is planned and counted; times are multiples of the first row, sets and memory are not."""
    heading, _, first, second, end = growth._table("relations joined by one key", (3, 4))
    assert heading == "| relations joined by one key | planning | sets | planning, all sets listed | true rows | memory MB |"
    assert first.startswith("| 3 | 1 | 7 | 1 | 1 | ")
    assert second.startswith("| 4 | ")
    assert second.split(" | ")[2] == "15"
    assert end == ""
