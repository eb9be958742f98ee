"""Remarks on choices, and on the estimates that a record is about."""

from __future__ import annotations

from pytest_pilotscope.report.remarks import all_remarks
from pytest_pilotscope.statistics.summary import summarize
from tests.report.samples import comparison


def test_the_quality_of_plan_choices_is_stated() -> None:
    """The remark states accuracy and regret on validation queries with all candidates executed, beside PostgreSQL's own regret."""
    record = comparison()
    (text,) = (remark.text for remark in all_remarks(record, summarize(record)) if "regret" in remark.text)
    assert text == (
        "fast: the best-scored plan was the fastest in 75% of 40 validation queries with all candidate plans executed; "
        "regret 8.0% (PostgreSQL's own plans: 20.0%)"
    )
