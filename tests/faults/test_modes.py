"""The rows of the fault table in runs with a drift, a stream or scripts that write, on our server and on somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.playing import Basis, play
from tests.faults.table import MODES, Cell

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in MODES])
def test_modes(cell: Cell, basis: Basis, tmp_path: Path) -> None:
    """The measurement ends as the table says, and no copy of a database is left."""
    play(cell, basis, tmp_path)
