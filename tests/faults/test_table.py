"""The fault table itself."""

from __future__ import annotations

import re
from functools import reduce
from importlib import import_module
from pathlib import Path

import pytest

from tests.faults.faults import FAULTS
from tests.faults.table import ALGORITHMS, CONTAINER, DASK, ENVIRONMENT, GIVEN, KILLED, LOST, MODES, POINTS, READERS, ROLE, STOPPED, TWICE

CELLS = [*STOPPED, *TWICE, *KILLED, *LOST, *ALGORITHMS, *READERS, *ENVIRONMENT, *GIVEN, *ROLE, *DASK, *CONTAINER, *MODES]
TRUST = Path(__file__).resolve().parents[2] / "docs" / "trust.md"


@pytest.mark.parametrize("stop", [stop for point in POINTS.values() for stop in point.split("|")])
def test_every_point_is_a_function(stop: str) -> None:
    """A function that was renamed is noticed here, and not by a cell that waits for it."""
    module, name = re.split("[@#]", stop, maxsplit=1)[0].split(":")
    assert callable(reduce(getattr, name.split("."), import_module(module)))


def test_every_cell_is_there_once() -> None:
    """No two cells are the same, and a fault that happens at a point has one."""
    names = [cell.name for cell in CELLS]
    assert sorted(set(names)) == sorted(names)
    assert [cell.name for cell in CELLS if cell.fault in FAULTS and cell.point not in POINTS] == []


def test_the_documentation_counts_the_cells() -> None:
    """docs/trust.md says how many there are, and names every file of tests here that exists."""
    text = TRUST.read_text(encoding="utf-8")
    assert re.findall(r"(\d+) cells", text) == [str(len(CELLS))] * 2
    named = set(re.findall(r"tests/faults/(\w+\.py)", text))
    assert {path.name for path in Path(__file__).parent.glob("test_*.py")} <= named
