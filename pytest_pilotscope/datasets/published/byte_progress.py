"""Progress in per cent, from bytes."""

from __future__ import annotations

from collections.abc import Callable

from pytest_pilotscope.options.progress import Advance

WHOLE = 100
"""Steps of a progress display in per cent."""


def in_per_cent(total_bytes: int, advance: Advance) -> Callable[[int], None]:
    """Return a function of the bytes done so far that advances a display by each per cent; it does nothing if the total is 0 (unknown)."""
    shown = 0

    def show(done_bytes: int) -> None:
        nonlocal shown
        reached = WHOLE * done_bytes // total_bytes if total_bytes else 0
        if reached > shown:
            advance(reached - shown)
            shown = reached

    return show
