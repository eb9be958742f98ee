"""
One invocation: open the databases once, measure the runs one after the other, and conclude from their records.

Nothing here knows pytest. `say` shows a line to the user, `progress` a bar.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import partial
from shlex import quote
from typing import TYPE_CHECKING, Any, cast

from pytest_pilotscope.datasets.base import ShowsProgress
from pytest_pilotscope.errors import UnknownName, UsageError, counted, named, raise_interrupt_behind, reason_of
from pytest_pilotscope.options.progress import ShowProgress
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.places.modelreference import check_reference
from pytest_pilotscope.postgres.signals import held
from pytest_pilotscope.provision.chosen_queries import completed, described, given_workload, too_few
from pytest_pilotscope.provision.writes import try_writes
from pytest_pilotscope.queries.queries import Workload
from pytest_pilotscope.queries.streams import Step, StreamSpec, drawn_stream
from pytest_pilotscope.record.results import BASELINE, RunHeader
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.report.progress import Say
from pytest_pilotscope.runs.cases import Case, cases_of, runs_to_judge, shares
from pytest_pilotscope.runs.drift import check_drift, divided
from pytest_pilotscope.runs.finished import FinishedRun, isolated, read_back
from pytest_pilotscope.runs.header import check_folder, check_page, restrictions
from pytest_pilotscope.runs.opening import benchmark_run, select_queries
from pytest_pilotscope.runs.shared import MeasuredRun, SharedRun
from pytest_pilotscope.runs.single import BenchmarkRun
from pytest_pilotscope.runs.stream import check_stream, writable
from pytest_pilotscope.runs.variants import register_variants

if TYPE_CHECKING:
    from pytest_pilotscope.datasets.base import Dataset
    from pytest_pilotscope.gate.judging import Gate, Judgement
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.provision.drifted import DriftedDatabases


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """
    The result of all runs: lines for the user, and the exit code (1 for a failure). `interrupted` by Ctrl-C, something is missing.

    `warnings` are those of the lines that warn. `failures` are the lines of each verdict of the gate that failed, by its name.
    """

    lines: tuple[str, ...] = ()
    exit_code: int = 0
    interrupted: bool = False
    warnings: frozenset[str] = frozenset()
    failures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Bench:
    """
    The state of one invocation; close it to stop the servers.

    `cases` are all that are asked for. `to_open` counts how often each case will be opened: those of one dataset are measured together, at
    the first. `failures` are those of readers of the records, as sentences.
    """

    settings: Settings
    registry: Registry
    say: Say
    progress: ShowProgress
    cases: tuple[Case, ...] = ()
    to_open: Counter[Case] = field(default_factory=Counter)
    finished: list[FinishedRun] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _gate: Gate | None = None
    _judgement: Judgement | None = None
    _databases: dict[str, Database] = field(default_factory=dict)
    _workloads: dict[str, Workload] = field(default_factory=dict)
    _measured: dict[Case, tuple[MeasuredRun, FinishedRun | None]] = field(default_factory=dict)
    _divided: dict[str, tuple[Workload, Workload]] = field(default_factory=dict)
    _stream: StreamSpec | None = None
    _steps: dict[str, tuple[Step, ...]] = field(default_factory=dict)
    _stack: ExitStack = field(default_factory=ExitStack)

    def check(self) -> None:
        """
        Raise `UsageError` for settings that cannot be measured.

        Those are unknown names, an empty selection, a model that is neither trained nor loaded, and an unwritable folder of results.
        The gate's reference is read here, before new records exist, so that they cannot be mistaken for it.
        """
        register_variants(self.registry, self.settings.variants)
        for name in self.settings.options:
            self.registry.algorithm(name)
            self.registry.options(name, self.settings.options)
        for name in self.settings.algorithms:
            self._check_parts(name)
        self._check_model()
        _check_measuring(self.settings)
        if self.settings.drift is not None:
            check_drift(self.settings, self.registry)
        if self.settings.stream is not None:
            from pytest_pilotscope.datasets.streamfiles import read_stream

            check_stream(self.settings, self.registry)
            self._stream = read_stream(self.settings.stream)
        _check_clients(self.settings)
        check_folder("--results", self.settings.results)
        if self.settings.report is not None:
            check_page(self.settings.report)
        if self.settings.dump is not None and len(self.settings.datasets) > 1:
            raise UsageError(
                f"--dump {self.settings.dump} is the data of one database; name one with --db, not {len(self.settings.datasets)}"
            )
        for name in self.settings.datasets:
            queries = select_queries(self.workload(name).test, self.settings)
            if self._stream is not None:
                pool = select_queries(self.workload(name).test, replace(self.settings, limit=None))
                self._steps[name] = drawn_stream(self._stream, pool, name, self.settings.seed)[: self.settings.limit]
            if self.settings.calibrate:
                _check_calibration(self.settings, len(queries))
            if (writes := self.workload(name).writes) is not None and not writes.count(len(queries)):
                raise UsageError(
                    f"--writes-per-query {writes.per_query:g}: beside {counted(len(queries), 'query', 'queries')} no script would run; "
                    f"give at least {1 / len(queries):.2g}, or measure more queries"
                )
        if self.settings.gate and not self.settings.calibrate:
            from pytest_pilotscope.gate.judging import open_gate
            from pytest_pilotscope.tracking.record_artifacts import newest_record

            self._gate = open_gate(self.settings, partial(newest_record, tracking_uri=self.settings.tracking_uri))
            if self._gate is not None and self._gate.missing and self.settings.gate_on_missing == "fail":
                raise UsageError(
                    f"--gate {self.settings.gate}: {self._gate.missing}; name another reference, or measure a first one: "
                    "--gate-on-missing warn"
                )

    def _check_parts(self, name: str) -> None:
        """Raise `UsageError` for an unknown algorithm, and for options that algorithms joined with `+` cannot have."""
        parts = self.registry.parts(name)
        for part in parts:
            self.registry.options(part.name, self.settings.options)
        others = {variant.name for variant in self.settings.variants if not variant.settings} & {part.name for part in parts}
        if len(parts) > 1 and others:
            raise UsageError(
                f"{name}: {named(others)} is another server, which has nothing of what an algorithm prepares; join settings only"
            )
        models = sum(hasattr(part.resolve(), "load") for part in parts)
        if models > 1 and self.settings.load_model not in (None, "best"):
            raise UsageError(
                f"--load-model {self.settings.load_model} is one model, and {name} has {models}; use --load-model best, which takes the "
                "best of each algorithm by itself"
            )
        if len(parts) > 1 and self.settings.dask is not None:
            raise UsageError(f"--dask: the workers have the data without what {parts[0].name} prepares for {name}; leave --dask out")

    def _check_model(self) -> None:
        """Raise `UsageError` for a model that cannot exist, and for a missing one. Algorithms without `load` need no model."""
        reference = self.settings.load_model
        if reference is not None:
            check_reference(reference)
            return
        if not self.settings.training and any(hasattr(algorithm, "load") for algorithm in self._resolved()):
            raise UsageError("--no-training needs a model: add --load-model best|RUN_ID|PATH|models:/NAME/VERSION")

    def provision(self) -> None:
        """Open the databases of the cases."""
        for case in self.cases:
            self.database(case.dataset)

    def workload(self, name: str) -> Workload:
        """Return the queries of a dataset, or those of `--queries-dir`. They are complete once `database` has opened the database."""
        if name not in self._workloads:
            self._workloads[name] = given_workload(name, self.dataset(name), self.settings)
        return self._workloads[name]

    def dataset(self, name: str) -> Dataset | None:
        """Make the dataset of a name; None for the database in the DSN of `--server`. Raise `UnknownName` for any other name."""
        from pytest_pilotscope.provision.database import PostgreSQLConfig, dataset_of

        known = {entry.name for entry in self.registry.datasets}
        if name not in known and self.settings.dump is None:
            own = own_database(self.settings)
            if own == name:
                return None
            yours = f"name a database of yours with --server postgresql://HOST/{name}, or its dump with --dump"
            if own is not None:
                yours = f"--server names database {own!r}; leave --db out, or write --db {quote(own)}"
                if not get_close_matches(name, known):
                    raise UsageError(yours)
            raise UnknownName("dataset", name, known, otherwise=yours)
        dataset = dataset_of(PostgreSQLConfig.from_settings(self.settings, db=name), self.registry)
        if isinstance(dataset, ShowsProgress):
            dataset.show_progress = self.progress
        return dataset

    def database(self, name: str) -> Database:
        """Return a dataset's database; provision it at the first call."""
        if name not in self._databases:
            from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database
            from pytest_pilotscope.provision.variants import introductions, under_conditions

            dataset = self.dataset(name)
            config = PostgreSQLConfig.from_settings(self.settings, db=name if dataset is not None else None)
            opened = self._stack.enter_context(open_database(config, dataset))
            database = self._stack.enter_context(under_conditions(opened, self.settings))
            self.say(f"pilotscope: {name} on {database.report.header()}")
            for line in introductions(database):
                self.say(f"pilotscope: {line}")
            for line in restrictions(self.settings.algorithms, self.registry, database, trains=self.settings.training):
                self.say(f"pilotscope: {line}")
            self._check_connections(database)
            self._databases[name] = database = self._before(name, database)
            workload = completed(self.workload(name), database, self.settings, learns=self._learns(), show_progress=self.progress)
            self._workloads[name] = workload
            if self.settings.drift is not None:
                self._divided[name] = divided(workload, self.settings.drift, self.settings.seed)
            for line in (*described(workload), *too_few(workload, self.settings)):
                self.say(f"pilotscope: {name}: {line}")
        return self._databases[name]

    def _before(self, name: str, database: Database) -> Database:
        """
        Return the database before anything changes: for a drift in time that of the past.

        Raise DatasetError if a drift, a stream or scripts that write would change data in a copy that nobody has allowed.
        """
        from pytest_pilotscope.postgres.databases import our_name, require_databases

        drift = self.settings.drift
        changing = [f"--drift {drift}"] if drift is not None and drift.changes_data else []
        changing += [f"--stream {self.settings.stream}"] if any(step.write for step in self._steps.get(name, ())) else []
        changing += [f"--writes {','.join(self.settings.writes)}"] if self.settings.writes else []
        for purpose in changing:
            require_databases(database.server, purpose, our_name(database.name, "_..."))
        if (writes := self.workload(name).writes) is not None:
            try_writes(database, writes, self.settings)
        if drift is None or drift.kind != "time":
            return database
        from pytest_pilotscope.provision.drifted import past_database

        return self._stack.enter_context(past_database(database, drift, lambda line: self.say(f"pilotscope: {name}: {line}")))

    def _learns(self) -> bool:
        """Tell whether an algorithm needs training queries."""
        return self.settings.load_model is None and any(getattr(algorithm, "learns", True) for algorithm in self._resolved())

    def _resolved(self) -> list[Callable[..., Any]]:
        return [part.resolve() for name in self.settings.algorithms for part in self.registry.parts(name)]

    def _check_connections(self, database: Database) -> None:
        """
        Raise `UsageError`, before anything is trained, if the server does not accept the clients of the sides that it has for certain.

        What is prepared may be on another server.
        """
        from pytest_pilotscope.runs.slices import check_connections

        if (clients := self.settings.clients_at_once) is None:
            return
        opponents = [name for name in self.settings.algorithms if name != BASELINE] or [BASELINE]
        parts = [[part.resolve() for part in self.registry.parts(name)] for name in opponents]
        here = [all(not hasattr(part, "prepare") or getattr(part, "copies", False) for part in joined) for joined in parts]
        sides = 1 + (sum(here) if self.settings.compare else min(sum(here), 1))
        check_connections([database] * sides, clients, write=bool(self.settings.writes))

    @contextmanager
    def open_run(self, case: Case) -> Iterator[BenchmarkRun | MeasuredRun]:
        """Give the run of a case, measured already if it shares its baseline; however the block ends, hand the record to its readers."""
        sharing = [other for other in self.to_open if shares(other, case, self.settings)]
        group = [other for other in sharing if self.to_open[other] > 0]
        if case not in self._measured and case in group and len(group) > 1 and self._connect(sharing):
            self._measure_in_turns(group)
        self.to_open[case] -= 1
        if case in self._measured:
            measured, finished = self._measured.pop(case)
            self.finished += [finished] if finished else []
            yield measured
            if measured.error is not None:
                raise measured.error
            return
        headers: list[RunHeader] = []
        database = self.database(case.dataset)
        steps = self._steps.get(case.dataset, ())
        earlier, later = self._divided.get(case.dataset, (self.workload(case.dataset),) * 2)
        try:
            with (
                self._drifted(case, database) as drifted,
                writable(database, steps) as written,
                self._run(
                    *case.measured,
                    together=case.compares,
                    database=written,
                    workload=replace(later if case.after else earlier, dataset=case.measured_dataset),
                    started=headers.append,
                    drifted=drifted,
                    earlier=earlier,
                    steps=steps,
                ) as run,
            ):
                yield run
        finally:
            with held():
                self.finished += filter(None, map(self._read_back, headers))

    def _run(self, *names: str, **given: Any) -> AbstractContextManager[BenchmarkRun]:
        return benchmark_run(*names, settings=self.settings, registry=self.registry, progress=self.progress, **given)

    def _read_back(self, header: RunHeader) -> FinishedRun | None:
        return read_back(header, self.settings, self.failures)

    def _connect(self, cases: Sequence[Case]) -> bool:
        """Tell whether the server has connections for the clients of all these cases at once; without `--clients` it has."""
        from pytest_pilotscope.runs.slices import allowed_connections, wanted_connections

        sides = 1 + sum(len(case.opponents) for case in cases)
        clients = self.settings.clients
        return clients is None or wanted_connections(sides, clients, write=bool(self.settings.writes)) <= allowed_connections(
            self.database(cases[0].dataset)
        )

    def _measure_in_turns(self, cases: Sequence[Case]) -> None:
        """Measure cases of one dataset against one baseline. An error of one algorithm is kept for its own case, any other for all."""
        headers: list[RunHeader] = []
        names = dict.fromkeys(name for case in cases for name in case.opponents)
        error: Exception | None = None
        run: SharedRun | None = None
        try:
            on: dict[str, Any] = {"database": self.database(cases[0].dataset), "workload": self.workload(cases[0].dataset)}
            with self._run(*names, together=True, apart=cases, started=headers.append, **on) as shared:
                run = cast("SharedRun", shared)
                run.measure_everything()
        except Exception as problem:
            raise_interrupt_behind(problem)
            error = problem
        finally:
            with held():
                found = [self._read_back(header) for header in headers] or [None] * len(cases)
                for case, finished in zip(cases, found, strict=True):
                    part = MeasuredRun(error=error) if run is None else run.part(case.opponents, error)
                    self._measured[case] = part, finished

    @contextmanager
    def _drifted(self, case: Case, database: Database) -> Iterator[DriftedDatabases | None]:
        if case.after is None:
            yield None
            return
        from pytest_pilotscope.provision.drifted import drifted_databases

        with drifted_databases(database, case.after, self.settings.seed) as drifted:
            yield drifted

    def conclude(self) -> Conclusion:
        """Write the report; calibrate with the runs, or judge them by the gate. Each does its work even if the others fail."""
        lines: list[str] = []
        interrupted = failed = False
        self.finished += [finished for _, finished in self._measured.values() if finished is not None]  # no test has opened these
        self._measured.clear()
        for reader, read in {
            "report": self._report,
            "drift": self._drift,
            "stream": self._regret,
            "calibration": self._calibrated,
            "gate": self._judged,
        }.items():
            try:
                with isolated(reader, self.failures), held():
                    its_lines, its_failure = read()
                    lines += its_lines
                    failed |= its_failure
            except KeyboardInterrupt:
                interrupted = True
        if unsent := sum(run.unsent for run in self.finished):
            lines.append(f"not sent to MLflow: {unsent} of {len(self.finished)} runs; `pilotscope sync` sends them, or says what is wrong")
        judgement = self._judgement
        return Conclusion(
            lines=tuple(lines),
            exit_code=int(failed or bool(self.failures)),
            interrupted=interrupted,
            warnings=judgement.blind if judgement else frozenset(),
            failures=judgement.failures if judgement else {},
        )

    def _report(self) -> tuple[Sequence[str], bool]:
        if self.settings.report is None or not self.finished:
            return (), False
        from pytest_pilotscope.report.page import write_page

        return [f"report: {write_page(self.settings.report, [run.record for run in self.finished])}"], False

    def _drift(self) -> tuple[Sequence[str], bool]:
        """Compare the runs before and after a drift, of every algorithm and dataset that has both."""
        from pytest_pilotscope.report.drift import drift_lines

        lines: list[str] = []
        for case in cases_of(self.settings) if self.settings.drift is not None else ():
            records = [run.record for run in self.finished if case.is_of(run.record.header)]
            if case.after is None:
                before = records
            elif records:
                lines += drift_lines(before[-1] if before else None, records[-1], case.algorithms[0])
        return lines, False

    def _regret(self) -> tuple[Sequence[str], bool]:
        """Sum up the runs of a stream."""
        from pytest_pilotscope.report.stream import stream_lines

        return [line for run in self.finished if self._stream is not None for line in stream_lines(run.record)], False

    def _calibrated(self) -> tuple[Sequence[str], bool]:
        if not self.settings.calibrate:
            return (), False
        from pytest_pilotscope.gate.calibrations import calibrate_with, calibration_folder

        lines: list[str] = []
        for run in self.finished:
            with isolated("calibration", self.failures):
                lines += calibrate_with(run.record, calibration_folder())
        missing = len(self.finished) < len(self.settings.datasets)
        return [*lines, *(["not everything was measured, so not everything is calibrated"] if missing else [])], missing

    def _judged(self) -> tuple[Sequence[str], bool]:
        if self._gate is None:
            return (), False
        from pytest_pilotscope.gate.judging import judge

        expected = runs_to_judge(self.settings)
        self._judgement = judge(self._gate, [run.record for run in self.finished], expected)
        return self._judgement.lines, self._judgement.exit_code != 0

    def close(self) -> str | None:
        """Stop what was started; return a sentence about what could not be stopped or put back."""
        self._databases.clear()
        with suppress(KeyboardInterrupt), held():  # nothing is left that could end earlier
            try:
                self._stack.close()
            except Exception as error:
                return f"not everything was put back at the end: {reason_of(error)}"
        return None


def _check_measuring(settings: Settings) -> None:
    wanted = {"--gate": settings.gate not in (None, "none"), "--compare": settings.compare, "--calibrate": settings.calibrate}
    if not settings.measure and any(wanted.values()):
        raise UsageError(f"--no-measure leaves nothing to judge; leave {', '.join(name for name, on in wanted.items() if on)} out")


def _check_clients(settings: Settings) -> None:
    if settings.clients_at_once is None:
        return
    option = "--writes" if settings.clients is None else "--clients"
    if settings.cold:
        raise UsageError(f"--cold: each client would drop the caches of the others; leave --cold or {option} out")
    if settings.rounds == "auto":
        raise UsageError(
            f"--rounds auto measures query by query, and {option} all queries at once; give the number of slices with --rounds"
        )


def _check_calibration(settings: Settings, queries: int) -> None:
    if settings.compare or settings.variants or settings.algorithms != (BASELINE,):
        others = "--algo, --variant and --compare" if settings.variants else "--algo and --compare"
        raise UsageError(f"--calibrate measures PostgreSQL against itself; leave {others} out")
    if settings.fewest_rounds < 2 or queries < 2:
        raise UsageError(
            f"--calibrate needs at least 2 rounds and 2 queries to see noise, found {settings.fewest_rounds} and {queries}; "
            "leave --rounds, --queries and --limit as they are for the gate"
        )


def own_database(settings: Settings) -> str | None:
    """Return the user's own database: the name in the DSN of `--server`."""
    return settings.server.database if isinstance(settings.server, Dsn) else None
