"""The load of the machine, as the record has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_pilotscope.runs.machine_load import machine_load

STAT = "cpu  100 20 30 4000 5 6 7 32 90 1\ncpu0 1 2 3 4 5 6 7 8 9 10\n"


def test_the_times_of_all_processors_are_added_up(tmp_path: Path) -> None:
    """Stolen time is the eighth number; a guest's time, the ninth, is in the first already."""
    stat = tmp_path / "stat"
    stat.write_text(STAT, encoding="ascii")
    load = machine_load(stat)
    assert load is not None
    second = os.sysconf("SC_CLK_TCK")
    assert (load.stolen_s, load.elapsed_s) == (32 / second, 4200 / second)


@pytest.mark.parametrize("text", [None, "cpu  1 2 3 4 5\n"])
def test_a_system_that_does_not_tell(text: str | None, tmp_path: Path) -> None:
    """Without /proc/stat, or with the one of an old kernel, the load average is left."""
    stat = tmp_path / "stat"
    if text is not None:
        stat.write_text(text, encoding="ascii")
    load = machine_load(stat)
    assert load is not None
    assert (load.stolen_s, load.elapsed_s) == (None, None)


def test_the_load_average_is_that_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processors are those that this process may use."""
    monkeypatch.setattr(os, "getloadavg", lambda: (3.5, 2.0, 1.0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 4, 5}, raising=False)
    load = machine_load()
    assert load is not None
    assert (load.load_average, load.processors) == (3.5, 3)


def test_without_a_load_average_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may keep it from us."""

    def refused() -> tuple[float, float, float]:
        raise OSError

    monkeypatch.setattr(os, "getloadavg", refused)
    assert machine_load() is None
