"""
Tests of the contract of an algorithm, to inherit.

    from pytest_pilotscope.testing import AlgorithmContract

    class TestNaru(AlgorithmContract):
        algorithm = Naru

The tests start a real server with a small dataset and really train. Tests of estimators, deciders, preparers and saved models apply
to classes with the methods for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from pytest_pilotscope.errors import AlgorithmError, ModelError
from pytest_pilotscope.learning.algorithm import Algorithm, CardinalityEstimator, DatabasePreparer, Decider, Observing, Persistent
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.measurement.answers import answer_of
from pytest_pilotscope.measurement.clocks import clock_of
from pytest_pilotscope.measurement.differences import explained
from pytest_pilotscope.measurement.inspection import adherence_of, inspected
from pytest_pilotscope.measurement.sides import DeciderSide, EstimatorSide, ObservingSide, PlainSide, side_of
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.plugin import REGISTRY
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.record.results import BASELINE, TrainingReport
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.runs.learn import check_algorithm, copyable, learn

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.fingerprint import Fingerprint
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A trained algorithm with its report, and the fingerprints of its server before and after training."""

    algorithm: Algorithm
    report: TrainingReport
    folder: Path
    before: Fingerprint
    after: Fingerprint


class AlgorithmContract:
    """
    The tests of one algorithm. Set `algorithm` in a subclass to its class, or to a function without arguments that makes one.

    Override `config`, `settings` and `test_queries` (the number of test queries to decide on) if needed. The algorithm's options have the
    values in `settings.options`, else the defaults that a conftest.py or an installed plugin has registered.
    """

    algorithm: ClassVar[Callable[[], Any]]
    config: ClassVar[PostgreSQLConfig] = PostgreSQLConfig("stats_tiny", server="embedded", scale=0.01)
    settings: ClassVar[Settings] = Settings(training_size=12, collection_size=12, epochs=2)
    test_queries: ClassVar[int] = 3
    _registry: ClassVar[Registry]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _registered(cls, pytestconfig: pytest.Config) -> None:
        """Use the options that are registered in this pytest session."""
        cls._registry = pytestconfig.stash[REGISTRY]

    @pytest.fixture(scope="class")
    @classmethod
    def database(cls) -> Iterator[Database]:
        """Give the dataset on a server."""
        with open_database(cls.config) as opened, copyable(opened, [cls.made()]) as database:
            yield database

    @pytest.fixture(scope="class")
    @classmethod
    def workload(cls, database: Database) -> Workload:
        """Give the queries of the dataset."""
        assert database.dataset is not None, "config needs the name of a dataset, whose queries the algorithm learns from"
        return database.dataset.workload()

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, database: Database, workload: Workload, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
        """Give the trained algorithm; its session stays open."""
        folder, made = tmp_path_factory.mktemp("contract"), cls.made()
        before = _fingerprint(database)
        with database.session() as session:
            training = cls.training(database, workload, session, folder)
            report = learn(made, training, given={})
            yield Trained(algorithm=made, report=report, folder=folder, before=before, after=_fingerprint(database))

    @classmethod
    def made(cls) -> Algorithm:
        """Make a new, untrained algorithm."""
        algorithm: object = getattr(cls, "algorithm", None)
        if not callable(algorithm):
            raise AlgorithmError(
                f"{cls.__name__}.algorithm is {algorithm!r}; it must be the class of the algorithm, or a function without "
                "arguments that makes one"
            )
        made: Algorithm = algorithm()
        check_algorithm(made)
        return made

    @classmethod
    def training(cls, database: Database, workload: Workload, session: Session, folder: Path) -> Training:
        """Return the data that it learns from."""
        name = cls.made().name
        return Training.of(
            workload,
            algorithm=name,
            database=database,
            session=session,
            settings=cls.settings,
            options=cls._registry.options(name, cls.settings.options),
            folder=folder,
            progress=silent,
        )

    def decisions(self, algorithm: Algorithm, database: Database, queries: tuple[Query, ...], session: Session) -> list[object]:
        """
        Return all decisions: the fingerprint of the prepared database, and for each query the decision, or the reason for none.

        An estimator has rows, or a reason for none, for every subplan. PostgreSQL can do all that a decider decides: rows are for relations
        of the query, the plan has the joins and methods, and EXPLAIN shows the settings.
        """
        side = side_of(algorithm.name, algorithm, session)
        found: list[object] = [_fingerprint(database)] if isinstance(algorithm, DatabasePreparer) else []
        for query in queries:
            with side.steered(query) as steering:
                found.append(steering.unsupported or steering.decision or steering.estimates)
                if steering.decision:
                    adherence = adherence_of(inspected(session, query.sql, steering), session, query.sql)
                    assert adherence is not None
                    assert adherence.reasons == (), f"query {query.id}"
            assert not isinstance(side, EstimatorSide) or side.gaps.get(query.sql) is None, f"query {query.id}"
        return found

    def decided(self, algorithm: Algorithm, database: Database, workload: Workload) -> list[object]:
        """Return the decisions on the first test queries, and compare the answers with those of PostgreSQL without steering."""
        queries = workload.test[: self.test_queries]
        with ExitStack() as stack:
            unsteered = stack.enter_context(database.session())
            answers = [answer_of(unsteered, query.sql) for query in queries]
            if isinstance(algorithm, DatabasePreparer):
                database = stack.enter_context(algorithm.prepare(database))
            session = stack.enter_context(database.session())
            found = self.decisions(algorithm, database, queries, session)
            side = side_of(algorithm.name, algorithm, session)
            for query, answer in zip(queries, answers, strict=True):
                with side.steered(query):
                    again = answer_of(session, query.sql)
                if again.hash != answer.hash:  # raises Differs, except for what SQL leaves open
                    explained(query, PlainSide(name=BASELINE, session=unsteered), side, (answer, again), limit_ms=0)
            return found

    def test_it_takes_over_one_decision_at_most(self) -> None:
        """It has a name of letters, digits and underscores, `train`, and at most one of `steer`, `decide` and `prepare`."""
        made = self.made()
        assert made.name.isidentifier()
        taken = [kind.__name__ for kind in (CardinalityEstimator, Decider, DatabasePreparer) if isinstance(made, kind)]
        assert len(taken) <= 1

    def test_what_training_reports(self, trained: Trained) -> None:
        """The report has the algorithm's name, finite series and figures, and existing artifacts below its folder."""
        report = trained.report
        assert report.side == trained.algorithm.name
        numbers = [*report.scalars.values(), *(value for series in report.metrics.values() for value in series)]
        assert [number for number in numbers if not isfinite(number)] == []
        assert [path for path in report.artifacts if not Path(path).exists() or trained.folder not in Path(path).parents] == []

    def test_training_leaves_the_server_as_it_was(self, trained: Trained) -> None:
        """Data, statistics, settings and indexes are the same after training."""
        assert trained.after == trained.before

    def test_it_decides_legally_and_leaves_the_server_as_it_was(self, trained: Trained, database: Database, workload: Workload) -> None:
        """See `decisions` for what is legal; the answers are PostgreSQL's, and every change is undone."""
        self.decided(trained.algorithm, database, workload)
        assert _fingerprint(database) == trained.before

    def test_it_decides_the_same_again(self, trained: Trained, database: Database, workload: Workload) -> None:
        """A decision depends on the query and the trained model only, not on earlier decisions."""
        assert self.decided(trained.algorithm, database, workload) == self.decided(trained.algorithm, database, workload)

    def test_it_learns_from_executions(self, database: Database, workload: Workload, tmp_path: Path) -> None:
        """One with `observe` learns from executions of its own decisions: it still decides legally, and leaves the server as it was."""
        made = self.made()
        if not isinstance(made, Observing):
            pytest.skip(f"{made.name} does not learn on the way: it has no observe")
        before = _fingerprint(database)
        with database.session() as session:
            learn(made, self.training(database, workload, session, tmp_path), given={})
            side = side_of(made.name, made, session)
            assert isinstance(side, EstimatorSide | DeciderSide), f"{made.name} has observe, and decides on no single query"
            observing = ObservingSide(side=side, algorithm=made)
            for query in workload.test[: self.test_queries] * 3:
                with observing.steered(query):
                    execution_ms = clock_of(session)(session, query.sql, None).execution_ms
                observing.observe(query, execution_ms)
            self.decided(made, database, workload)
        assert _fingerprint(database) == before

    def test_a_saved_model_decides_the_same(self, trained: Trained, database: Database, workload: Workload, tmp_path: Path) -> None:
        """A model that is saved and loaded into a new object keeps its id and its decisions."""
        first, second = trained.algorithm, self.made()
        if not isinstance(first, Persistent) or not isinstance(second, Persistent):
            pytest.skip(f"{first.name} has no models: it has no save and load")
        first.save(tmp_path)
        with database.session() as session:
            second.load(tmp_path, self.training(database, workload, session, tmp_path))
            assert second.model_id == first.model_id
            assert self.decided(second, database, workload) == self.decided(first, database, workload)

    def test_a_model_of_other_data_is_refused(self, trained: Trained, database: Database, workload: Workload, tmp_path: Path) -> None:
        """`load` raises ModelError, which names the fingerprint of the present data."""
        first, second = trained.algorithm, self.made()
        if not isinstance(first, Persistent) or not isinstance(second, Persistent):
            pytest.skip(f"{first.name} has no models: it has no save and load")
        first.save(tmp_path)
        other = replace(database, fingerprint=replace(database.fingerprint, data="other-data"))
        with database.session() as session, pytest.raises(ModelError, match="other-data"):
            second.load(tmp_path, self.training(other, workload, session, tmp_path))


def _fingerprint(database: Database) -> Fingerprint:
    from pytest_pilotscope.postgres.fingerprint import fingerprint

    with database.session() as session:
        return fingerprint(session)
