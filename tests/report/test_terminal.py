"""The lines at the end of a session, on a terminal and in a pipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_pilotscope import plugin
from pytest_pilotscope.record.projection import COMPARISON, runs_of
from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import MachineLoad
from pytest_pilotscope.report.terminal import render_records
from pytest_pilotscope.report.text_tables import wrapped
from pytest_pilotscope.runs.bench import Conclusion
from tests.record.building import record_of

GATE = "mscn on stats_tiny: gate against the reference: FAILED: 2 of 3 queries are certainly slower than in the run that it is judged by"
FAILURE = "the page of mscn_stats_tiny_20250101_000000: PermissionError: [Errno 13] Permission denied: 'results/mscn_stats_tiny.html'"
PATH = "results/mscn_stats_tiny_20250101_000000_of_a_long_name_that_no_terminal_has_columns_for_at_all.jsonl"


def shown(width: int | None, records: Sequence[Record] = ()) -> list[str]:
    """Return the lines below the tests of a session that measured these records, or one; without a width it goes into a pipe."""
    lines: list[str] = []
    writer = SimpleNamespace(fullwidth=width, _file=SimpleNamespace(isatty=lambda: width is not None), hasmarkup=False)
    reporter: Any = SimpleNamespace(
        _tw=writer, section=lambda *args, **markup: None, write_line=lambda line, **markup: lines.extend(line.split("\n"))
    )
    record = record_of({"baseline": {"q": [10.0, 10.1]}, "mscn": {"q": [10.0, 10.1]}})
    runs = [SimpleNamespace(record=one, record_path=Path(PATH), tracking="off (--no-mlflow)", unsent=False) for one in records or [record]]
    conclusion = Conclusion(lines=(GATE,), exit_code=1, interrupted=False, warnings=frozenset(), failures={})
    stash = {plugin.BENCH: SimpleNamespace(finished=runs, failures=[FAILURE]), plugin.CONCLUSION: conclusion}
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


@pytest.mark.parametrize(("rounds", "told"), [(1, "1 round"), (5, "5 rounds")])
def test_the_title_of_a_table_is_one_line(rounds: int, told: str) -> None:
    """It may be wider than its table, and one round is one."""
    times = {"q1": [1.0] * rounds}
    record = record_of({"baseline": times, "mscn": times}, algorithm="compare")
    text = render_records([replace(record, header=replace(record.header, rounds=rounds))], width=80, color=False)
    assert f"{record.header.run_name}: FINISHED, {told}, seed 0" in [line.rstrip() for line in text.splitlines()]


def test_a_number_stays_beside_its_unit() -> None:
    """No line begins with a unit."""
    assert wrapped("it saves 1.9 s of 46.8 %, 3 sides", 12) == ["it saves", "1.9 s of", "46.8 %, 3", "sides"]


def test_what_continues_an_indented_line_is_indented_further() -> None:
    """The reasons below a verdict are told apart."""
    assert wrapped("gate: it passed\n  state: a long one", 12) == ["gate: it", "passed", "  state: a", "    long one"]


def test_runs_that_share_a_baseline_say_once_what_holds_for_all_of_them() -> None:
    """The machine's load and the sharing are said once, the moment of the run not at all, and the baseline alone comes last."""
    record = record_of({side: {"q0": [10.0, 10.1], "q1": [20.0, 20.2]} for side in ("baseline", "oracle", "mscn")}, algorithm=COMPARISON)
    record = replace(record, header=replace(record.header, machine_load=MachineLoad(processors=2, load_average=9.0)))
    shared = "oracle, mscn on stats_tiny, 2025-01-01T00:00:00.123456+00:00"
    runs = [replace(run, header=replace(run.header, shared_baseline=shared)) for run in runs_of(record)]
    text = "\n".join(shown(None, runs))
    assert text.count("Measured on a loaded machine") == 1
    assert text.count("Measured in turns against one baseline: oracle, mscn on stats_tiny. These runs have the same executions") == 1
    places = [text.index(f"{name}_stats_tiny_20250101_000000: FINISHED") for name in ("oracle", "mscn", "baseline")]
    assert places == sorted(places)
    apart = [replace(run, header=replace(run.header, shared_baseline=None)) for run in runs]
    assert "\n".join(shown(None, apart)).count("Measured on a loaded machine") == len(apart)
