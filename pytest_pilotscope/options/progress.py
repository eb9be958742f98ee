"""Showing how far a long task is, without knowing where it is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
"""Call it with how many more steps are done."""

ShowProgress = Callable[[str, int], AbstractContextManager[Advance]]
"""Opens a progress display for a description and a number of steps."""


@contextmanager
def silent(_description: str, _total: int) -> Iterator[Advance]:
    """Show no progress."""
    yield lambda steps: None
