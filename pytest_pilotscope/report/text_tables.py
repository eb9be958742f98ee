"""The form of all text tables, and the columns and lines that fit a terminal."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

GAP = 2
"""The largest number of blanks around a column of a table."""

_KEPT = "\N{NO-BREAK SPACE}"
_NUMBER = re.compile(r"(?<=\d) (?=(%|ms|s|min|h|kB|MB|GB|TB)\b|%)")
"""The blank between a number and its unit."""


def text_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table whose first column is aligned to the left, and the others to the right; no text in brackets is markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def wrapped(text: str, width: int | None) -> list[str]:
    """
    Return the lines of a text, wrapped between words on a terminal of `width` columns; None is no terminal.

    What continues an indented line is indented further. A number stays beside its unit.
    """
    if width is None:
        return text.split("\n")
    return [part.replace(_KEPT, " ") for line in text.split("\n") for part in _parts(_NUMBER.sub(_KEPT, line), width) or [""]]


def _parts(line: str, width: int) -> list[str]:
    indent = line[: len(line) - len(line.lstrip(" "))]
    return wrap(line, width, break_long_words=False, break_on_hyphens=False, subsequent_indent=indent * 2)


def terminal_width() -> int | None:
    """Return the width of the terminal; None for a file or a pipe, which takes lines of any length."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def fitting(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, *, first_to_go: Sequence[str]) -> tuple[int, ...]:
    """
    Return the places of the columns that fit a terminal of `width` columns next to each other.

    If not all do, drop those of `first_to_go` in order, but before them those that have nothing but zeros or dashes.
    """
    kept = list(range(len(columns)))
    empty = [name for name in first_to_go if {row[columns.index(name)] for row in rows} <= {"0", "-"}]
    for name in dict.fromkeys((*empty, *first_to_go)):
        widths = [max(len(cell) for cell in (columns[place], *(row[place] for row in rows))) + GAP for place in kept]
        if width is None or sum(widths) <= width:
            break
        kept.remove(columns.index(name))
    return tuple(kept)
