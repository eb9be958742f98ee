"""The two types of a progress display, for code that does not know the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
"""A function that takes the number of steps done since the last call."""

ShowProgress = Callable[[str, int], AbstractContextManager[Advance]]
"""A function that opens a progress display for a description and a number of steps."""


@contextmanager
def silent(_description: str, _total: int) -> Iterator[Advance]:
    """Show no progress."""
    yield lambda steps: None
