"""
A run after a drift: an algorithm that learned before takes turns with PostgreSQL, and with itself trained again.

All sides answer from the same data. If the data have changed, two have the statistics as they were, the others fresh ones. If the templates
of the queries have, the algorithm learned on others, and learns again on the training queries of those that are measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import SideFailed, UsageError
from pytest_pilotscope.learning.algorithm import CardinalityEstimator
from pytest_pilotscope.measurement.sides import GuardedSide, PlainSide, Side, side_of
from pytest_pilotscope.postgres.process import temporary_folder
from pytest_pilotscope.queries.splitting import seen_and_unseen
from pytest_pilotscope.queries.templates import template_of
from pytest_pilotscope.record.drift import drift_sides, drift_title
from pytest_pilotscope.record.results import BASELINE, RunHeader, TrainingReport
from pytest_pilotscope.runs.comparison import ComparisonRun
from pytest_pilotscope.runs.learn import made

if TYPE_CHECKING:
    from pytest_pilotscope.learning.algorithm import Algorithm
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.options.drifts import Drift
    from pytest_pilotscope.options.settings import Settings
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.provision.drifted import DriftedDatabases
    from pytest_pilotscope.queries.queries import Workload
    from pytest_pilotscope.registry import Registry


def check_drift(settings: Settings, registry: Registry) -> None:
    """Raise `UsageError` for options and algorithms that cannot be measured with `--drift`."""
    unfit = {
        "--compare": settings.compare,
        "--calibrate": settings.calibrate,
        "--gate": settings.gate not in (None, "none"),
        "--no-measure": not settings.measure,
        "--no-training": not settings.training,
        "--dask": settings.dask is not None,
        "--clients": settings.clients is not None,
        "--writes": bool(settings.writes),
        "--variant": bool(settings.variants),
    }
    if found := [name for name, on in unfit.items() if on]:
        raise UsageError(f"--drift {settings.drift} measures each algorithm before and after, and trains it again; leave {found[0]} out")
    for name in settings.algorithms:
        parts = registry.parts(name)
        if len(parts) > 1 or hasattr(parts[0].resolve(), "prepare"):
            raise UsageError(
                f"--drift {settings.drift}: {name} prepares a database of its own or joins several algorithms, and a drift is measured "
                "with an algorithm that decides on single queries only; leave it out"
            )


def divided(workload: Workload, drift: Drift, seed: int) -> tuple[Workload, Workload]:
    """Return the workload before a drift and after it; raise `WorkloadError` if its templates cannot be divided."""
    return (workload, workload) if drift.changes_data else seen_and_unseen(workload, drift.amount, seed)


def drifted_header(header: RunHeader, drifted: DriftedDatabases, earlier: Workload, later: Workload) -> RunHeader:
    """Return the header of a run with what has changed, and that the model is one of other data, or templates, on purpose."""
    found = drifted.before.fingerprint.data
    tags = {"drift": str(drifted.drift), "drift.data_before": found}
    model: str | None = None
    if drifted.drift.changes_data:
        before, after = (sum(counts) for counts in zip(*drifted.rows.values(), strict=True)) if drifted.rows else (0, 0)
        tags["drift.rows"] = f"{before} rows before, {after} after"
        model = f"trained on the data {found}, before the drift, on purpose"
    else:
        before, after = ({template_of(query.sql) for query in workload.test} for workload in (earlier, later))
        tags["drift.templates"] = f"{len(before)} templates before, {len(after)} after, {len(before & after)} of them the same"
        if (loaded := header.parameters.get("load_model")) is not None:
            model = f"loaded ({loaded}); it may have learned from queries of the templates after the drift"
        elif drifted.drift.amount:
            model = "trained without the queries of the templates after the drift, on purpose"
    if model is not None and header.algorithm != drift_title(BASELINE):
        tags["drift.model"] = model
    return replace(header, parameters={**header.parameters, "drift": str(drifted.drift)}, tags={**header.tags, **tags})


@dataclass(slots=True, kw_only=True)
class DriftRun(ComparisonRun):
    """A run of one algorithm after a drift. `earlier` is the workload before."""

    drifted: DriftedDatabases
    earlier: Workload

    def train(self, algorithms: Mapping[str, Any], stack: ExitStack) -> Sequence[SideFailed]:
        """Train an algorithm on what was before, and again on what is after; set up all sides. Raise what the algorithm raises."""
        ((name, (make,)),) = algorithms.items()
        sides = drift_sides(name, changes_data=self.drifted.drift.changes_data)
        analyzed = self.drifted.analyzed
        opponents: dict[str, Side] = {}
        if self.drifted.drift.changes_data:
            report: dict[str, Any] = {"duration_s": self.drifted.analyze_s, "parameters": {"analyze": True}, "num_training": 0}
            self.writer.write(TrainingReport(side=sides.baseline_analyzed, **report))
        if name == BASELINE or self.drifted.drift.changes_data:
            opponents[sides.of(BASELINE)[0]] = self._side(sides.of(BASELINE)[0], None, analyzed, stack)
        if name != BASELINE:
            ((old,), (new,)) = (made(name, [make]) for _ in range(2))
            self._deciding.append(name)
            self._learn(name, old, self._training(name, name, self.drifted.before, self.earlier, stack))
            training = self._training(sides.retrained, name, analyzed, self.workload, stack)
            training.labels_cache = stack.enter_context(temporary_folder())  # what others have counted would hide a part of the cost
            training.settings = replace(training.settings, load_model=None)
            self._learn(sides.retrained, new, training)
            of_algorithm = ((sides.old, old, self.database), (sides.old_analyzed, old, analyzed), (sides.retrained, new, analyzed))
            opponents |= {side: self._side(side, algorithm, database, stack) for side, algorithm, database in of_algorithm}
        self.begin(list(opponents.values()), count_truths=name != BASELINE and isinstance(old, CardinalityEstimator))
        return ()

    def _learn(self, side: str, algorithm: Algorithm, training: Training) -> None:
        report = self.learned(side, algorithm, training, self.supervised(training.session, training.database))
        self.writer.write(replace(report, side=side))

    def _training(self, side: str, algorithm: str, database: Database, workload: Workload, stack: ExitStack) -> Training:
        session = stack.enter_context(database.measuring_session())
        training = self.training(side, algorithm, database, session, workload)
        training.dataset = self.earlier.dataset
        return training

    def _side(self, name: str, algorithm: Algorithm | None, database: Database, stack: ExitStack) -> Side:
        session: Session = stack.enter_context(database.measuring_session())
        if algorithm is None:
            return PlainSide(name=name, session=session)
        return GuardedSide(side=side_of(name, algorithm, session, self.supervised(session, database)))
