"""The rows of the fault table on servers that others use, too, and on the workers of Dask."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.playing import Basis, play
from tests.faults.table import DASK, GIVEN, ROLE, Cell

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in (*GIVEN, *ROLE, *DASK)])
def test_servers(cell: Cell, basis: Basis, tmp_path: Path) -> None:
    """The measurement ends as the table says, and the server is as it was."""
    play(cell, basis, tmp_path)
