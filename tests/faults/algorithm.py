"""Algorithms for the fault table: one that does nothing wrong, and those that misbehave in one way each."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_pilotscope.learning.decision import Decision
from pytest_pilotscope.registry import Registry
from tests.toy import Toy

if TYPE_CHECKING:
    from pytest_pilotscope.learning.algorithm import Cardinalities
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.provision.pool import Worker
    from pytest_pilotscope.queries.queries import Query
    from pytest_pilotscope.record.results import TrainingReport


def pytest_pilotscope_register(registry: Registry) -> None:
    """Register the toy as `toy`, and every algorithm here by its name."""
    registry.add_dataset("toy", lambda **_: Toy(test_queries=2), origin=__name__)
    for algorithm in (
        Watched,
        RaisesInTraining,
        RaisesInDeciding,
        Chooser,
        LeavesSetting,
        LeavesTransaction,
        DropsTable,
        PatchesClock,
        Knobs,
        Pooled,
    ):
        registry.add_algorithm(algorithm.name, algorithm, origin=__name__)


class Watched:
    """An estimator that labels its queries and repeats PostgreSQL's own estimates."""

    name = "watched"

    def train(self, training: Training) -> TrainingReport:
        """Count labels."""
        training.labels(training.queries)
        return training.report()

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Return the same rows."""
        return dict(subplans)


class RaisesInTraining(Watched):
    """It cannot be trained."""

    name = "raises-in-training"

    def train(self, training: Training) -> TrainingReport:
        """Raise."""
        raise RuntimeError("the loss is not finite")


class RaisesInDeciding(Watched):
    """It cannot decide."""

    name = "raises-in-deciding"

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Raise."""
        raise RuntimeError("no such embedding")


class Chooser:
    """A decider that always takes PostgreSQL's own plan."""

    name = "chooser"

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing."""
        return training.report()

    def decide(self, query: Query, session: Session) -> Decision:
        """Decide on nothing, after `misbehave`."""
        self.misbehave(session)
        return Decision()

    def misbehave(self, session: Session) -> None:
        """Do nothing wrong."""


class LeavesSetting(Chooser):
    """It leaves a setting of its session behind."""

    name = "leaves-setting"

    def misbehave(self, session: Session) -> None:
        """Switch off a kind of join."""
        session.execute("SET enable_hashjoin = off")


class LeavesTransaction(Chooser):
    """It leaves a transaction open."""

    name = "leaves-transaction"

    def misbehave(self, session: Session) -> None:
        """Begin one."""
        session.execute("BEGIN")


class DropsTable(Chooser):
    """It drops a table that the queries read."""

    name = "drops-table"

    def misbehave(self, session: Session) -> None:
        """Leave the read-only transaction and drop it."""
        session.execute("SET default_transaction_read_only = off")
        session.execute("DROP TABLE IF EXISTS b")


class PatchesClock(Chooser):
    """It stops the clock that measures its decisions."""

    name = "patches-clock"

    def misbehave(self, session: Session) -> None:
        """Stop it."""
        time.perf_counter_ns = lambda: 0


class Knobs:
    """It changes a setting of the whole server while it is measured."""

    name = "knobs"

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing."""
        return training.report()

    @contextmanager
    def prepare(self, database: Database) -> Iterator[Database]:
        """Set it with ALTER SYSTEM, and put it back."""
        from pytest_pilotscope.postgres.knobs import system_knobs

        with system_knobs(database.server, ["bgwriter_lru_maxpages"]) as knobs, database.session() as session:
            knobs.set(session, {"bgwriter_lru_maxpages": "7"})
            yield database


class Pooled(Chooser):
    """It learns on a Dask worker."""

    name = "pooled"

    def train(self, training: Training) -> TrainingReport:
        """Count the rows of a table there."""
        with training.pool() as pool:
            assert pool is not None
            pool.submit("count", count, "a")
            return training.report(scalars={"rows": pool.next()[1]})


def count(worker: Worker, table: str) -> int:
    """Count the rows of a table on a worker's server."""
    with worker.database.session() as session:
        return int(session.scalar(f"SELECT count(*) FROM {table}"))
