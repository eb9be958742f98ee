"""`--drift` as a text."""

from __future__ import annotations

import argparse

import pytest

from pytest_pilotscope.options.drifts import drift


@pytest.mark.parametrize(
    "text",
    [
        "insert:30%",
        "insert:0%",
        "insert:100%",
        "delete:20%",
        "delete:0.5%",
        "skew:2",
        "skew:0.5",
        "time:70%",
        "time:100%",
        "time:29%:orders.day+at",
        "template:50%",
        "template:0%",
    ],
)
def test_a_drift_is_written_as_it_was_read(text: str) -> None:
    """The record has the words of the command line."""
    assert str(drift(text)) == text


@pytest.mark.parametrize(("text", "meant"), [("time", "time:70%"), ("template", "template:50%")])
def test_two_drifts_have_a_usual_amount(text: str, meant: str) -> None:
    """Seven tenths of the dated rows are the past, and half of the templates are new."""
    assert str(drift(text)) == meant


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "insert",
            "insert:30",
            "insert:101%",
            "delete:100%",
            "delete:-1%",
            "skew:0",
            "skew:2%",
            "skew:nan",
            "grow:3%",
            "delete:1%:day",
        ),
        *("template:100%", "template:2", "template:50%:day", "time:0%", "time:101%", "time:0.7", "time:70%:", "time::day", "time:nan%"),
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    """Each amount has its unit and its bounds."""
    with pytest.raises(argparse.ArgumentTypeError) as found:
        drift(text)
    assert str(found.value) == (
        "expected insert:PERCENT|delete:PERCENT|skew:POWER|time[:PERCENT[:COLUMN]]|template[:PERCENT], such as insert:30%, delete:20%, "
        "skew:2, time:70%, time:70%:orderdate or template:50% (inserts and the past up to 100%, deletes and templates below 100%, a power "
        f"above 0 up to 100), got {text!r}"
    )
