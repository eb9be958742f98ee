"""The queries that the sides of a run left to PostgreSQL."""

from __future__ import annotations

import re
from collections import Counter

from pytest_pilotscope.errors import counted
from pytest_pilotscope.record.record import Record

_OF_ONE_QUERY = re.compile(r"\d+|among them [^;]*")
"""The parts in which reasons of the same kind differ: numbers, and the relations of an example."""


def too_many_left(record: Record, most: float) -> dict[str, str]:
    """Return a sentence for each side that left more than this share of its queries to PostgreSQL, with the most frequent reasons."""
    found = {}
    for side in record.header.sides:
        reports = [report for report in record.reports if report.side == side]
        reasons = Counter(report.left for report in reports if report.left is not None)
        if reasons.total() > most * len(reports):
            found[side] = _sentence(side, reasons, len(reports), most)
    return found


def _sentence(side: str, reasons: Counter[str], queries: int, most: float) -> str:
    left, kinds = reasons.total(), _kinds(reasons)
    shown = "; ".join(f"{reason} ({count})" for reason, count in kinds.most_common(3))
    more = f"; and {counted(len(kinds) - 3, 'more reason')}" if len(kinds) > 3 else ""
    return (
        f"{side} left {left} of {counted(queries, 'query', 'queries')} ({left / queries:.1%}) to PostgreSQL, and --max-unsteered allows "
        f"{most:.1%}: {shown}{more}; measure queries that it can decide on (--queries), or allow more with --max-unsteered "
        f"{min(-(-100 * left // queries), 100)}%"
    )


def _kinds(reasons: Counter[str]) -> Counter[str]:
    """Return the most frequent reason of each kind, with the number of queries that have one of the kind."""
    firsts: dict[str, str] = {}
    found: Counter[str] = Counter()
    for reason, count in reasons.most_common():
        found[firsts.setdefault(_OF_ONE_QUERY.sub("", reason), reason)] += count
    return found
