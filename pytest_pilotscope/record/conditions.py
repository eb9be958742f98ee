"""The conditions of a run as its header has them."""

from __future__ import annotations

from collections.abc import Mapping

_FLAGS = ("jit", "cold")


def conditions_text(conditions: Mapping[str, int]) -> str:
    """Return the options that gave these conditions: `--parallel 4 --jit`."""
    return " ".join(f"--{name}" if name in _FLAGS else f"--{name} {value}" for name, value in conditions.items())
