"""Progress on a terminal (a bar) and in a log (lines)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from shutil import get_terminal_size
from time import monotonic
from typing import TYPE_CHECKING, TextIO

from pytest_pilotscope.options.progress import Advance, ShowProgress
from pytest_pilotscope.report.text_tables import wrapped

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

Uncaptured = Callable[[], AbstractContextManager[None]]
Say = Callable[[str], None]
"""Shows one line to the user at once."""

LINES_PER_LOG = 10
"""The largest number of lines that a finished task leaves in a log."""

SHORT_S = 1.0
"""The least time between two lines in a log, so that a short task leaves its last line only."""


def progress_for(stream: TextIO, *, live: bool, uncaptured: Uncaptured) -> tuple[Say, ShowProgress]:
    """
    Return a function that shows a text on a stream, wrapped between words on a terminal, and one that shows progress.

    Both enter `uncaptured` around every write, because a test runner captures the output of its tests.
    """

    def say(text: str) -> None:
        lines = "\x1b[K\n".join(wrapped(text, get_terminal_size().columns if live else None))
        with uncaptured():
            stream.write(f"\r{lines}\x1b[K\n" if live else f"\n{text}")  # in a log the line before may still be pytest's
            stream.flush()

    return say, (_bar(stream, uncaptured) if live else _lines(say))


def _lines(say: Say) -> ShowProgress:
    @contextmanager
    def show(description: str, total: int) -> Iterator[Advance]:
        started, done = monotonic(), 0
        said = started
        every = max(1, -(-total // LINES_PER_LOG))

        def advance(steps: int = 1) -> None:
            nonlocal done, said
            before, done = done, done + steps
            now = monotonic()
            if done >= total > before or (done // every > before // every and now - said >= SHORT_S):
                said, elapsed_s = now, now - started
                left_s = elapsed_s / done * (total - done)
                say(f"{description}: {done}/{total}, {elapsed_s:.0f} s elapsed, {left_s:.0f} s left")

        yield advance

    return show


def _columns() -> tuple[ProgressColumn, ...]:
    """Return the columns of a bar. If they are wider than the terminal, the description gives way, and no number does."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    return (
        TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=10),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TextColumn("elapsed"),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        TextColumn("left"),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    )


def _bar(stream: TextIO, uncaptured: Uncaptured) -> ShowProgress:
    @contextmanager
    def show(description: str, total: int) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import Progress

        # Without automatic refresh: a background thread would take time from the measurement.
        bar = Progress(*_columns(), console=Console(file=stream, force_terminal=True), auto_refresh=False, transient=True, expand=True)
        task = bar.add_task(description, total=total)
        with uncaptured():
            bar.start()

        def advance(steps: int = 1) -> None:
            with uncaptured():
                bar.update(task, advance=steps, refresh=True)

        try:
            yield advance
        finally:
            with uncaptured():
                bar.stop()

    return show
