"""The command as a program: it starts fast, writes no colours to a pipe, and works with a real tracking server."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_pilotscope.commands.output import Column, show_json, show_table
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.commands.conftest import TRAINING, AddRun, Command, WriteRecord

REPOSITORY = str(Path(__file__).resolve().parents[2])
HEAVY = {"mlflow", "sqlalchemy", "torch", "pandas", "numpy", "scipy", "matplotlib", "psycopg2", "sqlglot", "pytest"}


def test_help_imports_nothing_heavy(workplace: Path) -> None:
    """`--help` and completion answer before one has let go of the key."""
    script = (
        "import sys\n"
        "from pytest_pilotscope.commands.cli import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=_environment())
    assert done.stdout.startswith("Usage: ")
    assert (HEAVY | {"rich"}) & set(done.stderr.split()) == set()


@pytest.mark.parametrize("arguments", [["list"], ["runs", "mscn_toy"], ["best", "mscn_toy", "--metric", "test_total_time"]])
def test_looking_at_a_local_store_imports_nothing_heavy(arguments: list[str], add_run: AddRun) -> None:
    """`list`, `runs` and `best` answer at once, because they read the file without MLflow."""
    add_run("mscn_toy", "mscn_toy_20260102_030405", metrics={"test_total_time": 1.5})
    script = f"import sys; from pytest_pilotscope.commands.cli import cli; cli({arguments!r}, standalone_mode=False); "
    script += f"print(*sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=_environment())
    assert "mscn_toy_20260102_030405" in done.stdout
    assert done.stderr.split() == []


def test_the_help_lists_every_command(pilotscope: Command) -> None:
    """The help has a line for every command, and none is cut."""
    listed = pilotscope("--help").stdout.split("Commands:\n")[1].splitlines()
    assert [line.split()[0] for line in listed] == [
        "best",
        "clean",
        "clone",
        "compare",
        "completion",
        "doctor",
        "export",
        "gate",
        "init",
        "install-library",
        "list",
        "report",
        "runs",
        "subplans",
        "sync",
        "trend",
        "ui",
        "verify-labels",
        "workload",
    ]
    assert not any(line.endswith("...") for line in listed)


def test_a_mistyped_command_is_answered_with_the_near_one(pilotscope: Command) -> None:
    """An unknown command ends with exit code 2, like all wrong usage."""
    result = pilotscope("lst")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: No such command 'lst'. Did you mean 'list'?")
    assert pilotscope("runs", "x", "--limit", "0").stderr.splitlines()[-1] == (
        "Error: Invalid value for '--limit': 0 is not in the range x>=1."
    )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(pilotscope: Command, shell: str) -> None:
    """It calls the command back by the variable that click looks for."""
    result = pilotscope("completion", shell)
    assert result.exit_code == 0
    assert f"_PILOTSCOPE_COMPLETE={shell}_complete" in result.stdout


def test_names_are_completed(workplace: Path, write_record: WriteRecord) -> None:
    """Experiments and runs are completed from the records in `results/`, without MLflow."""
    write_record("mscn_toy_20260102_030405")
    write_record("lero_toy_20260102_030405")
    assert _completed("pilotscope runs ", 2) == ["lero_toy", "mscn_toy"]
    assert _completed("pilotscope compare ms", 2) == ["mscn_toy_20260102_030405"]


def test_a_table_fits_a_terminal_and_is_plain_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe no line is cut, coloured or drawn, whatever the environment says; brackets are not markup."""
    columns, row = (Column("name"), Column("n", number=True)), ("x" * 300 + "[red]", "7")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    show_table(columns, [row, ("better", "12")])
    assert capsys.readouterr().out == f"name{' ' * 303} n\n{row[0]}   7\nbetter{' ' * 301}12\n"
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    show_table(columns, [row, ("better", "12")])
    assert "\x1b[32mbetter" in terminal.getvalue()
    assert max(map(len, re.sub(r"\x1b\[[\d;]*m", "", terminal.getvalue()).splitlines())) <= 40


def test_json_has_no_numbers_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    """NaN and infinity are null."""
    show_json({"a": [float("nan"), float("inf"), 1.5], "b": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5], "b": "x"}


def test_ui_refuses_what_it_cannot_show(pilotscope: Command, workplace: Path, empty_store: Path) -> None:
    """`ui` rejects a taken port, a missing store, and a store with a UI of its own."""
    result = pilotscope("ui")
    assert (result.exit_code, result.stderr) == (
        2,
        f"Error: there is nothing to show: {workplace}/mlflow.db does not exist; run a benchmark first, or name the store with "
        "--tracking-uri\n",
    )
    result = pilotscope("ui", "--tracking-uri", "https://me:geheim@mlflow.example")
    assert (result.exit_code, result.stderr) == (
        2,
        "Error: the store https://me:***@mlflow.example is a server with a UI of its own; open it in a browser\n",
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = pilotscope("ui", "--port", str(port), "--tracking-uri", f"sqlite:///{empty_store}")
    assert result.exit_code == 2
    assert re.fullmatch(
        rf"Error: port {port} of 127\.0\.0\.1 is taken; choose another, for instance: pilotscope ui --port \d+\n", result.stderr
    )


@pytest.mark.slow
def test_everything_works_against_a_tracking_server(pilotscope: Command, store: str, write_record: WriteRecord) -> None:
    """`pilotscope ui` is MLflow's own server; records are sent to it, and looked at through it, by HTTP."""
    write_record("mscn_toy_20260102_030405", more=(TRAINING,))
    write_record("mscn_toy_20260102_040405", identity="def456", ended=False)
    with running_ui() as url:
        for expected in ("2 sent", "2 there"):
            result = pilotscope("sync", "--tracking-uri", url)
            assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, expected)
        (experiment,) = json.loads(pilotscope("list", "--json", "--tracking-uri", url).stdout)
        assert (experiment["name"], experiment["runs"]) == ("mscn_toy", 2)
        runs = json.loads(pilotscope("runs", "mscn_toy", "--json", "--tracking-uri", url).stdout)
        assert {run["status"] for run in runs} == {"FINISHED", "KILLED"}
        best = json.loads(pilotscope("best", "mscn_toy", "--json", "--tracking-uri", url).stdout)
        assert best["run_name"] == "mscn_toy_20260102_030405"
        compared = pilotscope("compare", best["run_id"][:10], "mscn_toy_20260102_040405", "--json", "--tracking-uri", url)
        assert json.loads(compared.stdout)["first"]["metrics"]["train_loss"] == 1.5
    assert len(MLflowTracker.list_runs("mscn_toy", tracking_uri=store)) == 2


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": REPOSITORY}


def _completed(words: str, number: int) -> list[str]:
    environment = {**_environment(), "_PILOTSCOPE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    command = [sys.executable, "-c", "from pytest_pilotscope.commands.cli import main; main()"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return [line.removeprefix("plain,") for line in done.stdout.splitlines()]


@contextmanager
def running_ui() -> Iterator[str]:
    """Give the address of a running `pilotscope ui` over the store of the current folder."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pytest_pilotscope.commands.cli", "ui", "--port", str(port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=_environment(), start_new_session=True
    ) as ui:
        try:
            assert ui.stdout is not None
            assert ui.stdout.readline() == f"sqlite:///{Path.cwd()}/mlflow.db on http://127.0.0.1:{port}; Ctrl-C ends it\n"
            assert any(f"Uvicorn running on http://127.0.0.1:{port} " in line for line in ui.stdout)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(ui.pid, signal.SIGTERM)
            ui.communicate()


def test_a_name_that_is_not_utf_8_is_shown_escaped(pilotscope: Command) -> None:
    """A terminal cannot show it as it is."""
    result = pilotscope("sync", "--results=\udcff")
    assert (result.exit_code, result.stdout) == (0, "no records in \\udcff\n")


def test_a_name_that_is_too_long_is_refused(pilotscope: Command) -> None:
    """One line names it, cut to a readable length."""
    result = pilotscope("sync", f"--results={'a' * 300}")
    assert (result.exit_code, result.stderr) == (1, f"Error: {'a' * 197}...: File name too long; give another file or folder\n")


def test_a_name_that_no_file_can_have_is_wrong_usage(pilotscope: Command) -> None:
    """Half of a character is refused in one line."""
    result = pilotscope("compare", "--files", "\ud800", "b.jsonl")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "Error: '\\ud800' cannot be the name of a file; give another one\n")
