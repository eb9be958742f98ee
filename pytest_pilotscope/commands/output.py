"""
Tables for people and JSON for programs.

On a terminal a table has lines and colours and fits the width: it drops columns, wraps text between words, and shortens words that are
still too long. In a file or pipe it is text with aligned columns, uncut and the same on every machine.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import datetime
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

MISSING = "-"
"""The text for a missing value."""

_UNLIMITED = 100_000
_STYLES: Mapping[str, str] = {
    "better": "green",
    "worse": "red",
    "FINISHED": "green",
    "FAILED": "red",
    "KILLED": "yellow",
    "RUNNING": "cyan",
    "ok": "green",
    "none": "yellow",
    "FAULT": "bold red",
    "failed": "bold red",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table; numbers are aligned to the right, and never shortened."""

    title: str
    number: bool = False


def show_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, first_to_go: Sequence[str] = ()) -> None:
    """Write a table to standard output. If it is too wide for the terminal, drop the columns of `first_to_go` in order."""
    from rich.console import Console

    from pytest_pilotscope.report.text_tables import fitting, terminal_width

    width, rows = terminal_width(), list(rows)
    kept = fitting([column.title for column in columns], rows, width, first_to_go=first_to_go)
    columns, rows = [columns[place] for place in kept], [[row[place] for place in kept] for row in rows]
    if sys.stdout.isatty():
        Console(width=width).print(_table(columns, rows, lines=True))
        return
    text = StringIO()
    Console(file=text, width=_UNLIMITED, color_system=None, force_terminal=False).print(_table(columns, rows, lines=False))
    click.echo("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def say(text: str, *, err: bool = False) -> None:
    """Write sentences, wrapped between words on a terminal."""
    from pytest_pilotscope.report.text_tables import terminal_width, wrapped

    click.echo("\n".join(wrapped(text, terminal_width())), err=err)


def show_json(value: Any) -> None:
    """Write a value to standard output as JSON; moments are ISO 8601, numbers that are not finite are null."""
    click.echo(json.dumps(_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False))


def number(value: float | None) -> str:
    """Return a number with six significant digits."""
    return MISSING if value is None else f"{value:.6g}"


def moment(value: datetime | None) -> str:
    """Return a moment in UTC, to the minute."""
    return MISSING if value is None else f"{value:%Y-%m-%d %H:%M}"


def size(size_bytes: int) -> str:
    """Return a number of bytes in decimal units."""
    from rich.filesize import decimal

    return decimal(size_bytes)


def _table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, lines: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if lines else None, pad_edge=False, padding=(0, 1 if lines else 2, 0, 0))
    for column in columns:
        table.add_column(column.title, justify="right" if column.number else "left", overflow="ellipsis", no_wrap=column.number)
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return table


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not isfinite(value):
        return None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return _jsonable(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return sorted(value) if isinstance(value, frozenset) else value
