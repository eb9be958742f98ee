"""Read a file of estimates: JSON Lines, CSV or Parquet with a query, its aliases and rows on each line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.places.givenfiles import read_given
from pytest_pilotscope.queries.joins import LeveledSubplan, Subplan

Estimates: TypeAlias = Mapping[str, Mapping[Subplan, float]]
"""Query id -> subplan -> rows."""

COLUMNS = ("query", "aliases", "rows")


def read_estimates(path: Path) -> Estimates:
    """
    Read the rows of each subplan by query.

    Each line has `query` (the query's id), `aliases` (a list, or a text with blanks between them), `rows` (empty where there is no
    estimate), and `level` where a statement has several query levels. Raise `UsageError`, which names the file and the line.
    """
    reader = _READERS.get(path.suffix)
    if reader is None:
        raise UsageError(f"{path}: unknown kind of file {path.suffix!r}; give a file that ends in {', '.join(_READERS)} or .txt")
    found: dict[str, dict[Subplan, float]] = {}
    try:
        for number, line in reader(path):
            _add(found, line, f"{path}:{number}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    if not any(found.values()):
        raise UsageError(
            f"{path} has no estimate: no line has a number in rows; fill them in, or let `pilotscope subplans --true-rows` count them"
        )
    return found


def _add(found: dict[str, dict[Subplan, float]], line: Mapping[str, Any], place: str) -> None:
    missing = [name for name in COLUMNS[:2] if line.get(name) in (None, "")]
    if missing:
        raise UsageError(f"{place}: it has no {' and no '.join(missing)}; every line needs {', '.join(COLUMNS)}")
    aliases, level = line["aliases"], line.get("level")
    names = aliases.split() if isinstance(aliases, str) else [str(name) for name in aliases]
    subplan = frozenset(names) if level in (None, "") else LeveledSubplan(int(_number(level, "level", place)), names)
    rows = line.get("rows")
    estimates = found.setdefault(str(line["query"]), {})
    if rows in (None, ""):
        return
    if subplan in estimates:
        raise UsageError(
            f"{place}: {{{', '.join(sorted(subplan))}}} of query {line['query']!r} has an estimate on an earlier line; keep one"
        )
    estimates[subplan] = _number(rows, "rows", place)


def _number(value: object, name: str, place: str) -> float:
    """Return a finite number of at least 0; raise `UsageError`."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = -1.0
    if not isfinite(number) or number < 0:
        raise UsageError(f"{place}: {name} is {value!r}; it must be a number of at least 0")
    return number


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, text in enumerate(read_given(path).decode().splitlines(), 1):
        if text.strip():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{path}:{number}: this is not JSON ({error}); write one JSON object on each line") from error
            if not isinstance(line, dict):
                raise UsageError(f"{path}:{number}: this is a JSON {type(line).__name__}; write one JSON object on each line")
            yield number, line


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := set(COLUMNS) - set(reader.fieldnames or ()):
            raise UsageError(f"{path}:1: the first line has no column {', '.join(sorted(missing))}; it must name {', '.join(COLUMNS)}")
        for line in reader:
            yield reader.line_num, line


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    from pyarrow import ArrowException, parquet

    try:
        lines = parquet.read_table(path).to_pylist()
    except ArrowException as error:
        raise UsageError(f"{path} is not a Parquet file: {error}") from error
    yield from enumerate(lines, 1)


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Mapping[str, Any]]]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
