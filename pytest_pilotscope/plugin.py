"""Every pytest hook and fixture. They contain no logic; each calls code that does not know pytest."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_pilotscope import hookspecs
from pytest_pilotscope.builtins import builtin_plugins
from pytest_pilotscope.errors import PilotscopeError, SideFailed, error_text, place_of
from pytest_pilotscope.options import commandline as options
from pytest_pilotscope.options.settings import OPTIONS, Settings
from pytest_pilotscope.registry import Registry

if TYPE_CHECKING:
    from pytest_pilotscope.options.progress import ShowProgress
    from pytest_pilotscope.record.record import Record
    from pytest_pilotscope.report.notices import Notices
    from pytest_pilotscope.report.progress import Say
    from pytest_pilotscope.runs.bench import Bench, Conclusion
    from pytest_pilotscope.runs.cases import Case
    from pytest_pilotscope.runs.shared import MeasuredRun
    from pytest_pilotscope.runs.single import BenchmarkRun
    from pytest_pilotscope.runs.threads_left import LeftOver

SETTINGS = pytest.StashKey[Settings]()
REGISTRY = pytest.StashKey[Registry]()
BENCH = pytest.StashKey["Bench"]()
CONCLUSION: pytest.StashKey[Conclusion] = pytest.StashKey()
TAKEN = pytest.StashKey[tuple[str, ...]]()
OFFERED = pytest.StashKey[bool]()
RECORDS_BEFORE = pytest.StashKey[Collection[Path]]()
NOTICES: pytest.StashKey[Notices] = pytest.StashKey()
LEFT_OVER: pytest.StashKey[LeftOver] = pytest.StashKey()
WARNINGS = "pilotscope_warnings"
CASE = "pilotscope_case"
RECORD = "pilotscope_record"
RUN = "pilotscope_run"
PARALLEL = (
    "times taken beside other workers are noise: measure without -n (or with -n0); collecting and training alone (--no-measure) may use it"
)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Declare `pytest_pilotscope_register`."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the prefixed options."""
    options.add_options(parser)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> Generator[None, object, object]:
    """Add the options of algorithms and all short names after all other plugins have added their options; join names at blanks."""
    try:
        return (yield)
    finally:
        declared = [option for of_algorithm in _registry(early_config).declared.values() for option in of_algorithm.values()]
        options.add_options(parser, declared)
        early_config.stash[TAKEN] = options.add_short_names(parser, (*OPTIONS, *declared))
        args[:] = options.joined(args)


def pytest_configure(config: pytest.Config) -> None:
    """Read the settings; the help needs none of their keys after that."""
    settings = config.stash[SETTINGS] = options.settings(config)
    if settings.measure and options.asks_for(config, options.MEASURING) and config.getoption("dist", "no") != "no":
        raise pytest.UsageError(PARALLEL)
    if not settings.measure and config.getoption("dist", "no") != "no":
        from pytest_pilotscope.runs.parallel import recorded

        config.stash[RECORDS_BEFORE] = recorded(settings)
        _end_like_ctrl_c(config)
    options.shorten_help(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the short options that another plugin has taken."""
    taken = config.stash.get(TAKEN, ())
    return [f"pilotscope: taken by another plugin, use the prefix --pilotscope-: {', '.join(taken)}"] if taken else []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrize tests with a case over algorithm x dataset, or over datasets when algorithms are compared."""
    if CASE in metafunc.fixturenames:
        from pytest_pilotscope.runs.cases import cases_of

        metafunc.config.stash[OFFERED] = True
        cases = cases_of(metafunc.config.stash[SETTINGS])
        metafunc.parametrize(CASE, cases, ids=[case.name for case in cases])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run tests that read a record after the tests that make it."""
    items.sort(key=lambda item: RECORD in getattr(item, "fixturenames", ()))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Reject impossible measurements before anything starts. Keep the gate active even if no test was selected."""
    config = session.config
    options.add_late_keys(config, _registry(config))
    items: list[Any] = [item for item in session.items if isinstance(item, pytest.Function) and CASE in item.fixturenames]
    cases = tuple(item.callspec.params[CASE] for item in items)
    beside_others = _is_worker(config) and config.stash[SETTINGS].measure
    if not beside_others and (cases or _is_to_be_judged(config)):
        bench = config.stash[BENCH] = _checked_bench(config, cases)
        bench.to_open.update(item.callspec.params[CASE] for item in items if RUN in item.fixturenames)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over a worker's warnings, and its tests for a gate to judge, because this process collects none itself."""
    told = getattr(node, "workeroutput", {})
    if told.get(CASE):
        node.config.stash[OFFERED] = True
    for text in told.get(WARNINGS, ()):
        _notices(node.config).show(text)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Provision the databases first, so that an error is reported once and at once."""
    bench = session.config.stash.get(BENCH, None)
    if bench is not None and not session.config.option.collectonly and not _is_worker(session.config):
        with _usage_errors():
            bench.provision()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """
    Show only the message of an error of ours, because it says what to do, and of an algorithm's error only the frames of its own.

    pytest's traceback options show all, and -v that of an algorithm.
    """
    report = yield
    options_of_tracebacks = {"tbstyle": "auto", "fulltrace": False, "showlocals": False}  # `-p no:terminal` has none of them
    asked = any(item.config.getoption(name, default) != default for name, default in options_of_tracebacks.items())
    if CASE in getattr(item, "fixturenames", ()) and call.excinfo is not None and not asked:
        if _is_named(call.excinfo.value):
            report.longrepr = call.excinfo.getrepr(style="value", chain=False)
        elif place_of(call.excinfo.value) and item.config.get_verbosity() <= 0:
            frames = call.excinfo.getrepr(style="short", chain=False, tbfilter=_of_algorithm)
            report.longrepr = f"{frames}\n{error_text(call.excinfo.value)}"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> Generator[None, None, None]:
    """Fail the session if its gate failed, even though its tests passed. This runs before pytest-benchmark, which may fail."""
    _finish(session, exitstatus)
    return (yield)


def _finish(session: pytest.Session, exitstatus: int) -> None:
    config = session.config
    if _is_worker(config):
        told: dict[str, object] = config.workeroutput  # type: ignore[attr-defined]
        told[CASE] = config.stash.get(OFFERED, False)
        told[WARNINGS] = list(config.stash[NOTICES].shown) if NOTICES in config.stash else []
        return
    if RECORDS_BEFORE in config.stash:
        from pytest_pilotscope.runs.parallel import send_new

        sent = config.stash[CONCLUSION] = send_new(config.stash[SETTINGS], config.stash[RECORDS_BEFORE])
        if sent.interrupted:
            session.exitstatus = pytest.ExitCode.INTERRUPTED
        return
    if BENCH not in config.stash and config.getoption("dist", "no") != "no" and _is_to_be_judged(config):
        config.stash[BENCH] = _checked_bench(config, ())
    bench = config.stash.get(BENCH, None)
    ended = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED, pytest.ExitCode.NO_TESTS_COLLECTED)
    if bench is None or config.option.collectonly or exitstatus not in ended:
        return
    conclusion = config.stash[CONCLUSION] = bench.conclude()
    _report_failures(config, conclusion)
    if conclusion.interrupted:
        session.exitstatus = pytest.ExitCode.INTERRUPTED
    elif conclusion.exit_code:
        _fail(session)
    _isolate_benchmark(session, bench)


def _report_failures(config: pytest.Config, conclusion: Conclusion) -> None:
    """Report each verdict that failed as a failed test, to --junitxml and the like. The terminal counts tests, and shows verdicts below."""
    counting = [plugin for name in ("session", "terminalreporter") if (plugin := config.pluginmanager.getplugin(name)) is not None]
    report = config.pluginmanager.subset_hook_caller("pytest_runtest_logreport", remove_plugins=counting)
    for name, lines in conclusion.failures.items():
        report(
            report=pytest.TestReport(
                nodeid=f"pilotscope::{name}",
                location=("pilotscope", None, name),
                keywords={},
                outcome="failed",
                longrepr="\n".join(lines),
                when="call",
            )
        )


def _fail(session: pytest.Session) -> None:
    """Let a session that went well until now end as one with a failed test."""
    if session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _isolate_benchmark(session: pytest.Session, bench: Bench) -> None:
    """Let pytest-benchmark, which would end the session without a summary, fail like any other reader of our records."""
    benchmarks = getattr(session.config, "_benchmarksession", None)
    if benchmarks is None or not bench.finished:
        return
    finish = benchmarks.finish

    def isolated_finish() -> None:
        from pytest_pilotscope.runs.finished import isolated

        before = len(bench.failures)
        with isolated("pytest-benchmark", bench.failures):
            finish()
        if len(bench.failures) > before:
            _fail(session)

    benchmarks.finish = isolated_finish


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers. The runs are over: what goes wrong now is told in a sentence, and changes no result."""
    bench = config.stash.get(BENCH, None)
    if bench is not None and (problem := bench.close()):
        _display(config)[0](f"pilotscope: {problem}")
    if LEFT_OVER in config.stash:
        _name_left_over(config, config.stash[LEFT_OVER])


def _name_left_over(config: pytest.Config, left_over: LeftOver) -> None:
    say = _display(config)[0]
    if left := left_over.processes():
        say(f"pilotscope: {left}")
    session: Any = config.pluginmanager.getplugin("session")
    if session is not None:
        left_over.end_despite_threads(int(session.exitstatus), lambda text: say(f"pilotscope: {text}"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the table of every finished run."""
    bench = config.stash.get(BENCH, None)
    conclusion = config.stash.get(CONCLUSION, None)
    failures = bench.failures if bench is not None else []
    if bench is not None and bench.finished:
        _show_runs(terminalreporter, config, bench)
    if conclusion is not None and (conclusion.lines or failures):
        failed = bool(conclusion.exit_code or failures)
        colors = {"red": failed, "yellow": not failed and bool(conclusion.warnings), "green": not failed and not conclusion.warnings}
        terminalreporter.section("pilotscope: conclusion", sep="=", **colors)
        for line in conclusion.lines:
            _write_wrapped(terminalreporter, line, yellow=line in conclusion.warnings)
        for line in failures:
            _write_wrapped(terminalreporter, line, red=True)


def _width(terminalreporter: pytest.TerminalReporter) -> int | None:
    """Return the columns of the terminal; None for a file or a pipe, whose lines are not wrapped."""
    writer = terminalreporter._tw
    return writer.fullwidth if writer._file.isatty() else None


def _write_wrapped(terminalreporter: pytest.TerminalReporter, text: str, **markup: bool) -> None:
    from pytest_pilotscope.report.text_tables import wrapped

    for line in wrapped(text, _width(terminalreporter)):
        terminalreporter.write_line(line, **markup)


def _show_runs(terminalreporter: pytest.TerminalReporter, config: pytest.Config, bench: Bench) -> None:
    from pytest_pilotscope.record.projection import baselines_last
    from pytest_pilotscope.report.terminal import Said, render_records
    from pytest_pilotscope.runs.finished import isolated

    writer, said = config.get_terminal_writer(), Said(set)
    terminalreporter.section("pilotscope")
    for record in baselines_last([run.record for run in bench.finished]):
        with isolated(f"the table of {record.header.run_name}", bench.failures):
            text = render_records([record], width=_width(terminalreporter), color=writer.hasmarkup, said=said)
            terminalreporter.write_line(text + "\n")
    for run in bench.finished:
        _write_wrapped(terminalreporter, f"record: {run.record_path}; MLflow: {run.tracking}", red=run.unsent)


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_benchmark_group_stats(config: pytest.Config, benchmarks: list[Any]) -> Generator[None, Any, Any]:
    """Leave our entries (one per query and side) out of pytest-benchmark's table, unless it compares them."""
    groups = yield
    if config.getoption("benchmark_compare"):
        return groups
    kept = [(name, [entry for entry in entries if "pilotscope" not in entry["extra_info"]]) for name, entries in groups]
    return [(name, entries) for name, entries in kept if entries]


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Add the complete records to pytest-benchmark's JSON, so that a gate can use it as its reference."""
    bench = config.stash.get(BENCH, None)
    if bench is not None and bench.finished:
        from pytest_pilotscope.gate.judging import embed

        embed(output_json, [run.record_path for run in bench.finished])


@pytest.fixture
def pilotscope_run(
    pilotscope_case: Case, request: pytest.FixtureRequest
) -> Iterator[Callable[[], AbstractContextManager[BenchmarkRun | MeasuredRun]]]:
    """
    Open the run of this case: `with pilotscope_run() as run: ...`.

    It is a context manager inside the test, so that the run notices Ctrl-C and ends KILLED. The cases of one dataset take turns against
    one baseline: the first that is opened measures all of them.
    """
    if _is_worker(request.config) and request.config.stash[SETTINGS].measure:
        pytest.fail(PARALLEL, pytrace=False)
    bench = request.config.stash[BENCH]
    done = len(bench.finished)
    yield lambda: bench.open_run(pilotscope_case)
    session = getattr(request.config, "_benchmarksession", None)
    if session is not None and not session.disabled:
        from pytest_pilotscope.report.benchmark_json import add_entries
        from pytest_pilotscope.runs.finished import isolated

        for run in bench.finished[done:]:
            with isolated("the entries for pytest-benchmark", bench.failures):
                add_entries(session, run.record, nodeid=request.node.nodeid)


def _is_named(error: BaseException | None) -> bool:
    """Tell whether an error is one of ours, so that its message suffices; an unknown error inside an algorithm is not."""
    return _is_named(error.__cause__) if isinstance(error, SideFailed) else isinstance(error, PilotscopeError)


def _of_algorithm(info: pytest.ExceptionInfo[BaseException]) -> Any:
    """Return the frames of a traceback after those in which the suite calls an algorithm."""
    rooms = [Path(__file__).parent / room for room in ("measurement", "runs")]
    ours = [place for place, entry in enumerate(info.traceback) if Path(entry.path).parent in rooms]
    return type(info.traceback)(list(info.traceback)[ours[-1] + 1 if ours else 0 :])


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Turn our errors into one line without a traceback and exit code 4, because the run has not started."""
    try:
        yield
    except PilotscopeError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.fixture
def pilotscope_record(pilotscope_case: Case, request: pytest.FixtureRequest) -> Record:
    """Give the record of this case; skip the test if this session has not measured it."""
    bench = request.config.stash.get(BENCH, None)
    if bench is not None and not bench.settings.measure:
        pytest.skip("nothing is measured with --no-measure")
    for run in reversed(bench.finished if bench else []):
        if pilotscope_case.is_of(run.record.header):
            return run.record
    pytest.skip(f"{pilotscope_case.name} was not measured in this session: run benchmarks/test_workload.py with it")


@pytest.fixture
def pilotscope_say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Give a function that shows text at once, even while pytest captures output."""
    return request.config.stash[BENCH].say


def _is_worker(config: pytest.Config) -> bool:
    """Tell whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def _is_to_be_judged(config: pytest.Config) -> bool:
    """Tell whether a gate or a calibration is asked for, even if no benchmark was selected."""
    settings = config.stash[SETTINGS]
    wanted = settings.calibrate or settings.gate not in (None, "none")
    return options.asks_for(config, options.JUDGING) or (wanted and config.stash.get(OFFERED, False))


def _registry(config: pytest.Config) -> Registry:
    """Return the registry. The built-in names use the same hook as others; a later conftest.py can still add names."""
    if REGISTRY not in config.stash:
        registry = config.stash[REGISTRY] = Registry()
        for plugin in builtin_plugins():
            config.pluginmanager.register(plugin)
        with _usage_errors():
            config.hook.pytest_pilotscope_register.call_historic(kwargs={"registry": registry})
    return config.stash[REGISTRY]


def _checked_bench(config: pytest.Config, cases: tuple[Case, ...]) -> Bench:
    _notices(config)
    if not _is_worker(config):
        _end_like_ctrl_c(config)
        _end_hangs(config)
        _know_left_over(config)
    bench = _make_bench(config, cases)
    with _usage_errors():
        bench.check()
    for algorithm in bench.settings.algorithms:
        if late := options.late(config, bench.registry.declared.get(algorithm, {}).values()):
            keys = ", ".join(option.dest for option in late)
            bench.say(f"{algorithm} was registered after the command line was read; set its options in the ini file: {keys}")
    return bench


def _end_like_ctrl_c(config: pytest.Config) -> None:
    from pytest_pilotscope.postgres.signals import ends_like_ctrl_c

    ends = ExitStack()
    ends.enter_context(ends_like_ctrl_c())
    config.add_cleanup(ends.close)


def _end_hangs(config: pytest.Config) -> None:
    from pytest_pilotscope.postgres.hangs import hangs_end

    ends = ExitStack()
    with suppress(OSError):  # a terminal that is no file
        ends.enter_context(hangs_end(_stream(config).fileno()))
    config.add_cleanup(ends.close)


def _know_left_over(config: pytest.Config) -> None:
    from pytest_pilotscope.runs.threads_left import LeftOver

    config.stash[LEFT_OVER] = LeftOver()


def _make_bench(config: pytest.Config, cases: tuple[Case, ...]) -> Bench:
    from pytest_pilotscope.runs.bench import Bench

    say, progress = _display(config)
    registry = _registry(config)
    settings = replace(config.stash[SETTINGS], options=options.algorithm_options(config, registry))
    if _is_worker(config):
        settings = replace(settings, mlflow=False)  # the process that started the workers sends their records
    return Bench(settings=settings, registry=registry, say=say, progress=progress, cases=cases)


def _display(config: pytest.Config) -> tuple[Say, ShowProgress]:
    from pytest_pilotscope.report.progress import progress_for

    stream = _stream(config)
    return progress_for(stream, live=stream.isatty(), uncaptured=lambda: _uncaptured(config))


def _stream(config: pytest.Config) -> Any:
    """Return the file of the terminal."""
    reporter: Any = config.pluginmanager.getplugin("terminalreporter")  # none with `-p no:terminal`
    return reporter._tw._file if reporter is not None else sys.stdout


def _notices(config: pytest.Config) -> Notices:
    """Return the handler that shows our warnings. In a worker it only collects them, for the process that started it."""
    if NOTICES not in config.stash:
        from pytest_pilotscope.report.notices import LOGGERS, Notices

        say = (lambda text: None) if _is_worker(config) else _display(config)[0]
        notices = config.stash[NOTICES] = Notices(say=say, shown_already=partial(_is_shown_live, config))
        for logger in map(logging.getLogger, LOGGERS):
            logger.addHandler(notices)
            config.add_cleanup(partial(logger.removeHandler, notices))
    return config.stash[NOTICES]


def _is_shown_live(config: pytest.Config, record: logging.LogRecord) -> bool:
    """Tell whether pytest itself shows this log record (log_cli), which it does from collection to the end of the session."""
    plugin: Any = config.pluginmanager.getplugin("logging-plugin")
    if plugin is None or not plugin._log_cli_enabled():
        return False
    return plugin.log_cli_handler in logging.getLogger().handlers and record.levelno >= plugin.log_cli_handler.level


def _uncaptured(config: pytest.Config) -> AbstractContextManager[None]:
    capture: Any = config.pluginmanager.getplugin("capturemanager")  # none with `-p no:capture`
    context: AbstractContextManager[None] = nullcontext() if capture is None else capture.global_and_fixture_disabled()
    return context
