"""`pilotscope init`: write a small project with an algorithm of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

import pytest_pilotscope
from pytest_pilotscope.commands.output import show_json
from pytest_pilotscope.errors import UsageError, named
from pytest_pilotscope.places.privatefiles import private_folder, write_private

_PACKAGE = Path(pytest_pilotscope.__file__).parent
_TEMPLATES = Path(__file__).parent / "project"
_FILES = {
    "conftest.py": _TEMPLATES / "conftest.py.txt",
    "tests/test_contract.py": _TEMPLATES / "test_contract.py.txt",
    "benchmarks/test_workload.py": _PACKAGE / "benchmarks" / "test_workload.py",
    ".github/workflows/benchmarks.yml": _TEMPLATES / "benchmarks.yml.txt",
    "pytest.ini": _TEMPLATES / "pytest.ini.txt",
    "requirements.txt": _TEMPLATES / "requirements.txt.txt",
}


def start_project(folder: Path) -> Sequence[Path]:
    """Write the files of a project into a folder and return their paths; raise `UsageError` if one of them is there, and write nothing."""
    there = [name for name in _FILES if (folder / name).exists()]
    if there:
        raise UsageError(f"{folder}: {named(there)} is there already; name another folder, or move it away")
    for name, template in _FILES.items():
        private_folder((folder / name).parent)
        write_private(folder / name, template.read_text(encoding="utf-8"))
    return [folder / name for name in _FILES]


def show_project(folder: Path, files: Sequence[Path], *, as_json: bool) -> None:
    """Show the files, and the commands that use them."""
    if as_json:
        show_json(files)
        return
    for path in files:
        click.echo(path)
    inside = "" if folder == Path() else f"cd {folder} && "
    click.echo(f"test the contract of the algorithm: {inside}pytest")
    click.echo(f"measure it: {inside}pytest benchmarks --algo baseline,mine --db stats_tiny")
