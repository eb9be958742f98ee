"""The sentence on the queries that a side left to PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

from pytest_pilotscope.record.results import QueryReport
from pytest_pilotscope.runs.unsteered import too_many_left
from tests.record.building import record_of

KEEP = "; return {**subplans, ...} to keep PostgreSQL's own rows of the others"


def test_reasons_of_one_kind_are_one_reason() -> None:
    """Reasons that differ in numbers and in their example are shown once, by the most frequent, with the number of all."""
    reasons = [
        f"it has no rows for 1 of 7 subplans, among them a b{KEEP}",
        f"it has no rows for 1 of 15 subplans, among them c d{KEEP}",
        f"it has no rows for 1 of 15 subplans, among them c d{KEEP}",
        "it has no embedding",
        None,
    ]
    record = record_of({side: {f"q{i}": [1.0] for i in range(5)} for side in ("baseline", "misser")}, algorithm="misser")
    reports = tuple(QueryReport(query_id=f"q{i}", side="misser", left=reason) for i, reason in enumerate(reasons))
    assert too_many_left(replace(record, reports=reports), 0.05) == {
        "misser": "misser left 4 of 5 queries (80.0%) to PostgreSQL, and --max-unsteered allows 5.0%: "
        f"it has no rows for 1 of 15 subplans, among them c d{KEEP} (3); it has no embedding (1); "
        "measure queries that it can decide on (--queries), or allow more with --max-unsteered 80%"
    }
