"""Open a run: begin its record, train, and write the end of the record whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import TooManyLeft, UsageError, ends_as, error_text, named, raise_interrupt_behind, recorded
from pytest_pilotscope.measurement.supervision import note_instruments
from pytest_pilotscope.options.progress import ShowProgress
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.queries.streams import Step, described_stream
from pytest_pilotscope.record.drift import drift_sides, drift_title
from pytest_pilotscope.record.projection import COMPARISON, own_header
from pytest_pilotscope.record.record import RecordWriter, read_record
from pytest_pilotscope.record.results import RunEnd, RunHeader, Status
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.runs.cases import Case
from pytest_pilotscope.runs.comparison import ComparisonRun
from pytest_pilotscope.runs.drift import DriftRun, drifted_header
from pytest_pilotscope.runs.header import run_header
from pytest_pilotscope.runs.learn import copyable, made
from pytest_pilotscope.runs.machine_load import machine_load
from pytest_pilotscope.runs.records import Records, open_records
from pytest_pilotscope.runs.shared import SharedRun
from pytest_pilotscope.runs.single import BenchmarkRun
from pytest_pilotscope.runs.stream import StreamRun, streamed_header
from pytest_pilotscope.runs.unsteered import too_many_left

if TYPE_CHECKING:
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.provision.drifted import DriftedDatabases


@contextmanager
def benchmark_run(
    *names: str,
    together: bool = False,
    apart: Sequence[Case] = (),
    database: Database,
    workload: Workload,
    settings: Settings,
    registry: Registry,
    progress: ShowProgress,
    started: Callable[[RunHeader], None] = lambda header: None,
    drifted: DriftedDatabases | None = None,
    earlier: Workload | None = None,
    steps: Sequence[Step] = (),
) -> Iterator[BenchmarkRun]:
    """
    Train one algorithm (or those that a name joins with `+`), or several that are measured `together`, and give the run to measure; the
    baseline takes part in every run.

    With `apart`, those together have a record for each of these cases, and their `SharedRun` has the errors of each.
    With `drifted` databases, train the algorithm before the drift, on the `earlier` workload, and measure it after it.
    With the `steps` of a stream, measure those in their order.
    `started` gets each header before training. A record ends FINISHED, FAILED (a query, an answer or the block failed) or KILLED (Ctrl-C,
    SIGTERM).
    Raise what an algorithm by itself raises; in a comparison, measure the others, then raise the first `SideFailed` of a training. Raise
    `TooManyLeft` after the record has ended.
    """
    if steps:
        workload = replace(workload, test=tuple(step.query for step in steps))
    queries = workload.test if steps else select_queries(workload.test, settings) if settings.measure else ()
    note_instruments()  # before any code of an algorithm
    algorithms: dict[str, Any] = {name: [part.resolve() for part in registry.parts(name)] for name in names}
    if not together and drifted is None and not steps:
        algorithms = {name: made(name, parts) for name, parts in algorithms.items()}
    title, opponents = (COMPARISON, names) if together else (names[0], ())
    if drifted is not None:
        database = drifted.unanalyzed
        title, opponents = drift_title(names[0]), drift_sides(names[0], changes_data=drifted.drift.changes_data).of(names[0])
    header = run_header(title, database=database, workload=workload, queries=queries, settings=settings, opponents=opponents)
    if drifted is not None:
        header = drifted_header(header, drifted, earlier or workload, workload)
    if steps:
        header = streamed_header(header, described_stream(steps))
    headers = [own_header(header, case.title, case.opponents) for case in apart] or [header]
    failures: dict[str, str] = {}
    with open_records(headers, settings.results) as records, ending(records, failures), ExitStack() as stack:
        for its_header in records.headers:
            started(its_header)
        database = stack.enter_context(copyable(database, chain.from_iterable(algorithms.values()), always=bool(settings.writes)))
        session = stack.enter_context(database.measuring_session())
        make: Callable[..., BenchmarkRun] = ComparisonRun if together else BenchmarkRun
        if apart:
            make = partial(SharedRun, baseline_alone=not all(case.opponents for case in apart))
        if drifted is not None:
            make = partial(DriftRun, drifted=drifted, earlier=earlier or workload)
        elif steps:
            make = partial(StreamRun, steps={step.query.id: step for step in steps})
        run = make(
            header=replace(header, algorithm=named(case.title for case in apart)) if apart else records.headers[0],
            database=database,
            workload=workload,
            queries=queries,
            settings=settings,
            registry=registry,
            writer=records,
            progress=progress,
            session=session,
            failures=failures,
        )
        broken = run.train(algorithms, stack)
        yield run
        left: dict[str, str] = {}
        for path in records.paths:
            left |= too_many_left(read_record(path), settings.max_unsteered)
        failures.update({side: why for side, why in left.items() if side not in failures})
    if broken and not apart:
        raise broken[0]
    if left and not apart:
        raise TooManyLeft(". ".join(left.values()))


@contextmanager
def ending(writer: RecordWriter | Records, failures: Mapping[str, str]) -> Iterator[None]:
    """Write the end of a record, whatever happens in the block. `failures` are those of the sides, noted while measuring."""
    status: Status = "FINISHED"
    error: str | None = None
    try:
        yield
    except BaseException as problem:
        status = ends_as(problem)
        error = recorded(error_text(problem))
        raise_interrupt_behind(problem)
        raise
    finally:
        if failures and status == "FINISHED":
            status = "FAILED"
        why = {side: recorded(text) for side, text in failures.items()}
        finished_at = datetime.now(timezone.utc).isoformat()
        writer.write(RunEnd(status=status, finished_at=finished_at, error=error, failures=why, machine_load=machine_load()))


def select_queries(queries: Sequence[Query], settings: Settings) -> tuple[Query, ...]:
    """Return the test queries that match `--queries`, up to `--limit`. Raise `UsageError` if none matches."""
    patterns = settings.queries or ("*",)
    matching = [query for query in queries if any(fnmatchcase(query.id, pattern) for pattern in patterns)]
    if not matching:
        ids = f"{queries[0].id} .. {queries[-1].id}" if queries else "none"
        raise UsageError(f"--queries {','.join(patterns)} matches none of the {len(queries)} test queries (ids: {ids}); nothing to measure")
    return tuple(matching[: settings.limit])
