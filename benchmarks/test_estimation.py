"""Quality of the estimates: q-error by number of joins, and p-error, beside PostgreSQL's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.report.views import estimation_view


def test_estimation(pilotscope_record: Record, pilotscope_say: Callable[[str], None]) -> None:
    """Every side is judged on the same subplans; the table shows the errors of each."""
    view = estimation_view(pilotscope_record)
    if view is None:
        pytest.skip("no true cardinalities are known for this dataset yet: add an estimator to the run (--algo baseline,oracle)")
    pilotscope_say(view)
    judged = {
        side: {
            (report.query_id, estimate.aliases)
            for report in pilotscope_record.reports
            if report.side == side
            for estimate in report.estimates or ()
        }
        for side in pilotscope_record.header.sides
    }
    assert len({frozenset(subplans) for subplans in judged.values() if subplans}) == 1
