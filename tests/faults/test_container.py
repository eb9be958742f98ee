"""The rows of the fault table on a server in a container."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.docker.engine import our_containers
from tests.faults.playing import Basis, play
from tests.faults.table import CONTAINER, Cell

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]


@pytest.mark.parametrize("cell", [pytest.param(cell, id=cell.name) for cell in CONTAINER])
def test_container(cell: Cell, basis: Basis, docker: Any, tmp_path: Path) -> None:
    """The measurement ends as the table says, and no container is left."""
    before = our_containers(docker)
    environment = {name: os.environ[name] for name in ("DOCKER_HOST", "PILOTSCOPE_IMAGE")}
    play(cell, basis, tmp_path, environment)
    assert our_containers(docker) == before
