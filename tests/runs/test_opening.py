"""The end of a record."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pytest_pilotscope.record.record import RecordWriter, read_record
from pytest_pilotscope.runs.opening import ending
from tests.record.building import record_of


@pytest.mark.parametrize(
    ("message", "recorded"),
    [("bad byte \0", r"ValueError: bad byte \0"), ("x" * 5000, f"ValueError: {'x' * 3988}... (5012 characters)")],
)
def test_any_message_ends_a_record(tmp_path: Path, message: str, recorded: str) -> None:
    """A NUL, which no line of a record holds, and a message of any length: the run is FAILED, with its reason."""
    writer = RecordWriter(tmp_path / "r.jsonl", record_of({"baseline": {}, "mscn": {}}).header)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"), writer, ending(writer, {"mscn": message}):
        raise ValueError(message)
    end = read_record(tmp_path / "r.jsonl").end
    assert end is not None
    assert (end.status, end.error) == ("FAILED", recorded)
    assert end.failures == {"mscn": recorded.removeprefix("ValueError: ") if "\0" in message else f"{'x' * 4000}... (5000 characters)"}


def test_the_end_has_the_load_of_the_machine(tmp_path: Path) -> None:
    """Whatever the end; the header has the load at the start, and the verdict compares both."""
    writer = RecordWriter(tmp_path / "r.jsonl", record_of({"baseline": {}, "mscn": {}}).header)
    with pytest.raises(KeyboardInterrupt), writer, ending(writer, {}):
        raise KeyboardInterrupt
    end = read_record(tmp_path / "r.jsonl").end
    assert end is not None
    assert end.status == "KILLED"
    assert end.machine_load is not None
    assert end.machine_load.processors >= 1
