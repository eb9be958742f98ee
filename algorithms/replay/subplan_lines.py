"""
Read the files of the CardEst benchmark (Han et al., PVLDB 15(4), 2022): one number a line, beside a file of sub-plan queries.

    sub_plan_queries/stats_CEB_sub_queries.sql               SELECT COUNT(*) FROM ... WHERE ...;||7
    sub_plan_queries/estimates/stats_CEB_sub_queries_x.txt   1234.5

The number after `||` is the position of the query in its workload, from 0. A sub-plan query has the aliases of its set, and sometimes one
more: a table that connects two others, without the filters that the query has on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.places.givenfiles import read_given, read_lines
from pytest_pilotscope.postgres.scans import MOST_ROWS
from pytest_pilotscope.queries.joins import Schema, Subplan
from pytest_pilotscope.queries.plainparser import parse_plain
from pytest_pilotscope.queries.queries import Query

_LINE = re.compile(r"(?P<sql>.*?);?\s*\|\|\s*(?P<position>\d+)\s*", re.DOTALL)


def read_numbers(path: Path) -> list[float]:
    """Read one number a line. Raise `UsageError`, which names the file and the line."""
    numbers = []
    for number, line in enumerate(_lines(path), 1):
        try:
            numbers.append(float(line))
        except ValueError:
            raise UsageError(f"{path}:{number}: {line[:80]!r} is not a number; a .txt file has one estimate on each line") from None
        if not 0 <= numbers[-1] <= MOST_ROWS:
            raise UsageError(f"{path}:{number}: {line[:80]!r} is no number of rows; it must be from 0 to 1e100")
    return numbers


def _lines(path: Path) -> list[str]:
    try:
        return read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def subplan_file_of(path: Path, lines: int) -> Path:
    """Find the file of sub-plan queries with so many lines, beside a file of numbers or one folder above. Raise `UsageError` without it."""
    folders = (path.parent, path.parent.parent)
    given = [file for folder in folders for file in sorted(folder.glob("*.sql")) if file.is_file()]
    found = [file for file in given if read_given(file).rstrip().count(b"\n") + 1 == lines]
    if len(found) != 1:
        named = ", ".join(str(file) for file in found) or "none"
        raise UsageError(
            f"{path} has {lines} estimates, and beside it and one folder above {len(found)} .sql files have as many lines ({named}); "
            "name its file of sub-plan queries with --replay-subplans"
        )
    return found[0]


class SubplanLine(NamedTuple):
    """A sub-plan query: its aliases, each with the number of its filters, and its estimated rows."""

    filters: dict[str, int]
    rows: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubplanLines:
    """The sub-plan queries of `path` and their estimates, by the position of their query in the workload, from 0."""

    path: Path
    lines: Mapping[int, Sequence[SubplanLine]]
    schema: Schema

    @classmethod
    def read(cls, path: Path, numbers: Sequence[float], schema: Schema) -> SubplanLines:
        """Read a file of sub-plan queries, one for each number; `UsageError` names a line that is none."""
        texts = _lines(path)
        if len(texts) != len(numbers):
            raise UsageError(f"{path} has {len(texts)} sub-plan queries for {len(numbers)} estimates; name the file that they belong to")
        lines: dict[int, list[SubplanLine]] = {}
        for number, (text, rows) in enumerate(zip(texts, numbers, strict=True), 1):
            match = _LINE.fullmatch(text)
            filters = _filters(match["sql"], schema) if match else {}
            if match is None or not filters:
                raise UsageError(f"{path}:{number}: no sub-plan query: {text[:80]!r}; write a plain SELECT;||POSITION on each line")
            lines.setdefault(int(match["position"]), []).append(SubplanLine(filters, rows))
        return cls(path=path, lines=lines, schema=schema)

    def of(self, query: Query) -> dict[Subplan, float]:
        """
        Return the estimates of a query, whose id must end in its place in the workload, from 1: `q001` has position 0.

        Raise `UsageError` if the lines with this position are of another query.
        """
        number = re.search(r"\d+$", query.id)
        lines = self.lines.get(int(number[0]) - 1, ()) if number else ()
        parsed = parse_plain(query.sql, self.schema)
        if not lines or parsed is None:
            return {}
        filters = {alias: len(relation.predicates) for alias, relation in parsed.relations.items()}
        if not filters.keys() <= {alias for line in lines for alias in line.filters}:
            raise UsageError(
                f"{self.path} has other tables for query {query.id!r} (position {int(number[0]) - 1}, from 0); "  # type: ignore[index]
                "measure the workload that the file was made for, in its order"
            )
        return _by_subplan(lines, filters, parsed.subplans())


def _by_subplan(lines: Sequence[SubplanLine], filters: Mapping[str, int], subplans: Sequence[Subplan]) -> dict[Subplan, float]:
    """
    Find the set of each line: its aliases without those that the query does not have, or filters while the line does not.

    A text that stands twice is that of two sets with equal rows, one of them without an alias that only connects others.
    """
    found: dict[Subplan, float] = {}
    twice: dict[Subplan, float] = {}
    for line in lines:
        subplan = frozenset(alias for alias, count in line.filters.items() if alias in filters and (count or not filters[alias]))
        (twice if subplan in found else found)[subplan] = line.rows
    for larger, rows in twice.items():
        smaller = [each for each in subplans if each < larger and len(each) == len(larger) - 1 and each not in found]
        if len(smaller) == 1:
            found[smaller[0]] = rows
    return found


def _filters(sql: str, schema: Schema) -> dict[str, int]:
    """Return the number of filters of each alias; none for a text that is not read."""
    parsed = parse_plain(sql, schema)
    return {} if parsed is None else {alias: len(relation.predicates) for alias, relation in parsed.relations.items()}
