"""Hashes of rows, to compare the answers of two executions whatever their order."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

_MODULUS = 1 << 128


def answer_hash(rows: Iterable[Sequence[object]]) -> str:
    """
    Hash rows so that their order does not matter but their values and number do.

    The sum (mod 2^128) of the rows' own SHA-256 prefixes, 32 hex digits; equal rows count as often as they occur.
    """
    total = 0
    for row in rows:
        total += int.from_bytes(hashlib.sha256(repr(tuple(row)).encode()).digest()[:16], "big") + 1
    return f"{total % _MODULUS:032x}"


def is_empty(rows: Sequence[Sequence[object]]) -> bool:
    """Tell whether a query found nothing: no row, or the one row of an aggregate over no rows, all NULL and 0."""
    return not rows or (len(rows) == 1 and all(value is None or value == 0 for value in rows[0]))
