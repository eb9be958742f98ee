"""The signature of a query, known before any planner call: the columns that it joins."""

from __future__ import annotations

import re

_EQUALITY = re.compile(r"\b([a-z_]\w*\.[a-z_]\w*)\s*=\s*([a-z_]\w*\.[a-z_]\w*)\b")


def signature_of(sql: str) -> str:
    """
    Return the equalities of columns in a statement, sorted, on one line; empty if its text has none.

    The signature only decides whether to look for another plan, so reading the text is exact enough, and takes microseconds.
    """
    pairs = {tuple(sorted(match)) for match in _EQUALITY.findall(sql.lower())}
    return " ".join(f"{left}={right}" for left, right in sorted(pairs))
