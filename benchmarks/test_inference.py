"""Cost of inference: the time between receiving a query and having steered the server."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.report.views import inference_view


def test_inference(pilotscope_record: Record, pilotscope_say: Callable[[str], None]) -> None:
    """Inference is measured in every execution of a side that has any; the table shows it by number of relations."""
    view = inference_view(pilotscope_record)
    if view is None:
        pytest.skip("no side of this run decides anything while a query waits")
    pilotscope_say(view)
    deciding = {run.side for run in pilotscope_record.runs if run.inference_ms > 0}
    ran = [run for run in pilotscope_record.runs if run.error is None and not run.timed_out]
    assert [run for run in ran if run.side in deciding and run.inference_ms <= 0] == []
