"""
The fault table: each line makes a `Cell`, which says where which fault happens and how the measurement has to end.

The tests beside this file run it. docs/trust.md tells users what it proves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product

POINTS = {
    "provisioning": "pytest_pilotscope.provision.database:open_server",
    "initdb": "pytest_pilotscope.postgres.process:Watchdog.ended",
    "loading": "tests.toy:Toy.load",
    "fingerprint": "pytest_pilotscope.postgres.fingerprint:fingerprint",
    "training": "tests.faults.algorithm:Watched.train",
    "labelling": "pytest_pilotscope.labels.collect:_count_in_memory",
    "deciding": "tests.faults.algorithm:Watched.steer",
    "planning": "pytest_pilotscope.postgres.session:Session.explain",
    "executing": "pytest_pilotscope.postgres.session:Session.stream",
    "between rounds": "pytest_pilotscope.measurement.protocol:QueryMeasurement._round#2",
    "MLflow start": "pytest_pilotscope.tracking.tracker:MLflowTracker.log_params",
    "MLflow send": "pytest_pilotscope.tracking.tracker:MLflowTracker.flush",
    "report": "pytest_pilotscope.report.page:write_page",
    "gate": "pytest_pilotscope.gate.judging:judge",
    "teardown": "pytest_pilotscope.postgres.databases:drop_database|pytest_pilotscope.postgres.embedded:EmbeddedServer.stop|"
    "pytest_pilotscope.postgres.given:GivenServer.stop|pytest_pilotscope.postgres.container_server:ContainerServer.stop",
    "choosing": "tests.faults.algorithm:Chooser.decide",
    "changing settings": "pytest_pilotscope.postgres.knobs:SystemKnobs.set",
    "settings changed": "pytest_pilotscope.runs.single:BenchmarkRun.measure",
    "endless query": "pytest_pilotscope.postgres.session:Session.stream@pg_sleep",
    "worker": "pytest_pilotscope.provision.pool:_worker",
    "task": "tests.faults.algorithm:count",
    "plots": "pytest_pilotscope.report.page:write_plots",
    "drifting": "pytest_pilotscope.provision.drifted:drift_data",
    "training again": "tests.faults.algorithm:Watched.train#3",
    "observing": "tests.faults.algorithm:Observes.observe#2",
    "stream writes": "pytest_pilotscope.runs.stream:StreamRun._write#2",
    "script": "pytest_pilotscope.measurement.clients:write#3",
}
"""The functions that a program stops before, by the name of the point."""

BEFORE = ("provisioning", "initdb", "loading", "fingerprint")
"""The points at which there is no record yet."""
AFTER = ("MLflow start", "MLflow send", "report", "gate", "teardown")
"""The points at which the record has its end already."""
COLD = ("initdb", "loading")
"""The points that need an empty cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """
    A fault at a point of a measurement on a server.

    The program ends with `code`. Its record, and its run in MLflow, have the status `record` (None: there is neither); with a drift it has
    two records, and two statuses. Exactly one line of
    the output matches `says`. `then` is a second fault: a point, and the fault's name. Faults that are no moment are in the `arguments` and
    the `environment`. `mended_later`: the next measurement on that server puts it back, because this one could not.
    """

    point: str
    server: str
    fault: str
    code: int
    record: str | None
    says: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    mended_later: bool
    then: tuple[str, str] | None

    @property
    def records(self) -> list[str]:
        """The statuses of its records."""
        return self.record.split() if self.record else []

    @property
    def tracking_elsewhere(self) -> bool:
        """True if the runs are not in the store of the project."""
        return "--tracking-uri" in self.arguments or "--no-mlflow" in self.arguments

    @property
    def name(self) -> str:
        """The id of its test."""
        second = f"-then {self.then[1]} at {self.then[0]}" if self.then else ""
        return f"{self.point}-{self.server}-{self.fault}{second}"


def cell(
    point: str,
    fault: str,
    code: int,
    record: str | None,
    says: str,
    *arguments: str,
    server: str = "embedded",
    then: tuple[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    mended_later: bool = False,
) -> Cell:
    """Return a cell, in one line of the table."""
    return Cell(
        point=point,
        fault=fault,
        code=code,
        record=record,
        says=says,
        arguments=arguments,
        server=server,
        then=then,
        environment=environment or {},
        mended_later=mended_later,
    )


def _record_at(point: str) -> str | None:
    """Return the status of a record when somebody stops the measurement at a point."""
    return None if point in BEFORE else "FINISHED" if point in AFTER else "KILLED"


def _record_of_the_dead(point: str) -> str | None:
    """Return the status of a record when its process is killed at a point."""
    return "INTERRUPTED" if _record_at(point) == "KILLED" else _record_at(point)


ANYWHERE = tuple(POINTS)[:15]
"""The points that every measurement has."""
INTERRUPTED = r"^!+ KeyboardInterrupt(: SIGTERM)? !+$"
ENDING = "the run ends as soon as its record is sent and everything is put back"
SERVER_ERROR = "^FAILED: (ServerError|StatementFailed): "
PASSED = r"=+ 1 passed"
LOCKED = "^FAILED: .*waited too long for a lock: process "
UNSENT = "not sent to MLflow: 1 of 1 runs"
UNDROPPED = "^pilotscope: not everything was put back at the end: "

# Somebody stops the measurement.

# While a run is concluded, a signal waits until that is done: then there is a summary. At the teardown there is nothing left to end.


def _stopped(point: str, fault: str, *arguments: str, server: str = "embedded") -> Cell:
    code, says = {"report": (2, ENDING), "gate": (2, ENDING), "teardown": (0, PASSED)}.get(point, (2, INTERRUPTED))
    return cell(point, fault, code, _record_at(point), says, *arguments, server=server)


STOPPED = [_stopped(point, fault) for point, fault in product(ANYWHERE, ("SIGINT", "SIGTERM"))]
TWICE = [
    cell(point, first, 2, _record_at(point), INTERRUPTED, then=(second, "SIGINT"))
    for point, first, second in product(("training", "deciding"), ("SIGINT", "SIGTERM"), ("MLflow send", "teardown"))
]
KILLED = [cell(point, "SIGKILL", -9, _record_of_the_dead(point), "") for point in ANYWHERE]

# PostgreSQL ends, or ends the sessions.

LOST = [
    *(
        cell(point, fault, 1, "FAILED", SERVER_ERROR)
        for point, fault in product(
            ("labelling", "deciding", "planning", "executing", "between rounds"), ("server killed", "sessions terminated")
        )
    ),
    cell("fingerprint", "server killed", 4, None, "^ERROR: "),
    cell("training", "server killed", 1, "FAILED", SERVER_ERROR),
    *(cell(point, "server killed", 0, "FINISHED", PASSED) for point in AFTER),
]

# An algorithm that misbehaves ends its own run, and says how.

SHORT = ("--steer-timeout-ms", "500")
ALGORITHMS = [
    cell("training", "exception", 1, "FAILED", "^FAILED: raises-in-training failed in training: Run", "--algo", "raises-in-training"),
    cell("deciding", "exception", 1, "FAILED", "^FAILED: raises-in-deciding failed on query '.*': Run", "--algo", "raises-in-deciding"),
    cell("deciding", "setting left behind", 1, "FAILED", "^FAILED: .*enable_hashjoin", "--algo", "leaves-setting"),
    cell("deciding", "transaction left open", 1, "FAILED", "^FAILED: .*transaction", "--algo", "leaves-transaction"),
    cell("deciding", "table dropped", 1, "FAILED", "^FAILED: .*default_transaction_read_only = off", "--algo", "drops-table"),
    cell("deciding", "clock patched", 1, "FAILED", "^FAILED: .*time.perf_counter_ns was replaced", "--algo", "patches-clock"),
    cell("deciding", "clock replaced", 1, "FAILED", "^FAILED: .*sides.Stopwatch was replaced", "--algo", "replaces-clock"),
    cell("deciding", "server altered", 1, "FAILED", "^FAILED: .*ALTER SYSTEM SET enable_hashjoin = off", "--algo", "alters-system"),
    cell("deciding", "function altered", 1, "FAILED", "^FAILED: .*functions: ", "--algo", "alters-function"),
    cell(
        "deciding",
        "statement of its own fails",
        1,
        "FAILED",
        "^FAILED: .*failing-statement failed .*: SELECT 1/0",
        "--algo",
        "failing-statement",
    ),
    cell("deciding", "list emptied", 1, "FAILED", "^empties left 2 of 2 queries .*it has no rows for 3 of 3 subplans", "--algo", "empties"),
    cell("deciding", "folder changed", 0, "FINISHED", PASSED, "--algo", "wanders"),
    cell("training", "exits", 1, "FAILED", "^FAILED: .*exits-in-training raised SystemExit: 0; ", "--algo", "exits-in-training"),
    cell("deciding", "exits", 1, "FAILED", "^FAILED: .*exits-in-deciding raised SystemExit: 0; ", "--algo", "exits-in-deciding"),
    cell("deciding", "skips", 1, "FAILED", "^FAILED: .*skips raised Skipped: not today; ", "--algo", "skips"),
    cell("training", "ends pytest", 1, "FAILED", "^FAILED: .*exits-pytest raised Exit: enough; ", "--algo", "exits-pytest"),
    cell("deciding", "tries again", 1, "FAILED", "^FAILED: .*--steer-timeout-ms", "--algo", "tries-again", *SHORT),
    cell("deciding", "limit of no time", 1, "FAILED", "^FAILED: .*after 0.001 ms; ", "--algo", "chooser", "--steer-timeout-ms", "0.001"),
    cell(
        "deciding",
        "never returns",
        3,
        "INTERRUPTED",
        "^pilotscope: never-returns decides on query .* cannot be stopped",
        "--algo",
        "never-returns",
        *SHORT,
    ),
    cell("deciding", "thread left", 0, "FINISHED", "^pilotscope: .* threads? .* did not end, .*'endless'", "--algo", "leaves-thread"),
    cell(
        "training",
        "process left",
        0,
        "FINISHED",
        r"^pilotscope: left running by an algorithm: 1 process: \d+ \(cat\)",
        "--algo",
        "leaves-process",
    ),
    cell("deciding", "hangs", 1, "FAILED", "^FAILED: .*--steer-timeout-ms", *SHORT),
]

# A reader of the record that fails leaves the record, and the other readers, alone.

READERS = [
    cell("report", "raises", 1, "FINISHED", "it broke"),
    cell("gate", "raises", 1, "FINISHED", "it broke"),
    cell("plots", "raises", 1, "FINISHED", "it broke"),
    cell("MLflow send", "raises", 0, "FINISHED", UNSENT),
    cell("report", "disk full", 1, "FINISHED", "^report: OSError: .*No space left", "--report", "small/report.html"),
    cell("deciding", "disk full", 1, "INTERRUPTED", "^small/.*cannot be written: No space left", "--results", "small", "--no-mlflow"),
    cell("report", "read-only folder", 4, None, "^ERROR: --report /proc/in/report.html", "--report", "/proc/in/report.html"),
    cell("records", "read-only folder", 4, None, "^ERROR: --results /proc/in", "--results", "/proc/in"),
    cell("MLflow start", "never answers", 0, "FINISHED", UNSENT, "--tracking-uri", "{silent}"),
    cell("MLflow start", "nobody listens", 0, "FINISHED", UNSENT, "--tracking-uri", "http://127.0.0.1:1"),
    cell("MLflow send", "disk full", 0, "FINISHED", UNSENT, "--tracking-uri", "sqlite:///small/mlflow.db"),
    cell("training", "store locked", 0, "FINISHED", UNSENT, "--tracking-uri", "sqlite:///mlflow.db"),
]

# The environment is somebody else's.

PG_VARIABLES = {
    "PGHOST": "192.0.2.1",
    "PGHOSTADDR": "192.0.2.1",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGDATABASE": "nowhere",
    "PGSERVICE": "nosuch",
    "PGGSSENCMODE": "require",
    "PGSSLMODE": "verify-full",
    "PGSSLNEGOTIATION": "direct",
    "PGREQUIREAUTH": "scram-sha-256",
    "PGOPTIONS": "-c enable_hashjoin=off",
    "PGGEQO": "off",
    "PGTZ": "nowhere",
}
ENVIRONMENT = [
    cell("provisioning", "PG* variables", 0, "FINISHED", PASSED, environment=PG_VARIABLES),
    cell("provisioning", "read-only cache", 4, None, "^ERROR: .*/proc/in", environment={"PILOTSCOPE_CACHE": "/proc/in"}),
]

# On a server of somebody else nothing stays, and without consent nothing but sessions happens.

given = partial(cell, server="given")
NOT_BACK = "^pilotscope: warning: not put back: bgwriter_lru_maxpages"
KNOBS = ("--algo", "knobs")
GIVEN = [
    *(
        _stopped(point, fault, server="given")
        for point, fault in product(("loading", "fingerprint", "training", "executing", "teardown"), ("SIGINT", "SIGTERM"))
    ),
    given("loading", "SIGKILL", -9, None, "", mended_later=True),
    given("deciding", "SIGKILL", -9, "INTERRUPTED", "", mended_later=True),
    given("deciding", "server killed", 1, "FAILED", SERVER_ERROR, mended_later=True),
    given("deciding", "server stopped", 1, "FAILED", SERVER_ERROR, mended_later=True),
    given("deciding", "sessions terminated", 1, "FAILED", "^FAILED: ServerError: PostgreSQL closed a session"),
    given("deciding", "no free connection", 0, "FINISHED", PASSED),
    given("teardown", "server killed", 0, "FINISHED", UNDROPPED, mended_later=True),
    given("teardown", "server stopped", 0, "FINISHED", UNDROPPED, mended_later=True),
    given("gate", "no free connection", 0, "FINISHED", UNDROPPED, mended_later=True),
    given("planning", "tables locked", 1, "FAILED", LOCKED),
    given("settings changed", "nothing", 0, "FINISHED", PASSED, *KNOBS),
    given("settings changed", "SIGINT", 2, "KILLED", INTERRUPTED, *KNOBS),
    given("settings changed", "SIGTERM", 2, "KILLED", INTERRUPTED, *KNOBS),
    given("settings changed", "SIGKILL", -9, "INTERRUPTED", "", *KNOBS, mended_later=True),
    given(
        "settings changed",
        "server killed",
        1,
        "FAILED",
        NOT_BACK,
        *KNOBS,
        mended_later=True,
    ),
    cell("provisioning", "no consent", 4, None, "^ERROR: .*--allow-changes", server="unwilling"),
    cell("training", "no consent", 1, "FAILED", "^FAILED: .*--allow-changes", *KNOBS, server="role"),
]

role = partial(cell, server="role")
ENDLESS = ("--queries-dir", "endless.sql", "--generate-training", "0", "--algo", "chooser")
ROLE = [
    *(
        _stopped(point, fault, server="role")
        for point, fault in product(("fingerprint", "training", "deciding", "executing", "teardown"), ("SIGINT", "SIGTERM"))
    ),
    role("executing", "SIGKILL", -9, "INTERRUPTED", ""),
    role("endless query", "SIGINT in a statement", 2, "KILLED", INTERRUPTED, *ENDLESS),
    role("endless query", "SIGTERM in a statement", 2, "KILLED", INTERRUPTED, *ENDLESS),
    role("endless query", "SIGKILL in a statement", -9, "INTERRUPTED", "", *ENDLESS),
    role("endless query", "nothing", 1, "FINISHED", "^chooser on mine: gate .*: NOT COMPARABLE", *ENDLESS, "--query-timeout-ms", "500"),
    role("provisioning", "tables locked", 4, None, "ERROR: a statement waited too long for a lock: process "),
    role("provisioning", "no free connection", 4, None, "^ERROR: .*connection"),
    role("provisioning", "server stopped", 4, None, "^ERROR: .*connect"),
    role("fingerprint", "server killed", 4, None, "^ERROR: "),
    *(role(point, "server killed", 1, "FAILED", SERVER_ERROR) for point in ("training", "deciding", "executing")),
    *(role(point, "server killed", 0, "FINISHED", PASSED) for point in AFTER),
    role("executing", "tables locked", 1, "FAILED", LOCKED),
]

# Workers of Dask and containers end with the measurement.

pooled = partial(cell, server="dask")
LEARNS_THERE = ("--algo", "pooled")
DASK = [
    pooled("worker", "SIGKILL", 0, "FINISHED", PASSED, *LEARNS_THERE),
    pooled("worker", "run interrupted", 2, "KILLED", INTERRUPTED, *LEARNS_THERE),
    pooled("worker", "run killed", -9, "INTERRUPTED", "", *LEARNS_THERE),
    pooled("task", "raises", 1, "FAILED", "^FAILED: ServerError: .*it broke", *LEARNS_THERE),
]

contained = partial(cell, server="container")
CONTAINER = [
    contained("loading", "SIGINT", 2, None, INTERRUPTED),
    contained("deciding", "SIGTERM", 2, "KILLED", INTERRUPTED),
    contained("deciding", "SIGKILL", -9, "INTERRUPTED", ""),
    contained("deciding", "container killed", 1, "FAILED", "^FAILED: .*container .* stopped"),
    contained("teardown", "SIGINT", 0, "FINISHED", PASSED),
]

# A drift, a stream and scripts that write work on copies of databases: none stays, whatever ends them.

DRIFT = ("--drift", "insert:50%", "--gate", "none", "--no-mlflow", "--training-timeout-s", "5")
STREAM = ("--gate", "none", "--training-timeout-s", "5", "--algo", "observes", "--stream")
WRITES = ("--gate-write-delta", "1e9%", "--clients", "2", "--writes-per-query", "2", "--writes")
RAISES = ("--gate", "none", "--algo", "raises-observing", "--stream", "stream.toml")
MODES = [
    cell(
        "training again",
        "exception",
        1,
        "FAILED FINISHED",
        "^FAILED: raises-again failed in training: Run",
        *DRIFT,
        "--algo",
        "raises-again",
    ),
    cell(
        "training again",
        "nonsense",
        1,
        "FAILED FINISHED",
        "^nonsense-again-retrained failed: query 'q2'",
        *DRIFT,
        "--algo",
        "nonsense-again",
    ),
    cell("training again", "hangs", 1, "FAILED FINISHED", "^FAILED: .*--training-timeout-s", *DRIFT),
    cell("training again", "server killed", 1, "FAILED FINISHED", SERVER_ERROR, *DRIFT),
    given("drifting", "SIGINT", 2, "FINISHED", INTERRUPTED, *DRIFT),
    given("training again", "SIGTERM", 2, "KILLED FINISHED", INTERRUPTED, *DRIFT),
    given("training again", "SIGKILL", -9, "INTERRUPTED FINISHED", "", *DRIFT, mended_later=True),
    cell("observing", "exception", 1, "FAILED", "^raises-observing failed: .*learning from its execution: Run", *RAISES),
    cell("observing", "hangs", 1, "FAILED", "^observes failed: .*--training-timeout-s", *STREAM, "stream.toml"),
    cell("observing", "server killed", 1, "FAILED", SERVER_ERROR, *STREAM, "stream.toml"),
    given("observing", "SIGINT", 2, "KILLED", INTERRUPTED, *STREAM, "stream.toml"),
    given("stream writes", "write fails", 1, "FAILED", "^FAILED: .*a write failed", *STREAM, "failing.toml"),
    cell("stream writes", "write blocks", 1, "FAILED", "^FAILED: .*a write failed", *STREAM, "sleeping.toml", "--query-timeout-ms", "500"),
    given("stream writes", "SIGKILL", -9, "INTERRUPTED", "", *STREAM, "stream.toml", mended_later=True),
    cell("stream writes", "SIGINT in a statement", 2, "KILLED", INTERRUPTED, *STREAM, "sleeping.toml"),
    given("script", "script fails", 1, "FAILED", "^FAILED: .*--writes failing.sql: ", *WRITES, "failing.sql"),
    cell(
        "script", "script blocks", 1, "FAILED", "^FAILED: .*--writes sleeping.sql: ", *WRITES, "sleeping.sql", "--query-timeout-ms", "500"
    ),
    cell("script", "SIGINT in a statement", 2, "KILLED", INTERRUPTED, *WRITES, "sleeping.sql"),
    cell("script", "server killed", 1, "FAILED", SERVER_ERROR, *WRITES, "script.sql"),
    given("script", "SIGTERM", 2, "KILLED", INTERRUPTED, *WRITES, "script.sql"),
    given("script", "SIGKILL", -9, "INTERRUPTED", "", *WRITES, "script.sql", mended_later=True),
]
