"""The lines at the end of a session, on a terminal and in a pipe."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_pilotscope import plugin
from pytest_pilotscope.report.terminal import wrapped
from pytest_pilotscope.runs.bench import Conclusion
from tests.record.building import record_of

GATE = "mscn on stats_tiny: gate against the reference: FAILED: 2 of 3 queries are certainly slower than in the run that it is judged by"
FAILURE = "the page of mscn_stats_tiny_20250101_000000: PermissionError: [Errno 13] Permission denied: 'results/mscn_stats_tiny.html'"
PATH = "results/mscn_stats_tiny_20250101_000000_of_a_long_name_that_no_terminal_has_columns_for_at_all.jsonl"


def shown(width: int | None) -> list[str]:
    """Return the lines below the tests of a session; without a width it goes into a pipe."""
    lines: list[str] = []
    writer = SimpleNamespace(fullwidth=width, _file=SimpleNamespace(isatty=lambda: width is not None), hasmarkup=False)
    reporter: Any = SimpleNamespace(
        _tw=writer, section=lambda *args, **markup: None, write_line=lambda line, **markup: lines.extend(line.split("\n"))
    )
    record = record_of({"baseline": {"q": [10.0, 10.1]}, "mscn": {"q": [10.0, 10.1]}})
    run = SimpleNamespace(record=record, record_path=Path(PATH), tracking="off (--no-mlflow)", unsent=False)
    conclusion = Conclusion(lines=(GATE,), exit_code=1, interrupted=False, warnings=frozenset(), failures={})
    stash = {plugin.BENCH: SimpleNamespace(finished=[run], failures=[FAILURE]), plugin.CONCLUSION: conclusion}
    config: Any = SimpleNamespace(stash=stash, get_terminal_writer=lambda: writer)
    plugin.pytest_terminal_summary(reporter, config)
    return lines


@pytest.mark.parametrize("width", [40, 80])
def test_sentences_fit_a_terminal(width: int) -> None:
    """The place of the record, the gate's lines and the failures are wrapped between words; a path is not broken."""
    lines = shown(width)
    assert [line for line in lines if len(line) > width] == [PATH + ";"]
    for text in (GATE, FAILURE, f"record: {PATH}; MLflow: off (--no-mlflow)"):
        assert text in " ".join(lines)


def test_sentences_are_whole_in_a_pipe() -> None:
    """Programs that read the output find each in one line."""
    lines = shown(None)
    for text in (GATE, FAILURE, f"record: {PATH}; MLflow: off (--no-mlflow)"):
        assert text in lines


def test_the_lines_of_a_text_stay() -> None:
    """Each line is wrapped by itself, and an empty one stays."""
    assert wrapped("a b\n\nc d", 2) == ["a", "b", "", "c", "d"]
    assert wrapped("a b\n\nc d", None) == ["a b", "", "c d"]
