"""What can be said of a query before anything is asked: which columns it joins."""

from __future__ import annotations

import re

_EQUALITY = re.compile(r"\b([a-z_]\w*\.[a-z_]\w*)\s*=\s*([a-z_]\w*\.[a-z_]\w*)\b")


def signature_of(sql: str) -> str:
    """
    Return the equalities of columns in a statement, sorted, on one line; empty where none can be read off its text.

    It only decides whether looking for another plan is worth a try, so that reading text is exact enough and costs microseconds.
    """
    pairs = {tuple(sorted(match)) for match in _EQUALITY.findall(sql.lower())}
    return " ".join(f"{left}={right}" for left, right in sorted(pairs))
