"""Fixtures of the benchmarks of speed: a server, and a way to print figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pytest_pilotscope.errors import MissingServer
from pytest_pilotscope.postgres.binaries import find_binaries
from pytest_pilotscope.postgres.embedded import EmbeddedServer


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """Start an empty embedded server of the default version."""
    try:
        binaries = find_binaries()
    except MissingServer as error:
        pytest.skip(str(error))
    with EmbeddedServer(binaries, why="for the benchmark") as running:
        yield running


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a text past pytest's capturing."""

    def shown(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}")  # noqa: T201 - the figures are the purpose of a benchmark

    return shown
