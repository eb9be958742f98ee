"""The rows of the fault table in which something breaks: PostgreSQL, the algorithm, a reader of the record, the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.playing import Basis, play
from tests.faults.table import ALGORITHMS, ENVIRONMENT, LOST, READERS, Cell

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in (*LOST, *ALGORITHMS, *READERS, *ENVIRONMENT)])
def test_broken(cell: Cell, basis: Basis, tmp_path: Path) -> None:
    """The measurement ends as the table says, and leaves nothing."""
    play(cell, basis, tmp_path)
