"""Algorithms for the fault table: one that does nothing wrong, and those that misbehave in one way each."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count as count_up
from typing import TYPE_CHECKING, cast

import psycopg2
import pytest

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
        ReplacesClock,
        AltersSystem,
        AltersFunction,
        FailingStatement,
        Empties,
        Wanders,
        ExitsInTraining,
        ExitsInDeciding,
        Skips,
        ExitsPytest,
        TriesAgain,
        NeverReturns,
        LeavesThread,
        LeavesProcess,
        Knobs,
        Pooled,
        RaisesAgain,
        NonsenseAgain,
        Observes,
        RaisesObserving,
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


class Wanders(Watched):
    """It changes the current folder, as some frameworks do."""

    name = "wanders"

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Go to the root folder."""
        os.chdir("/")
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


class ReplacesClock(Chooser):
    """It replaces the clock of its decisions by another name."""

    name = "replaces-clock"

    def misbehave(self, session: Session) -> None:
        """Put something else in the place of the stopwatch."""
        from pytest_pilotscope.measurement import sides

        vars(sides)["Stopwatch"] = type("Fake", (vars(sides)["Stopwatch"],), {})


class AltersSystem(Chooser):
    """It steers the baseline by a setting of the whole server."""

    name = "alters-system"

    def misbehave(self, session: Session) -> None:
        """Switch off a kind of join for everybody."""
        session.execute("ALTER SYSTEM SET enable_hashjoin = off")
        session.execute("SELECT pg_reload_conf()")


class AltersFunction(Chooser):
    """It makes a comparison expensive, by a connection of its own."""

    name = "alters-function"

    def misbehave(self, session: Session) -> None:
        """Change the cost of a function."""
        with closing(psycopg2.connect(session.dsn)) as other, other, other.cursor() as cursor:
            cursor.execute("ALTER FUNCTION int4eq COST 77")


class FailingStatement(Chooser):
    """It has an error in its own SQL."""

    name = "failing-statement"

    def misbehave(self, session: Session) -> None:
        """Divide by zero."""
        session.execute("SELECT 1/0")


class Empties(Watched):
    """It forgets every subplan, in its answer and in the list that it was given."""

    name = "empties"

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Empty the list."""
        cast(dict[frozenset[str], float], subplans).clear()
        return subplans


class ExitsInTraining(Watched):
    """It ends the process while it trains."""

    name = "exits-in-training"

    def train(self, training: Training) -> TrainingReport:
        """Exit as if all were well."""
        sys.exit(0)


class ExitsInDeciding(Chooser):
    """It ends the process while it decides."""

    name = "exits-in-deciding"

    def misbehave(self, session: Session) -> None:
        """Exit as if all were well."""
        sys.exit(0)


class Skips(Chooser):
    """It skips the test that measures it."""

    name = "skips"

    def misbehave(self, session: Session) -> None:
        """Skip."""
        pytest.skip("not today")


class ExitsPytest(Watched):
    """It ends pytest, with success."""

    name = "exits-pytest"

    def train(self, training: Training) -> TrainingReport:
        """End it."""
        pytest.exit("enough", returncode=0)


class TriesAgain(Chooser):
    """It tries again after every error, without end."""

    name = "tries-again"

    def misbehave(self, session: Session) -> None:
        """Sleep again and again."""
        while True:
            with suppress(Exception):
                time.sleep(3600)


class NeverReturns(Chooser):
    """It does not return to the interpreter."""

    name = "never-returns"

    def misbehave(self, session: Session) -> None:
        """Count for ever, in C."""
        deque(count_up(), maxlen=0)


class LeavesThread(Chooser):
    """It leaves a thread behind that does not end."""

    name = "leaves-thread"

    def misbehave(self, session: Session) -> None:
        """Start one."""
        threading.Thread(target=threading.Event().wait, name="endless").start()


class LeavesProcess(Chooser):
    """It leaves a process behind."""

    name = "leaves-process"

    def train(self, training: Training) -> TrainingReport:
        """Start one that ends with this process, because nobody else ends it."""
        subprocess.Popen(["cat"], stdin=subprocess.PIPE)
        return training.report()


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


class RaisesAgain(Watched):
    """It learns before a drift, and cannot learn again."""

    name = "raises-again"
    trainings = count_up(1)

    def train(self, training: Training) -> TrainingReport:
        """Raise in the last of the three trainings of a drift."""
        self.last = next(self.trainings) == 3
        if self.last:
            self.fail()
        return training.report()

    def fail(self) -> None:
        """Raise."""
        raise RuntimeError("the loss is not finite")


class NonsenseAgain(RaisesAgain):
    """Once it has learned again, its rows are no numbers."""

    name = "nonsense-again"
    trainings = count_up(1)

    def fail(self) -> None:
        """Learn."""

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Return NaN after the last training."""
        return {aliases: float("nan") if self.last else rows for aliases, rows in subplans.items()}


class Observes(Chooser):
    """It decides on a setting, and observes what that takes."""

    name = "observes"

    def decide(self, query: Query, session: Session) -> Decision:
        """Switch off a kind of join for the query."""
        return Decision(settings={"enable_mergejoin": "off"})

    def observe(self, query: Query, decision: Decision, execution_ms: float) -> None:
        """Learn nothing."""


class RaisesObserving(Observes):
    """It cannot learn on the way."""

    name = "raises-observing"

    def observe(self, query: Query, decision: Decision, execution_ms: float) -> None:
        """Raise."""
        raise RuntimeError("no such embedding")


def count(worker: Worker, table: str) -> int:
    """Count the rows of a table on a worker's server."""
    with worker.database.session() as session:
        return int(session.scalar(f"SELECT count(*) FROM {table}"))
