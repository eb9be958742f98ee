"""`--drift` as a text."""

from __future__ import annotations

import argparse

import pytest

from pytest_pilotscope.options.drifts import drift


@pytest.mark.parametrize("text", ["insert:30%", "insert:0%", "insert:100%", "delete:20%", "delete:0.5%", "skew:2", "skew:0.5"])
def test_a_drift_is_written_as_it_was_read(text: str) -> None:
    """The record has the words of the command line."""
    assert str(drift(text)) == text


@pytest.mark.parametrize(
    "text", ["", "insert", "insert:30", "insert:101%", "delete:100%", "delete:-1%", "skew:0", "skew:2%", "skew:nan", "grow:3%", "template"]
)
def test_any_other_text_is_refused(text: str) -> None:
    """Each amount has its unit and its bounds."""
    with pytest.raises(argparse.ArgumentTypeError) as found:
        drift(text)
    assert str(found.value) == (
        "expected insert:PERCENT|delete:PERCENT|skew:POWER, such as insert:30%, delete:20% or skew:2 (inserts up to 100%, deletes below "
        f"100%, a power above 0 up to 100), got {text!r}"
    )
