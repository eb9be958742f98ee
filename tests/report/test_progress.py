"""Lines on a terminal with a progress bar."""

from __future__ import annotations

import io
from contextlib import nullcontext

from pytest_pilotscope.report.progress import progress_for


def test_nothing_of_a_bar_is_left_behind_a_line() -> None:
    """A line on a terminal replaces a bar, even if that is longer."""
    stream = io.StringIO()
    say, _ = progress_for(stream, live=True, uncaptured=nullcontext)
    say("short")
    assert stream.getvalue() == "\rshort\x1b[K\n"
