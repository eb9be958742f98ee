"""Quality of the estimates: q-error by number of joins, and p-error, beside PostgreSQL's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.report.views import estimation_view


def test_estimation(pilotscope_record: Record, pilotscope_say: Callable[[str], None]) -> None:
    """In each query all sides are judged on the same subplans; the table shows the errors of each."""
    view = estimation_view(pilotscope_record)
    if view is None:
        pytest.skip("no true cardinalities are known for this dataset yet: add an estimator to the run (--algo baseline,oracle)")
    pilotscope_say(view)
    judged: dict[str, dict[str, list[tuple[str, ...]]]] = {}
    for report in pilotscope_record.reports:
        if report.estimates:
            judged.setdefault(report.query_id, {})[report.side] = sorted(estimate.aliases for estimate in report.estimates)
    assert {query: sides for query, sides in judged.items() if any(sets != next(iter(sides.values())) for sets in sides.values())} == {}
