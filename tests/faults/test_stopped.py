"""The rows of the fault table in which somebody stops the measurement."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.playing import Basis, play
from tests.faults.table import KILLED, STOPPED, TWICE, Cell

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in (*STOPPED, *TWICE, *KILLED)])
def test_stopped(cell: Cell, basis: Basis, tmp_path: Path) -> None:
    """It ends as the table says, and leaves nothing."""
    play(cell, basis, tmp_path)
