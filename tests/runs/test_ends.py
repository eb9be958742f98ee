"""However a run ends, its record, MLflow, the exit code and the summary say the same, and no reader of the record takes another along."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pytest_pilotscope.errors import ServerError, ends_as, raise_interrupt_behind
from pytest_pilotscope.postgres.signals import ends_like_ctrl_c, held
from pytest_pilotscope.tracking.tracker import MLflowTracker
from tests.projects import BENCHMARK, measure, record_lines

pytestmark = pytest.mark.usefixtures("prepared_cache")

ENDED = """
    import os, signal, threading
    from contextlib import contextmanager
    from pytest_pilotscope.errors import ServerError

    def send(*names):
        for name in names:
            os.kill(os.getpid(), getattr(signal, name))

    class Plain:
        name = "ended"

        def train(self, training):
            return training.report()

    class InTraining(Plain):
        '''Is told to end while it learns.'''

        def train(self, training):
            send("SIGTERM")
            raise AssertionError("nobody stopped it")

    class InStatement(Plain):
        '''Is told to end while the server is busy.'''

        def train(self, training):
            threading.Timer(0.5, send, ["SIGTERM"]).start()
            training.session.execute("SELECT pg_sleep(600)")

    class Twice(Plain):
        '''Is told to end, and again while it puts things back, where an error of the server replaces the first.'''

        @contextmanager
        def prepare(self, database):
            try:
                yield database
            finally:
                send("SIGINT")
                with open("restored", "w"):
                    pass
                raise ServerError("the server does not answer")

        def steer(self):
            pass

    class WhileSending(Plain):
        '''Is told to end twice while its run is sent to MLflow.'''

        def train(self, training):
            from pytest_pilotscope.tracking.tracker import MLflowTracker

            end = MLflowTracker.end

            def late(tracker, *arguments, **options):
                send("SIGINT", "SIGINT")
                end(tracker, *arguments, **options)

            MLflowTracker.end = late
            return training.report()

    class WhileReporting(Plain):
        '''Is told to end while the report is written.'''

        def train(self, training):
            from pytest_pilotscope.report import page

            write = page.page

            def late(records, **options):
                send("SIGINT")
                return write(records, **options)

            page.page = late
            return training.report()

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("ended", {kind}, origin=__name__)
"""
RUN = ("--algo", "ended", "--limit", "1")


def _of(kind: str) -> str:
    return ENDED.replace("{kind}", kind)


def _statuses(folder: Path) -> tuple[str, str]:
    """The status of the only run in its record and in MLflow."""
    (run,) = MLflowTracker.list_runs("ended_stats_tiny", tracking_uri=f"sqlite:///{folder}/mlflow.db")
    return record_lines(folder)[-1]["status"], run["status"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["InTraining", "InStatement"])
def test_sigterm_ends_a_run_like_ctrl_c(kind: str, pytester: pytest.Pytester) -> None:
    """Record and MLflow say KILLED, the summary is shown, and the exit code is 2."""
    result = measure(pytester, *RUN, conftest=_of(kind))
    assert result.ret == pytest.ExitCode.INTERRUPTED, result.stdout.str() + result.stderr.str()
    assert _statuses(pytester.path) == ("KILLED", "KILLED")
    assert record_lines(pytester.path)[-1]["error"] == "KeyboardInterrupt: SIGTERM"
    result.stdout.fnmatch_lines(["*= pilotscope =*", "record: results/ended_stats_tiny_*"])


@pytest.mark.slow
def test_an_error_on_the_way_does_not_replace_an_interrupt(pytester: pytest.Pytester) -> None:
    """A comparison goes on after an error of one algorithm, but not after Ctrl-C that such an error has replaced."""
    pytester.makepyfile(
        """
        def test_it(pilotscope_run):
            with pilotscope_run() as run:
                raise KeyboardInterrupt
        """
    )
    pytester.makeconftest(_of("Twice"))
    result = pytester.runpytest_subprocess("--scale", "0.01", "--rounds", "2", *RUN)
    assert result.ret == pytest.ExitCode.INTERRUPTED, result.stdout.str()
    assert _statuses(pytester.path) == ("KILLED", "KILLED")
    assert (pytester.path / "restored").exists()


@pytest.mark.slow
def test_an_interrupt_waits_until_the_run_is_sent(pytester: pytest.Pytester) -> None:
    """Twice Ctrl-C while MLflow is written leaves no run as RUNNING; the session ends with a summary and exit code 2."""
    result = measure(pytester, *RUN, conftest=_of("WhileSending"))
    assert result.ret == pytest.ExitCode.INTERRUPTED, result.stdout.str()
    assert _statuses(pytester.path) == ("FINISHED", "FINISHED")
    result.stdout.fnmatch_lines(["*= pilotscope =*", "record: results/ended_stats_tiny_*MLflow: experiment *"])


@pytest.mark.slow
def test_an_interrupt_waits_until_the_report_is_written(pytester: pytest.Pytester) -> None:
    """The gate judges, the page is whole, and the exit code is 2."""
    result = measure(pytester, *RUN, "--no-mlflow", "--report", "page.html", "--gate", "baseline", conftest=_of("WhileReporting"))
    assert result.ret == pytest.ExitCode.INTERRUPTED, result.stdout.str()
    result.stdout.fnmatch_lines(["report: page.html", "ended on stats_tiny: gate against *"])
    assert (pytester.path / "page.html").read_text().rstrip().endswith("</html>")


@pytest.mark.slow
@pytest.mark.parametrize(("call", "outcome", "error"), [("fail", "failed", "Failed: enough"), ("skip", "skipped", "Skipped: enough")])
def test_an_outcome_of_pytest_in_the_block_is_no_interrupt(call: str, outcome: str, error: str, pytester: pytest.Pytester) -> None:
    """`pytest.fail()` and `pytest.skip()` end the record FAILED, with the reason, and the test as pytest does."""
    pytester.makepyfile(
        test_own=f"""
        import pytest

        def test_it(pilotscope_run):
            with pilotscope_run() as run:
                pytest.{call}("enough")
        """
    )
    result = pytester.runpytest_subprocess("--scale", "0.01", "--limit", "1")
    result.assert_outcomes(**{outcome: 1})
    end = record_lines(pytester.path)[-1]
    assert (end["status"], end["error"]) == ("FAILED", error)


BROKEN = """
    import pytest
    from pytest_pilotscope.gate import judging
    from pytest_pilotscope.report import page, terminal, benchmark_json

    def broken(what):
        def raises(*arguments, **options):
            raise RuntimeError(what)
        return raises

    @pytest.fixture(autouse=True)
    def _broken(monkeypatch):
        page.plots_of = broken("no plot")
        page.write_page = broken("no page")
        judging.embed = broken("no JSON")
        benchmark_json.add_entries = {entries}
        terminal.render_records = broken("no table")
"""


@pytest.mark.slow
@pytest.mark.parametrize("entries", ["broken('no entries')", "benchmark_json.add_entries"])
def test_one_reader_that_fails_takes_no_other_along(entries: str, pytester: pytest.Pytester) -> None:
    """Plots, the page, the table and pytest-benchmark fail: MLflow has the run, the gate judges, all are named, and the exit code is 1."""
    result = measure(
        pytester,
        *("--limit", "1", "--report", "page.html", "--gate", "baseline", "--gate-on-missing", "warn", "--benchmark-json", "out.json"),
        conftest=BROKEN.replace("{entries}", entries),
    )
    assert result.ret == pytest.ExitCode.TESTS_FAILED, result.stdout.str() + result.stderr.str()
    result.assert_outcomes(passed=1)
    (run,) = MLflowTracker.list_runs("baseline_stats_tiny", tracking_uri=f"sqlite:///{pytester.path}/mlflow.db")
    assert run["status"] == "FINISHED"
    assert any(line.startswith("baseline on stats_tiny: gate against ") for line in result.outlines)
    failures = {line.rpartition(": RuntimeError: ")[2] for line in result.outlines if ": RuntimeError: " in line}
    also = "no entries" if "no entries" in entries else "no JSON"
    assert failures == {"no plot", "no page", "no table", also}


@pytest.mark.slow
def test_a_server_that_is_gone_at_the_very_end(pytester: pytest.Pytester) -> None:
    """One sentence, no traceback, and the exit code of a run that passed."""
    result = measure(
        pytester,
        *("--limit", "1", "--no-mlflow"),
        conftest="""
        from pytest_pilotscope.errors import ServerError
        from pytest_pilotscope.postgres.embedded import EmbeddedServer

        stop = EmbeddedServer.stop

        def gone(self, **options):
            stop(self, **options)
            raise ServerError("no free connection")

        EmbeddedServer.stop = gone
        """,
    )
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    text = result.stdout.str() + result.stderr.str()
    assert text.count("no free connection") == 1
    assert "pilotscope: not everything was put back at the end: no free connection" in text
    assert "Traceback" not in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--report", "a_file/page.html"], "--report a_file/page.html: its folder a_file: a_file is a file; name a folder"),
        (["--report", "folder.html"], "--report folder.html: this is a folder; name a file in it"),
        (
            ["--gate", "nowhere.json"],
            "--gate nowhere.json: nowhere.json does not exist; name another reference, or measure a first one: --gate-on-missing warn",
        ),
        (
            ["--gate", "empty"],
            "--gate empty: there is no finished record in the folder empty; name another reference, or measure a first one: "
            "--gate-on-missing warn",
        ),
    ],
)
def test_what_can_be_checked_before_measuring_is(arguments: list[str], message: str, pytester: pytest.Pytester) -> None:
    """Exit code 4 and one line, and nothing is started."""
    pytester.makepyfile(test_workload=BENCHMARK)
    (pytester.path / "a_file").touch()
    for name in ("folder.html", "empty"):
        (pytester.path / name).mkdir()
    result = pytester.runpytest_inprocess("--no-mlflow", *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.stderr.lines if line] == [f"ERROR: {message}"]
    assert not (pytester.path / "results").exists()


def test_a_plain_project_needs_no_terminal(pytester: pytest.Pytester) -> None:
    """`-p no:terminal` and `-p no:capture` work wherever the plugin is installed."""
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest_subprocess("-p", "no:terminal", "-p", "no:capture")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert result.stderr.str() == ""


@pytest.mark.slow
def test_a_measurement_needs_no_terminal(pytester: pytest.Pytester) -> None:
    """Without a terminal a run is measured and recorded as with one."""
    result = measure(pytester, "--limit", "1", "--no-mlflow", "-p", "no:terminal")
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert record_lines(pytester.path)[-1]["status"] == "FINISHED"


@contextmanager
def _undone(done: list[str]) -> Iterator[None]:
    """Note that something was undone, although another interrupt arrives meanwhile."""
    try:
        yield
    finally:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        done.append("undone")


def test_the_second_interrupt_does_not_break_off_what_the_first_undoes() -> None:
    """While an interrupt is on its way out, others are only told how to stop at once."""
    done: list[str] = []
    with ends_like_ctrl_c():
        with pytest.raises(KeyboardInterrupt, match=r"^SIGTERM$"), _undone(done):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):  # and afterwards they end again
            signal.raise_signal(signal.SIGINT)
    assert done == ["undone"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_held_interrupt_comes_at_the_end_of_the_block() -> None:
    """Nested blocks are done whole, also by a program that did not ask for SIGTERM."""
    done: list[str] = []

    def block() -> None:
        with held():
            with held():
                signal.raise_signal(signal.SIGINT)
                done.append("inner")
            done.append("outer")
        done.append("never")

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        block()
    assert done == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_hold_nothing() -> None:
    """Signals belong to the main thread; elsewhere the blocks do nothing."""
    done: list[str] = []

    def work() -> None:
        with ends_like_ctrl_c(), held():
            done.append("done")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["done"]


def test_an_interrupt_behind_an_error_is_raised_again() -> None:
    """The error of a `finally` replaces Ctrl-C; whoever would go on after that error raises it again."""

    def replaced_by(error: Exception) -> None:
        try:
            raise KeyboardInterrupt("first")
        finally:
            raise error

    with pytest.raises(ServerError, match=r"^gone$") as replaced:
        replaced_by(ServerError("gone"))
    assert ends_as(replaced.value) == "KILLED"
    with pytest.raises(KeyboardInterrupt, match=r"^first$"):
        raise_interrupt_behind(replaced.value)
    raise_interrupt_behind(ServerError("alone"))
    assert ends_as(ServerError("alone")) == "FAILED"
    assert ends_as(pytest.fail.Exception("no")) == "FAILED"
    assert ends_as(SystemExit(3)) == "FAILED"
