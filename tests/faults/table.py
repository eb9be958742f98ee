"""
The fault table: one `Cell` a line says where which fault happens, and how the measurement has to end.

`test_matrix_*.py` run it. docs/trust.md tells users what it proves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

POINTS = {
    "provisioning": "pytest_pilotscope.provision.database:open_server",
    "initdb": "subprocess:Popen.communicate@initdb",
    "loading": "tests.toy:Toy.load",
    "fingerprint": "pytest_pilotscope.postgres.fingerprint:fingerprint",
    "training": "tests.faults.algorithm:Watched.train",
    "labelling": "pytest_pilotscope.labels.collect:_count_in_memory",
    "deciding": "tests.faults.algorithm:Watched.steer",
    "planning": "pytest_pilotscope.postgres.session:Session.explain",
    "executing": "pytest_pilotscope.measurement.clocks:explain_timed",
    "between rounds": "pytest_pilotscope.measurement.protocol:QueryMeasurement._round#2",
    "MLflow start": "pytest_pilotscope.tracking.tracker:MLflowTracker.log_params",
    "MLflow send": "pytest_pilotscope.tracking.tracker:MLflowTracker.flush",
    "report": "pytest_pilotscope.report.page:write_page",
    "gate": "pytest_pilotscope.gate.judging:judge",
    "teardown": "pytest_pilotscope.runs.bench:Bench.close",
    "choosing": "tests.faults.algorithm:Chooser.choose",
    "changing settings": "pytest_pilotscope.postgres.knobs:SystemKnobs.set",
    "settings changed": "pytest_pilotscope.runs.single:BenchmarkRun.measure",
    "worker": "pytest_pilotscope.provision.pool:_worker",
}
"""The functions that a program stops before, by the name of the point."""

BEFORE = ("provisioning", "initdb", "loading", "fingerprint")
"""The points at which there is no record yet."""
AFTER = ("MLflow send", "report", "gate", "teardown")
"""The points at which the record has its end already."""
COLD = ("initdb", "loading")
"""The points that need an empty cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """
    A fault at a point of a measurement on a server.

    The program ends with `code`. Its record, and its run in MLflow, have the status `record` (None: there is neither). Exactly one line of
    the output matches `says`. `then` is a second fault: a point, and the fault's name. Faults that are no moment are in the `arguments` and
    the `environment`. `mended_later`: the next measurement on that server puts it back, because this one could not.
    """

    point: str
    server: str
    fault: str
    code: int
    record: str | None
    says: str
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mended_later: bool = False
    then: tuple[str, str] | None = None

    @property
    def tracking_elsewhere(self) -> bool:
        """True if the runs are not in the store of the project."""
        return "--tracking-uri" in self.arguments or "--no-mlflow" in self.arguments

    @property
    def name(self) -> str:
        """The id of its test."""
        second = f"-then {self.then[1]} at {self.then[0]}" if self.then else ""
        return f"{self.point}-{self.server}-{self.fault}{second}"


def _record_at(point: str) -> str | None:
    """Return the status of a record when somebody stops the measurement at a point."""
    return None if point in BEFORE else "FINISHED" if point in AFTER else "KILLED"


INTERRUPTED = r"^!+ KeyboardInterrupt !+$"
ANYWHERE = tuple(POINTS)[:15]
"""The points that every measurement has."""

STOPPED = tuple(
    Cell(point=point, server="embedded", fault=fault, code=2, record=_record_at(point), says=INTERRUPTED)
    for point, fault in product(ANYWHERE, ("SIGINT", "SIGTERM"))
)
"""Ctrl-C, and the end of a job of CI."""

TWICE = tuple(
    Cell(point=point, server="embedded", fault="SIGINT", code=2, record=_record_at(point), says=INTERRUPTED, then=(second, "SIGINT"))
    for point, second in product(("training", "deciding"), ("MLflow send", "teardown"))
)
"""A second Ctrl-C while the first one is being obeyed."""

KILLED = tuple(
    Cell(point=point, server="embedded", fault="SIGKILL", code=-9, record=_record_at(point) and "INTERRUPTED", says="^.*$")
    for point in ANYWHERE
)


