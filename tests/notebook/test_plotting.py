"""The plots of results."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pytest_pilotscope import Results
from pytest_pilotscope.errors import RecordError, UnknownName
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import QueryReport, SubplanEstimate, TrainingReport
from pytest_pilotscope.report.svg import COLOURS, LOSS, WIN
from tests.record.building import record_of


def _record() -> Record:
    estimates = (SubplanEstimate(aliases=("a", "b"), estimated=10.0, true=40.0), SubplanEstimate(aliases=("a",), estimated=3.0, true=3.0))
    return replace(
        record_of({"baseline": {"q1": [100.0] * 5, "q2": [40.0] * 5}, "mscn": {"q1": [50.0] * 5, "q2": [41.0] * 5}}),
        reports=(QueryReport(query_id="q1", side="mscn", estimates=estimates),),
        training=(
            TrainingReport(side="mscn", duration_s=2.0, metrics={"train_loss": (3.0, float("inf"), 2.0), "learning_rate": (1.0, 0.5)}),
        ),
    )


def test_speedup_draws_a_bar_for_each_query() -> None:
    """The slowest comes first; the axes are the user's if there are any."""
    ax = Figure().subplots()
    assert Results((_record(),)).plot.speedup(ax=ax) is ax
    assert [round(bar.get_height() + 1, 2) for bar in ax.patches if isinstance(bar, Rectangle)] == [0.98, 2.0]
    assert ax.get_ylabel() == "speed-up with mscn"
    assert [to_hex(bar.get_facecolor()) for bar in ax.patches] == [COLOURS[colour][1] for colour in (LOSS, WIN)]


def test_qerror_and_training_draw_on_new_axes() -> None:
    """A metric is chosen by name, or is the first; the same calls without data say so."""
    plot = Results((_record(),)).plot
    assert plot.qerror().get_ylabel() == "q-error"
    assert plot.training().get_ylabel() == "train_loss"
    assert plot.training("learning_rate").get_ylabel() == "learning_rate"


def test_what_cannot_be_drawn_is_an_error() -> None:
    """A plot without data would look like a result."""
    bare = Results((record_of({"baseline": {"q": [1.0]}}, algorithm="baseline"),)).plot
    for draw, missing in (
        (bare.speedup, "no side that was compared with the baseline"),
        (bare.qerror, "no subplan with estimated and true rows"),
        (bare.training, "no metric of training"),
    ):
        message = f"baseline_stats_tiny_20250101_000000 has {missing}, so there is nothing to draw"
        with pytest.raises(RecordError, match=f"^{re.escape(message)}$"):
            draw()
    with pytest.raises(
        UnknownName, match=r"^unknown metric 'loss' of mscn_stats_tiny_20250101_000000; .*known: learning_rate, train_loss$"
    ):
        Results((_record(),)).plot.training("loss")
