"""
Answers: hashed while their rows arrive, and compared value by value where the hashes differ.

Rows are the text that PostgreSQL sends, which has every value (dates before Christ, infinity) and no type of Python's. Their order does
not matter. Numbers that may be the result of floating-point arithmetic count as equal within `TOLERANCE`.
"""

from __future__ import annotations

import hashlib
import heapq
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from math import isclose
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.postgres.streaming import TextRow

TOLERANCE = 1e-9
"""The relative difference of two floating-point numbers that count as equal."""

_MODULUS = 1 << 128
_BOOLEAN, _NUMERIC = 16, 1700
_NUMBERS = frozenset([20, 21, 23, 26, 700, 701, _NUMERIC])
# real, double precision, json, jsonb, geometry, record and the arrays of these; a type made by the user may have a float in it, too.
_FLOATING = frozenset([114, 199, 600, 601, 602, 603, 604, 628, 629, 700, 701, 718, 719, 1017, 1018, 1019, 1020, 1021, 1022, 1027])
_FLOATING |= {2249, 2287, 3802, 3807}
_FLOATS = frozenset([600, 601, 602, 603, 604, 628, 700, 701, 718, 1017, 1018, 1019, 1020, 1021, 1022, 1027])
"""Of these, the types in which every number is floating, also one that is written like a whole one."""
_FIRST_USER_OID = 16384
_FINITE = re.compile(rb"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.])")
_GROUPED = "SELECT outline, first, numbers, count(*) FROM split GROUP BY outline, first, numbers ORDER BY outline, first"
_ZEROS = re.compile(rb"\.?0+$")
_DECIMAL = re.compile(rb"\d+\.\d+")
_NUMERICS = frozenset([_NUMERIC, 1231, 3906, 3907, 4532])  # numeric, its arrays and ranges

Split = tuple[bytes, list[bytes]]
"""A row without its floating-point numbers, and these numbers."""


def is_floating(type_oid: int) -> bool:
    """Tell whether values of a type may contain floating-point numbers."""
    return type_oid in _FLOATING or type_oid >= _FIRST_USER_OID


def answer_hash(rows: Iterable[Sequence[object]]) -> str:
    """
    Hash rows so that their order does not matter but their values and number do.

    The sum (mod 2^128) of the rows' own SHA-256 prefixes, 32 hex digits; equal rows count as often as they occur.
    """
    return f"{_sum_of(b''.join(_field(_bytes(value)) for value in row) for row in rows):032x}"


def is_empty(rows: Sequence[Sequence[object]]) -> bool:
    """Tell whether a query found nothing: no row, or the one row of an aggregate over no rows, all NULL and 0."""
    return not rows or (len(rows) == 1 and all(value is None or value == 0 for value in rows[0]))


class Answer:
    """The hashes of the rows taken so far: of all values, and of the rows without their floating-point numbers."""

    def __init__(self) -> None:
        self.row_count = 0
        self._exact = self._outline = 0
        self._first: Sequence[object] = ()

    def take(self, types: Sequence[int], rows: Iterator[TextRow]) -> None:
        """Add rows. Both hashes are one where no column is floating."""
        floating = any(map(is_floating, types))
        for row in rows:
            self._first = self._first if self.row_count else tuple(map(_typed, types, row))
            self.row_count += 1
            exact = _sum_of([_whole(types, row)])
            self._exact += exact
            self._outline += _sum_of([split(types, row, ())[0]]) if floating else exact

    @property
    def hash(self) -> str:
        """32 hex digits: the values and the number of the rows, in any order."""
        return f"{self._exact % _MODULUS:032x}"

    @property
    def empty(self) -> bool:
        """True if the query found nothing."""
        return is_empty([self._first] * self.row_count if self.row_count < 2 else [(), ()])

    def like(self, other: Answer) -> bool:
        """Tell whether two answers differ in floating-point numbers only."""
        return self.row_count == other.row_count and (self._outline - other._outline) % _MODULUS == 0


def answer_of(session: Session, sql: str) -> Answer:
    """Run a statement for its answer."""
    answer = Answer()
    session.stream(sql, answer.take)
    return answer


class SplitRows:
    """
    Rows of an answer in a temporary file of SQLite's, sorted there, so that they need no memory.

    Columns that are `left_out` are not kept; `left_out_floating` tells whether one of them is floating.
    """

    def __init__(self, left_out: Callable[[Sequence[int]], Collection[int]]) -> None:
        self._left_out = left_out
        self.left_out_floating = False
        self._file = sqlite3.connect("", isolation_level=None)
        self._file.execute("CREATE TABLE split (outline BLOB, first REAL, numbers BLOB)")

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def take(self, types: Sequence[int], rows: Iterator[TextRow]) -> None:
        """Add rows."""
        left_out = self._left_out(types)
        self.left_out_floating = any(is_floating(types[number]) for number in left_out)
        made = (split(types, row, left_out) for row in rows)
        self._file.execute("BEGIN")
        self._file.executemany(
            "INSERT INTO split VALUES (?, ?, ?)",
            ((_digest(outline), float(numbers[0]) if numbers else 0.0, b" ".join(numbers)) for outline, numbers in made),
        )
        self._file.execute("COMMIT")

    def equal(self, other: SplitRows, *, relative: float = TOLERANCE, absolute: float = 0.0) -> bool:
        """Tell whether both have the same rows, their numbers within a tolerance."""

        def near(one: _Sorted, next_one: _Sorted) -> bool:
            return one.outline == next_one.outline and isclose(one.first, next_one.first, rel_tol=relative, abs_tol=absolute)

        merged = heapq.merge(self._sorted(0), other._sorted(1))
        return all(_matching(group, 0, relative, absolute) for group in _groups(merged, near))

    def _sorted(self, side: int) -> Iterator[_Sorted]:
        with closing(self._file.execute(_GROUPED)) as found:
            for outline, first, numbers, times in found:
                yield _Sorted(outline, first, -times if side else times, numbers.split())


class _Sorted(NamedTuple):
    """Equal rows of one of two answers; `times` is their number, negative for the second answer."""

    outline: bytes
    first: float
    times: int
    numbers: list[bytes]


def split(types: Sequence[int], row: TextRow, left_out: Collection[int]) -> Split:
    """Part a row into the bytes that must be equal and the numbers that need only be close. NaN and infinity must be equal."""
    parts: list[bytes] = []
    numbers: list[bytes] = []
    for number, (type_oid, value) in enumerate(zip(types, row, strict=True)):
        if number in left_out:
            parts.append(_field(b""))
        elif value is not None and is_floating(type_oid):
            found = _FINITE.findall(value)
            numbers += [one + b"e0" if one.lstrip(b"-").isdigit() else one for one in found] if type_oid in _FLOATS else found
            parts.append(_field(_FINITE.sub(b"#", value)))
        else:
            parts.append(_field(_canonical(type_oid, value)))
    return b"".join(parts), numbers


def _matching(group: Sequence[_Sorted], position: int, relative: float, absolute: float) -> bool:
    """Tell whether the rows of both sides pair up in all numbers from `position` on."""
    if sum(one.times for one in group) != 0:
        return False
    if position == len(group[0].numbers):
        return True

    def near(one: _Sorted, next_one: _Sorted) -> bool:
        mine, theirs = one.numbers[position], next_one.numbers[position]
        whole = mine.lstrip(b"-").isdigit() and theirs.lstrip(b"-").isdigit()
        return mine == theirs or (not whole and isclose(float(mine), float(theirs), rel_tol=relative, abs_tol=absolute))

    ordered = sorted(group, key=lambda one: (float(one.numbers[position]), one.numbers[position]))
    return all(_matching(part, position + 1, relative, absolute) for part in _groups(ordered, near))


def _groups(ordered: Iterable[_Sorted], near: Callable[[_Sorted, _Sorted], bool]) -> Iterator[list[_Sorted]]:
    """Yield runs of rows each of which is near the one before."""
    group: list[_Sorted] = []
    for one in ordered:
        if group and not near(group[-1], one):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _whole(types: Sequence[int], row: TextRow) -> bytes:
    return b"".join(_field(_canonical(type_oid, value)) for type_oid, value in zip(types, row, strict=True))


def _canonical(type_oid: int, value: bytes | None) -> bytes | None:
    """Return a value so that equal values are equal texts: numbers of type `numeric` without the zeros at their end."""
    if not value or type_oid not in _NUMERICS or b"." not in value:
        return value
    return _DECIMAL.sub(lambda found: _ZEROS.sub(b"", found[0]), value)


def _field(value: bytes | None) -> bytes:
    """Mark a value so that rows with other borders between their values differ; no text has a NUL."""
    return b"\0N" if value is None else b"\0V" + value


def _bytes(value: object) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    return bytes(value) if isinstance(value, memoryview) else str(value).encode()


def _typed(type_oid: int, value: bytes | None) -> object:
    if value is None:
        return None
    return float(value) if type_oid in _NUMBERS else value == b"t" if type_oid == _BOOLEAN else value


def _digest(row: bytes) -> bytes:
    return hashlib.sha256(row).digest()[:16]


def _sum_of(rows: Iterable[bytes]) -> int:
    return sum(int.from_bytes(_digest(row), "big") + 1 for row in rows) % _MODULUS
