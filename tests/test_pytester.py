"""pytester forgets the modules of its projects, and no others."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import pytest

PROJECT = """
    from rich.console import Console

    def test_it():
        Console()
"""


def _forget(library: str) -> dict[str, ModuleType]:
    """Take a library out of the loaded modules, and return its modules."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == library}


@pytest.fixture
def _a_part_of_rich() -> Iterator[None]:
    """Import rich anew, without its console."""
    before = _forget("rich")
    import_module("rich.filesize")
    yield
    _forget("rich")
    sys.modules.update(before)


@pytest.mark.usefixtures("_a_part_of_rich")
def test_a_library_is_there_once(pytester: pytest.Pytester) -> None:
    """A session that imports the rest of a library that was imported in part leaves it whole; its own modules are forgotten."""
    pytester.makepyfile(test_of_the_project=PROJECT)
    assert pytester.runpytest_inprocess().ret == 0
    table = import_module("rich.table").Table("column")
    table.add_row("cell")
    written = io.StringIO()
    import_module("rich.console").Console(file=written).print(table)
    assert "cell" in written.getvalue()
    assert "test_of_the_project" not in sys.modules
