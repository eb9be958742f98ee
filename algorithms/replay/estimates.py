"""Read a file of estimates: JSON Lines, CSV or Parquet with a query, its aliases and rows on each line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from io import StringIO
from math import isfinite
from pathlib import Path
from typing import Any, TypeAlias

from pytest_pilotscope.errors import UsageError, shortened
from pytest_pilotscope.places.givenfiles import read_given, read_lines
from pytest_pilotscope.postgres.scans import MOST_ROWS
from pytest_pilotscope.postgres.subplans import parse_aliases
from pytest_pilotscope.queries.joins import LeveledSubplan, Subplan

Estimates: TypeAlias = Mapping[str, Mapping[Subplan, float]]
"""Query id -> subplan -> rows."""

COLUMNS = ("query", "aliases", "rows")


def read_estimates(path: Path) -> Estimates:
    """
    Read the rows of each subplan by query.

    Each line has `query` (the query's id), `aliases` (a list, or a text with blanks between them, where a name with a blank is in double
    quotes), `rows` (empty where there is no estimate), and `level` where a statement has several query levels. Raise `UsageError`, which
    names the file and the line.
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
    query, rows = line["query"], line.get("rows")
    if isinstance(query, bool) or not isinstance(query, str | int):
        raise UsageError(f"{place}: query is {query!r}; it must be the id of a query")
    subplan = _subplan(line["aliases"], line.get("level"), place)
    estimates = found.setdefault(str(query), {})
    if rows in (None, ""):
        return
    if subplan in estimates:
        raise UsageError(f"{place}: {{{', '.join(sorted(subplan))}}} of query {query!r} has an estimate on an earlier line; keep one")
    number = _number(rows)
    if number is None or not 0 <= number <= MOST_ROWS:
        raise UsageError(f"{place}: rows is {shortened(repr(rows))}; it must be a number from 0 to 1e100")
    estimates[subplan] = number


def _subplan(aliases: object, level: object, place: str) -> Subplan:
    names = parse_aliases(aliases) if isinstance(aliases, str) else aliases
    if not isinstance(names, Collection) or isinstance(names, Mapping) or not names or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{place}: aliases is {shortened(repr(aliases))}; it must be a list of names, or a text with blanks between them")
    if level in (None, ""):
        return frozenset(names)
    number = _number(level)
    if number is None or number < 1 or number % 1:
        raise UsageError(f"{place}: level is {shortened(repr(level))}; it must be a whole number of at least 1")
    return LeveledSubplan(int(number), names)


def _number(value: object) -> float | None:
    """Return a finite number, None for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return number if isfinite(number) and not isinstance(value, bool) else None


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, text in enumerate(read_lines(path), 1):
        if text.strip():
            try:
                line = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise UsageError(f"{path}:{number}: this is not JSON ({error}); write one JSON object on each line") from error
            if not isinstance(line, dict):
                raise UsageError(f"{path}:{number}: this is a JSON {type(line).__name__}; write one JSON object on each line")
            yield number, line


def _csv(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    text = read_given(path).decode("utf-8-sig")
    before = csv.field_size_limit(max(len(text), 1))  # the SQL of a set may be longer than a field by default
    try:
        reader = csv.DictReader(StringIO(text, newline=""), strict=True)
        if missing := set(COLUMNS) - set(reader.fieldnames or ()):
            raise UsageError(f"{path}:1: the first line has no column {', '.join(sorted(missing))}; it must name {', '.join(COLUMNS)}")
        for line in reader:
            yield reader.line_num, line
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    from pyarrow import ArrowException, BufferReader, parquet

    try:
        file = parquet.ParquetFile(BufferReader(read_given(path)))
        columns = [name for name in (*COLUMNS, "level") if name in file.schema_arrow.names]
        lines = (line for batch in file.iter_batches(columns=columns) for line in batch.to_pylist())
        yield from enumerate(lines, 1)
    except ArrowException as error:
        raise UsageError(f"{path} is not a Parquet file: {error}") from error


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Mapping[str, Any]]]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
