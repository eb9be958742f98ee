"""Words that a machine can hold: ruff holds the imperative mood (D401), this holds the beginning of every docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RIDDLES = ("What", "Whether", "Where", "How")


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each string that stands alone: docstrings, also those of constants."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, node.value.value.strip()


@pytest.mark.parametrize("folder", ["pytest_pilotscope", "algorithms", "benchmarks", "tests"])
def test_no_docstring_begins_with_a_riddle(folder: str) -> None:
    """A docstring says what something is or does; it does not begin with a clause about it."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text.splitlines()[0]}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in docstrings(path)
        if text.split(maxsplit=1)[:1] and text.split(maxsplit=1)[0] in RIDDLES
    ]
    assert found == []
