"""One measurement from a cell of a notebook, or from a script."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from html import escape
from time import monotonic
from typing import Any

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import UnknownName, UsageError
from pytest_pilotscope.learning.algorithm import Algorithm
from pytest_pilotscope.notebook.results import Results
from pytest_pilotscope.options.declaring import Option
from pytest_pilotscope.options.progress import Advance, ShowProgress
from pytest_pilotscope.options.settings import OPTIONS, Settings
from pytest_pilotscope.options.values import parts, words
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.report.progress import Say, progress_for
from pytest_pilotscope.runs.bench import Bench
from pytest_pilotscope.runs.cases import cases_of

AlgorithmOrName = str | Algorithm | type[Algorithm]

_UPDATE_S = 0.2
"""A notebook's bar is drawn again after this time: drawing takes longer than a short query."""


def benchmark(algorithm: AlgorithmOrName | Sequence[AlgorithmOrName], *, db: str = "stats_tiny", **options: Any) -> Results:
    """
    Measure an algorithm against PostgreSQL, paired and interleaved, as `pytest benchmarks --algo ... --db ...` does.

    `algorithm` is a registered name, a class or an object with the methods of `learning.algorithm`, or several of them (also as
    `"mscn,oracle"`), which then take turns in one run. `options` are the fields of `Settings` (`limit=40`, `rounds=10`,
    `server="postgresql://..."`); values are also read from text as on the command line. `options={"mscn": {"batch_size": 64}}` are those
    of algorithms.

    Warn about each query that failed. Raise `UsageError` for what cannot be measured, and what the algorithm raises; the record then has
    the status FAILED, and a line says how to read it.
    """
    given = [algorithm] if isinstance(algorithm, str) or not isinstance(algorithm, Sequence) else algorithm
    several = [name for one in given for name in (_named(one) if isinstance(one, str) else [one])]
    registry = builtin_registry()
    chosen = tuple(dict.fromkeys(_registered(one, registry) for one in several))
    settings = _settings(options, algorithms=chosen, datasets=(db,), compare=len(chosen) > 1)
    say, progress = _display()
    bench = Bench(settings=settings, registry=registry, say=say, progress=progress, cases=cases_of(settings))
    with closing(bench):
        bench.check()
        (case,) = bench.cases
        try:
            with bench.open_run(case) as run:
                for query, problems in run.measure_all():
                    for problem in problems:
                        warnings.warn(f"{query.id}: {problem}", stacklevel=2)
        except BaseException:
            for finished in bench.finished:
                say(f"pilotscope: what was measured is kept: read_results({str(finished.record_path)!r})")
            raise
        conclusion = bench.conclude()
        for line in (*conclusion.lines, *bench.failures):
            say(f"pilotscope: {line}")
        return Results(records=tuple(run.record for run in bench.finished))


def _named(text: str) -> tuple[str, ...]:
    """Return the names in a text, as the command line reads them. Raise `UsageError` if there is none."""
    try:
        return parts(words(text))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"algorithm: {error}") from error


@dataclass(frozen=True, slots=True)
class _Given:
    """Stands for the class of an algorithm that is an object already."""

    algorithm: Algorithm

    def __call__(self) -> Algorithm:
        return self.algorithm

    def __getattr__(self, name: str) -> Any:
        return getattr(self.algorithm, name)


def _registered(algorithm: AlgorithmOrName, registry: Registry) -> str:
    """Return the name of an algorithm; register one that is no name."""
    if isinstance(algorithm, str):
        return algorithm
    name = getattr(algorithm, "name", None)
    if not isinstance(name, str) or not callable(getattr(algorithm, "train", None)):
        raise UsageError(f"benchmark measures an algorithm with a `name` and a method `train`, or a name, got {algorithm!r}")
    registry.add_algorithm(name, algorithm if isinstance(algorithm, type) else _Given(algorithm), origin="benchmark()")
    return name


def _settings(options: dict[str, Any], **chosen: Any) -> Settings:
    """Return settings of keyword arguments. Raise `UnknownName`, and `UsageError` for a value that the command line would reject."""
    declared = {option.key: option for option in OPTIONS if option.key not in chosen}
    for name in options.keys() - {"options"} - declared.keys():
        raise UnknownName("option of benchmark()", name, declared)
    values = {name: _value(declared[name], name, value) for name, value in options.items() if name != "options"}
    return Settings(**chosen, **values, options=options.get("options", {}))


def _value(option: Option, name: str, value: Any) -> Any:
    if not isinstance(value, str) or option.repeats or option.is_flag:
        return option.checked(value, name)
    try:
        return option.read(value)
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{name}: {error}") from error


def _display() -> tuple[Say, ShowProgress]:
    """Return the functions that show a line and progress: a bar in a notebook and on a terminal, lines in a log."""
    say, progress = progress_for(sys.stderr, live=sys.stderr.isatty(), uncaptured=nullcontext)
    if not _in_notebook():
        return say, progress
    return print, _cell_bar


def _in_notebook() -> bool:
    """Tell whether a Jupyter kernel runs this program."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def _cell_bar(description: str, total: int) -> Iterator[Advance]:
    """Show a bar below the cell, with count, elapsed and left; remove it at the end."""
    from IPython.display import HTML, display

    started = drawn = monotonic()
    done = 0
    shown = display(HTML(""), display_id=True)

    def advance(steps: int = 1) -> None:
        nonlocal done, drawn
        done += steps
        now = monotonic()
        if done < total and now - drawn < _UPDATE_S:
            return
        drawn = now
        elapsed_s = now - started
        times = f"{elapsed_s:.0f} s, {elapsed_s / max(done, 1) * (total - done):.0f} s left"
        bar = f'<progress value="{done}" max="{total}"></progress>'
        shown.update(HTML(f"{escape(description)} {bar} {done}/{total}, {times}"))

    try:
        yield advance
    finally:
        shown.update(HTML(""))
