"""The tables of the command line in a terminal of 80 columns."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from pytest_pilotscope.commands import doctor
from pytest_pilotscope.commands.cleaning import entries_of
from pytest_pilotscope.commands.cli import PROGRAM, cli
from pytest_pilotscope.commands.doctor import Check, show_checks
from tests.commands.conftest import AddRun, Command, WriteRecord

WIDTHS = (60, 80, 120)
FIGURES = {
    "test_total_time": 12.3456,
    "test_speedup": 1.2,
    "test_speedup_ci_low": 1.2,
    "test_speedup_ci_high": 1.3,
    "test_timeout_count": 0,
}


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command in a terminal of so many columns; return what it shows, without colours."""

    def run(width: int, *arguments: str) -> str:
        terminal = _Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setenv("COLUMNS", str(width))
            patch.setenv("TERM", "xterm")
            cli(arguments, prog_name=PROGRAM, standalone_mode=False)
        shown = re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue())
        return "\n".join(line.rstrip() for line in shown.splitlines())

    return run


def words(text: str) -> set[str]:
    """Return the words of a text."""
    return set(text.split())


@pytest.mark.parametrize("width", WIDTHS)
def test_tables_fit_and_fold_no_word(width: int, pilotscope: Command, add_run: AddRun, narrow: Callable[..., str]) -> None:
    """Columns are left out, or a name is shortened; every other word is one of the uncut table, and stays in one line."""
    run_id = add_run("an_algorithm_stats_tiny", "an_algorithm_stats_tiny_20260102_030405", metrics=FIGURES)
    for arguments in (("list",), ("runs", "an_algorithm_stats_tiny"), ("compare", run_id, run_id)):
        whole = pilotscope(*arguments).stdout
        shown = narrow(width, *arguments).replace("─", "")
        tables = [line for line in shown.splitlines() if not line.startswith(("equal parameters", "The "))]
        assert max(map(len, tables)) <= width
        assert {word for word in words(shown) if "…" not in word} <= words(whole)
    assert width == 60 or "…" not in shown


def test_at_80_columns_runs_have_their_name_status_and_interval(add_run: AddRun, narrow: Callable[..., str]) -> None:
    """Columns without anything but zeros go before figures do, and the start goes because the name has it."""
    name = "mscn_stats_tiny_20260102_030405"
    run_id = add_run("mscn_stats_tiny", name, metrics=FIGURES)
    shown = [line.split() for line in narrow(80, "runs", "mscn_stats_tiny").splitlines() if line and "─" not in line]
    assert shown == [["run", "name", "status", "speed-up", "interval"], [run_id[:8], name, "FINISHED", "1.200", "1.200..1.300"]]
    assert "total s" in narrow(100, "runs", "mscn_stats_tiny")


@pytest.mark.usefixtures("store")
def test_sent_records_fit(write_record: WriteRecord, narrow: Callable[..., str]) -> None:
    """`pilotscope sync` drops columns, too."""
    write_record("an_algorithm_with_a_long_name_stats_tiny_20260102_030405", algorithm="mscn")
    table = narrow(80, "sync")
    assert max(map(len, table.splitlines())) <= 80
    assert "an_algorithm_with_a_long_name_stats_tiny_20260102_030405" in table


def test_checks_wrap_between_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The doctor's sentences go on below themselves; a path that is longer than the line stays whole."""
    path = f"/{'x' * 70}"
    found = "HypoPG is not on this server; index selection builds its candidates instead, and hides them from the planner"
    remedy = "for a system PostgreSQL: apt-get install postgresql-18-hypopg, then --pg-bindir /usr/lib/postgresql/18/bin"
    checks = (Check(name="HypoPG", state="none", found=found, remedy=remedy), Check(name="cache", state="ok", found=f"{path}: 1 MB in it"))
    monkeypatch.setattr(doctor, "terminal_width", lambda: 80)
    assert show_checks(checks, as_json=False)
    lines = click.unstyle(capsys.readouterr().out).splitlines()
    assert [line.removeprefix(" " * 25) for line in lines[:-2]] == [
        "none   HypoPG            HypoPG is not on this server; index selection builds",
        "its candidates instead, and hides them from the planner",
        "-> for a system PostgreSQL: apt-get install",
        "   postgresql-18-hypopg, then --pg-bindir",
        "   /usr/lib/postgresql/18/bin",
        f"ok     cache             {path}:",
        "1 MB in it",
    ]
    monkeypatch.undo()
    show_checks(checks, as_json=False)
    assert f"{found}\n" in capsys.readouterr().out


def test_an_entry_that_vanishes_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run beside the doctor removes its own files while they are listed."""
    for name in ("a.so", "b.so"):
        (tmp_path / "libraries" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "libraries" / name).touch()
    entries = entries_of(tmp_path)
    assert next(entries).path.name == "a.so"
    (tmp_path / "libraries" / "b.so").unlink()
    assert list(entries) == []


def test_the_cache_is_listed_with_sizes(cache: Path, narrow: Callable[..., str]) -> None:
    """However narrow the terminal is, each entry has its size; the place is shortened before."""
    entry = cache / "extension" / f"pilotscope-pg18-{'0123456789abcdef' * 3}.so"
    entry.parent.mkdir(mode=0o700)
    entry.write_bytes(b"0" * 2000)
    lines = narrow(80, "clean").splitlines()
    assert max(len(line) for line in lines if "steering library" in line) <= 80
    (listed,) = (line.split() for line in lines if "steering library" in line)
    assert listed[:4] == ["steering", "library", "2.0", "kB"]
    assert listed[-1].endswith("…")
    assert lines[-2:] == ["nothing was removed; `pilotscope clean --yes` removes 1 entry, 2.0 kB; a run", "makes again what it needs"]
