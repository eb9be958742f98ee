"""The tables that tests of a run show below their names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pytest_pilotscope.report.views import inference_view
from tests.record.building import record_of


@pytest.mark.parametrize("side", ["mscn", "mscn-retrained"])
def test_the_table_of_inference_fits_eighty_columns(side: str) -> None:
    """Its longest line does, with the longest name of a built-in side."""
    record = record_of({"baseline": {"q0": [10.0, 10.1]}, side: {"q0": [10.0, 10.1]}})
    runs = tuple(replace(run, inference_ms=123.45 if run.side == side else 0.0, inference_processor_ms=100.0) for run in record.runs)
    view = inference_view(replace(record, runs=runs))
    assert view is not None
    assert max(map(len, view.split("\n"))) <= 80
    assert side in view
