"""Progress: lines in a log, and a bar on a terminal."""

from __future__ import annotations

import io
import re
from contextlib import nullcontext

import pytest

from pytest_pilotscope.report import progress as module
from pytest_pilotscope.report.progress import progress_for


def shown(*, live: bool, description: str, total: int, steps: int) -> list[str]:
    """Return the lines that a task of so many steps leaves."""
    stream = io.StringIO()
    _, progress = progress_for(stream, live=live, uncaptured=nullcontext)
    with progress(description, total) as advance:
        for _ in range(steps):
            advance(1)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    return [line for line in re.split("[\r\n]", text) if line]


def test_nothing_of_a_bar_is_left_behind_a_line() -> None:
    """A line on a terminal replaces a bar, even if that is longer."""
    stream = io.StringIO()
    say, _ = progress_for(stream, live=True, uncaptured=nullcontext)
    say("short")
    assert stream.getvalue() == "\rshort\x1b[K\n"


@pytest.mark.parametrize("width", [40, 80])
def test_a_sentence_is_wrapped_between_words_on_a_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is longer than the terminal, and no word is broken; a log has the sentence in one line."""
    monkeypatch.setenv("COLUMNS", str(width))
    sentence = "pilotscope: shop on embedded PostgreSQL 18.4 (first choice of --server auto); no assertions; statistics d4092e3e0756"
    terminal, log = io.StringIO(), io.StringIO()
    progress_for(terminal, live=True, uncaptured=nullcontext)[0](sentence)
    progress_for(log, live=False, uncaptured=nullcontext)[0](sentence)
    lines = terminal.getvalue().removeprefix("\r").removesuffix("\x1b[K\n").split("\x1b[K\n")
    assert max(map(len, lines)) <= width
    assert " ".join(lines) == sentence
    assert log.getvalue() == f"\n{sentence}"


@pytest.mark.parametrize("total", [1, 3, 10, 11, 146, 1000])
def test_a_log_has_a_line_per_tenth(total: int) -> None:
    """It has ten lines at most, the last one with all steps, and the times are labelled."""
    lines = shown(live=False, description="mscn on stats_tiny", total=total, steps=total)
    assert len(lines) <= 10
    assert lines[-1] == f"mscn on stats_tiny: {total}/{total}, 0 s elapsed, 0 s left"


@pytest.mark.parametrize(("step_s", "shown_at"), [(0.0, [100]), (0.05, [20, 40, 60, 80, 100]), (1.0, list(range(10, 101, 10)))])
def test_a_short_task_leaves_few_lines_in_a_log(monkeypatch: pytest.MonkeyPatch, step_s: float, shown_at: list[int]) -> None:
    """Lines are a second apart or more; the last one is always there."""
    clock = iter(range(1000))
    monkeypatch.setattr(module, "monotonic", lambda: step_s * next(clock))
    lines = shown(live=False, description="labels", total=100, steps=100)
    assert [int(re.findall(r"(\d+)/100", line)[0]) for line in lines] == shown_at


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_bar_fits_with_count_elapsed_and_left(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long the description is, the numbers and their labels are in the line, and the line fits."""
    monkeypatch.setenv("COLUMNS", str(width))
    description = "compare on a_dataset_with_a_long_name: baseline, oracle, mscn, lero, index, knob, 5 more rounds"
    line = shown(live=True, description=description, total=1000, steps=335)[-1]
    assert len(line) <= width
    assert re.search(r" 335/1000 elapsed 0:00:0\d left 0:00:0\d *$", line)
    assert line.startswith("compare ")
