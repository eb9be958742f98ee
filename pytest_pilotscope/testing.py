"""
The contract that every algorithm keeps, as tests to inherit.

    from pytest_pilotscope.testing import AlgorithmContract

    class TestNaru(AlgorithmContract):
        algorithm = Naru

Everything is real: a server, a small dataset, training. What must hold for an estimator, a plan chooser, a preparer or a model that can be
saved is tested where the class has the methods for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from pytest_pilotscope.errors import AlgorithmError, ModelError
from pytest_pilotscope.learning.algorithm import Algorithm, CardinalityEstimator, DatabasePreparer, Persistent, PlanChooser
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.measurement.sides import check_estimates, side_of
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.plugin import REGISTRY
from pytest_pilotscope.provision.database import PostgreSQLConfig, open_database
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.record.results import TrainingReport
from pytest_pilotscope.registry import Registry
from pytest_pilotscope.runs.learn import check_algorithm, learn
from pytest_pilotscope.runs.single import copyable

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.fingerprint import Fingerprint
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """An algorithm that has learned, what it reported, and the fingerprints of its server before and after."""

    algorithm: Algorithm
    report: TrainingReport
    folder: Path
    before: Fingerprint
    after: Fingerprint


class AlgorithmContract:
    """
    Subclass it in a test module, and name the class of the algorithm, or a function without arguments that makes one.

    `config`, `settings` and `test_queries` (how many test queries are decided on) can be other ones. The algorithm's options have the
    values in `settings.options`, else the defaults that were registered in a conftest.py or an installed plugin.
    """

    algorithm: ClassVar[Callable[[], Any]]
    config: ClassVar[PostgreSQLConfig] = PostgreSQLConfig("stats_tiny", server="embedded", scale=0.01)
    settings: ClassVar[Settings] = Settings(training_size=12, collection_size=12, epochs=2)
    test_queries: ClassVar[int] = 3
    _registry: ClassVar[Registry]

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _registered(cls, pytestconfig: pytest.Config) -> None:
        """Take the options that were registered with this pytest."""
        cls._registry = pytestconfig.stash[REGISTRY]

    @pytest.fixture(scope="class")
    @classmethod
    def database(cls) -> Iterator[Database]:
        """The dataset on a server."""
        with open_database(cls.config) as opened, copyable(opened, [cls.made()]) as database:
            yield database

    @pytest.fixture(scope="class")
    @classmethod
    def workload(cls, database: Database) -> Workload:
        """The queries of the dataset."""
        assert database.dataset is not None, "config needs the name of a dataset, whose queries the algorithm learns from"
        return database.dataset.workload()

    @pytest.fixture(scope="class")
    @classmethod
    def trained(cls, database: Database, workload: Workload, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
        """The algorithm after training; the session that it was given stays open."""
        folder, made = tmp_path_factory.mktemp("contract"), cls.made()
        before = _fingerprint(database)
        with database.session() as session:
            training = cls.training(database, workload, session, folder)
            report = learn(made, training, given={})
            yield Trained(algorithm=made, report=report, folder=folder, before=before, after=_fingerprint(database))

    @classmethod
    def made(cls) -> Algorithm:
        """Make a new algorithm, which has learned nothing."""
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
        """What it learns from."""
        name = cls.made().name
        return Training.of(
            workload,
            algorithm=name,
            database=database,
            session=session,
            settings=cls.settings,
            options=cls._registry.options(name, cls.settings.options),
            folder=folder,
            progress=lambda text, steps: nullcontext(lambda done: None),
        )

    def decisions(self, algorithm: Algorithm, database: Database, queries: tuple[Query, ...], session: Session) -> list[object]:
        """What the algorithm decides: the database it prepares, and for each query the cardinalities, or why there are none."""
        side = side_of(algorithm.name, algorithm, session)
        found: list[object] = [_fingerprint(database)] if isinstance(algorithm, DatabasePreparer) else []
        for query in queries:
            with side.steered(query) as steering:
                found.append(steering.unsupported if steering.cardinalities is None else dict(steering.cardinalities))
            if isinstance(algorithm, CardinalityEstimator) and steering.cardinalities is not None:
                check_estimates(side.name, query, session.subplans(query.sql), steering.cardinalities)
        return found

    def decided(self, algorithm: Algorithm, database: Database, workload: Workload) -> list[object]:
        """Let it decide on the first test queries, and compare the answers with those of plain PostgreSQL."""
        queries = workload.test[: self.test_queries]
        with ExitStack() as stack:
            plain = stack.enter_context(database.session())
            answers = [sorted(plain.execute(query.sql)) for query in queries]
            if isinstance(algorithm, DatabasePreparer):
                database = stack.enter_context(algorithm.prepare(database))
            session = stack.enter_context(database.session())
            found = self.decisions(algorithm, database, queries, session)
            side = side_of(algorithm.name, algorithm, session)
            for query, answer in zip(queries, answers, strict=True):
                with side.steered(query):
                    assert sorted(session.execute(query.sql)) == answer
            return found

    def test_it_takes_over_one_decision_at_most(self) -> None:
        """It has a name of letters, digits and underscores, `train`, and at most one of `steer`, `choose` and `prepare`."""
        made = self.made()
        assert made.name.isidentifier()
        taken = [kind.__name__ for kind in (CardinalityEstimator, PlanChooser, DatabasePreparer) if isinstance(made, kind)]
        assert len(taken) <= 1

    def test_what_training_reports(self, trained: Trained) -> None:
        """Its own name, finite series and figures, and artifacts that are there, below its folder."""
        report = trained.report
        assert report.side == trained.algorithm.name
        numbers = [*report.scalars.values(), *(value for series in report.metrics.values() for value in series)]
        assert [number for number in numbers if not isfinite(number)] == []
        assert [path for path in report.artifacts if not Path(path).exists() or trained.folder not in Path(path).parents] == []

    def test_training_leaves_the_server_as_it_was(self, trained: Trained) -> None:
        """Data, statistics, settings and indexes are the same afterwards."""
        assert trained.after == trained.before

    def test_it_decides_legally_and_leaves_the_server_as_it_was(self, trained: Trained, database: Database, workload: Workload) -> None:
        """Every subplan has a finite number of rows, the answers are PostgreSQL's, and what was changed for them is put back."""
        self.decided(trained.algorithm, database, workload)
        assert _fingerprint(database) == trained.before

    def test_it_decides_the_same_again(self, trained: Trained, database: Database, workload: Workload) -> None:
        """A decision depends on the query and on what was learned, not on the decisions before."""
        assert self.decided(trained.algorithm, database, workload) == self.decided(trained.algorithm, database, workload)

    def test_a_saved_model_decides_the_same(self, trained: Trained, database: Database, workload: Workload, tmp_path: Path) -> None:
        """Saved and loaded into a new object, it is the same model with the same id."""
        first, second = trained.algorithm, self.made()
        if not isinstance(first, Persistent) or not isinstance(second, Persistent):
            pytest.skip(f"{first.name} has no models: it has no save and load")
        first.save(tmp_path)
        with database.session() as session:
            second.load(tmp_path, self.training(database, workload, session, tmp_path))
            assert second.model_id == first.model_id
            assert self.decided(second, database, workload) == self.decided(first, database, workload)

    def test_a_model_of_other_data_is_refused(self, trained: Trained, database: Database, workload: Workload, tmp_path: Path) -> None:
        """`load` raises ModelError, which names the fingerprint of the data at hand."""
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
