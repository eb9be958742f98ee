"""`--algo mscn` from training on a real server to estimates, and back from disk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pytest_pilotscope.algorithms.mscn.estimation import TrainedModel
from pytest_pilotscope.algorithms.mscn.estimator import Mscn
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import AlgorithmError, ModelError, UnsupportedQuery
from pytest_pilotscope.labels import Labels, cardinalities
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.statistics.accuracy import q_error
from tests.conftest import LibraryOf

TABLES = """
    CREATE TABLE users (id integer, age integer, name text, key integer NOT NULL);
    CREATE TABLE posts (id integer, userid integer, score integer);
    CREATE TABLE nothing (userid integer);
    INSERT INTO users SELECT i, i * 7 % 80, CASE WHEN i % 3 = 0 THEN 'anna' ELSE 'bob' END, i FROM generate_series(1, 300) AS i;
    INSERT INTO posts SELECT i, i * i % 300 + 1, i % 50 - 10 FROM generate_series(1, 900) AS i;
"""
SQL = "SELECT COUNT(*) FROM users u, posts p WHERE u.id = p.userid AND u.age < 40 AND p.score >= 0 AND u.name LIKE 'an%'"


@pytest.fixture(scope="module")
def session(newest_server: EmbeddedServer, library_of: LibraryOf) -> Iterator[Session]:
    """A session in a database with users who write posts."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE mscn_estimator")
        with newest_server.connect("mscn_estimator") as session:
            session.execute(f"LOAD '{library_of(newest_server)}'")
            session.execute(TABLES)
            yield session
        administrator.execute("DROP DATABASE mscn_estimator WITH (FORCE)")


def queries(count: int, seed: int) -> list[Query]:
    """Joins of users and posts with random filters."""
    drawn = Random(seed)  # noqa: S311  # test data
    text = "SELECT COUNT(*) FROM users u, posts p WHERE u.id = p.userid AND u.age {} {} AND p.score {} {}"
    return [
        Query(
            id=f"{seed}-{number}",
            sql=text.format(drawn.choice("<>"), drawn.randrange(80), drawn.choice(("<=", ">=")), drawn.randrange(-10, 40)),
        )
        for number in range(count)
    ]


class OwnTraining(Training):
    """A training whose labels are kept with the test, some of them unfinished if asked for."""

    unfinished = frozenset[str]()

    def labels(self, queries: Sequence[Query], *, known_only: bool = False) -> Labels:
        """Count, whatever the settings say."""
        counted = cardinalities(
            self.session, queries, schema=self.schema, fingerprint=self.data_fingerprint, cache_dir=self.folder.parent / "labels"
        )
        rows = {
            query: {plan: replace(label, rows=None) if plan == self.unfinished else label for plan, label in plans.items()}
            for query, plans in counted.items()
        }
        return Labels(rows, counted.unsupported, counted.reasons, counted.statements)


def training(
    session: Session, folder: Path, *, data: str = "data-1", count: int = 60, options: Mapping[str, Any] | None = None, **chosen: Any
) -> OwnTraining:
    """Give `train` 60 queries."""
    folder.mkdir(parents=True, exist_ok=True)
    return OwnTraining(
        algorithm="mscn",
        dataset="users_and_posts",
        queries=queries(count, 1),
        validation=queries(20, 2),
        database=cast(Any, SimpleNamespace(fingerprint=SimpleNamespace(data=data))),
        session=session,
        settings=Settings(**{"epochs": 25, **chosen}),
        options=builtin_registry().options("mscn", {"mscn": options or {}}),
        folder=folder,
        progress=silent,
    )


@pytest.fixture(scope="module")
def trained(session: Session, tmp_path_factory: pytest.TempPathFactory) -> tuple[Mscn, Any, Path]:
    """A trained estimator, its report, and the folder of its artifacts."""
    folder = tmp_path_factory.mktemp("mscn") / "artifacts"
    found = Mscn()
    return found, found.train(training(session, folder)), folder


def fresh(trained: tuple[Mscn, Any, Path], session: Session) -> Mscn:
    """The trained model as loaded: no query was met."""
    loaded = Mscn()
    loaded.load(trained[2], training(session, trained[2]))
    return loaded


def test_steers_with_an_estimate_for_every_asked_subplan(trained: tuple[Mscn, Any, Path]) -> None:
    """The answer has the keys it was asked about, finite rows of at least one, and does not depend on PostgreSQL's estimates."""
    asked = {frozenset({"u"}): 1.0, frozenset({"p"}): 2.0, frozenset({"u", "p"}): 3.0}
    query = Query(id="x", sql=SQL)
    found = trained[0].steer(query, asked)
    assert found.keys() == asked.keys()
    assert all(np.isfinite(rows) and rows >= 1 for rows in found.values())
    assert trained[0].steer(query, dict.fromkeys(asked, 1e9)) == found
    assert trained[0].steer(query, {frozenset({"p"}): 1.0}).keys() == {frozenset({"p"})}


def test_trusts_the_text_of_a_template_that_the_planner_has_seen(trained: tuple[Mscn, Any, Path], session: Session) -> None:
    """The first query is answered from the planner's list and report, the next from its text alone, and both ways are the same."""
    met = fresh(trained, session)
    first, other = Query(id="x", sql=SQL), Query(id="y", sql=SQL.replace("40", "33"))
    assert met.steer_by_text(first) is None
    answer = met.steer(first, session.subplans(SQL))
    assert met.steer_by_text(first) == answer
    assert met.steer_by_text(other) == fresh(trained, session).steer(other, session.subplans(other.sql))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT COUNT(*) FROM users u, posts p WHERE u.id = p.userid AND (u.age > 3 OR u.id = 1)",
        "SELECT COUNT(*) FROM users u LEFT JOIN posts p ON u.id = p.userid WHERE p.score > 3",
        "SELECT COUNT(*) FROM users u, posts p WHERE u.id = p.userid AND u.key IS NOT NULL AND u.key IN (1, 2)",
        f"SELECT COUNT(*) FROM {', '.join(f'users u{n}' for n in range(12))} WHERE {' AND '.join(f'u0.id = u{n}.age' for n in range(12))}",
    ],
    ids=["not plain", "outer join", "another filter", "12 relations"],
)
def test_leaves_a_template_to_the_planner_that_means_something_else(trained: tuple[Mscn, Any, Path], session: Session, sql: str) -> None:
    """The planner is asked each time; it makes inner joins of outer ones, and drops what is always true."""
    met = fresh(trained, session)
    query = Query(id="x", sql=sql)
    for _ in range(2):
        assert met.steer_by_text(query) is None
        asked = session.subplans(sql)
        assert met.steer(query, asked).keys() == asked.keys()


def test_leaves_a_template_to_the_planner_whose_sets_are_others(trained: tuple[Mscn, Any, Path], session: Session) -> None:
    """A set that only one of the two has, and one that only the other has, are reasons enough."""
    asked = session.subplans(SQL)
    for sets in (dict(list(asked.items())[:2]), asked | {frozenset(): 1.0}):
        met = fresh(trained, session)
        met.steer(Query(id="x", sql=SQL), sets)
        assert met.steer_by_text(Query(id="x", sql=SQL)) is None


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (
            "SELECT COUNT(*) FROM users u, posts p WHERE u.id = p.userid AND u.age > (SELECT avg(age) FROM users)",
            "it has subqueries that PostgreSQL plans on their own",
        ),
        ("SELECT COUNT(*) FROM users u LEFT JOIN posts p ON u.id = p.userid", "{p, u} is no inner join of tables by equality of columns"),
        ("SELECT COUNT(*) FROM users u, posts p WHERE u.id < p.userid", "{p, u} is no inner join of tables by equality of columns"),
        ("SELECT COUNT(*) FROM generate_series(1, 3) AS g", "{g} is no inner join of tables by equality of columns"),
        ("SELECT COUNT(*) FROM pg_catalog.pg_class", "table 'pg_class' is not in the schema"),
        ("SELECT 1", "it has no relations"),
    ],
)
def test_leaves_what_has_no_features_to_postgres(trained: tuple[Mscn, Any, Path], session: Session, sql: str, reason: str) -> None:
    """Subqueries, other joins and what is no table are not estimated, and the reason is said each time."""
    met = fresh(trained, session)
    for _ in range(2):
        with pytest.raises(UnsupportedQuery) as refused:
            met.steer(Query(id="x", sql=sql), session.subplans(sql))
        assert refused.value.reason == reason
        assert met.steer_by_text(Query(id="x", sql=sql)) is None


def test_learns(session: Session, trained: tuple[Mscn, Any, Path], tmp_path: Path) -> None:
    """On queries it has never seen the median estimate is within a factor of 1.6 of the truth."""
    unseen = queries(30, 3)
    schema = read_schema(session)
    labels = cardinalities(session, unseen, schema=schema, fingerprint="data-1", cache_dir=tmp_path)
    estimated, true = [], []
    for query in unseen:
        estimated += list(trained[0].steer(query, dict.fromkeys(labels[query.id], 1.0)).values())
        true += [label.rows or 0 for label in labels[query.id].values()]
    assert np.median(q_error(estimated, true)) < 1.6


def test_report_names_what_users_read(trained: tuple[Mscn, Any, Path]) -> None:
    """The names of metrics, parameters and figures, a value per epoch, and the saved model as artifact."""
    mscn, report, folder = trained
    assert {name: len(values) for name, values in report.metrics.items()} == dict.fromkeys(
        ("train_loss", "validation_loss", "validation_qerror_p50", "validation_qerror_p95"), 25
    )
    assert report.metrics["train_loss"][-1] < report.metrics["train_loss"][0]
    assert report.parameters == {
        "model_id": mscn.model_id,
        "device": "cpu",
        "batch_size": 32,
        "learning_rate": 1e-3,
        "hidden_units": 256,
        "straight_above": np.e,
        "patience": 20,
        "seed": 0,
        "sample_bitmaps": True,
        "sample_rows": 1000,
    }
    assert report.scalars["num_training_queries"] == 60
    assert report.scalars["num_training_samples"] == 180
    assert report.scalars["num_validation_samples"] == 60
    assert report.scalars["num_unfinished_labels"] == report.scalars["num_unsupported_queries"] == 0
    assert report.scalars["best_validation_loss"] == min(report.metrics["validation_loss"])
    assert 0 < report.scalars["training_time_seconds"] < report.duration_s
    assert re.fullmatch(r"mscn_\d{8}_\d{6}", mscn.model_id)
    assert report.artifacts == (str(folder / "model" / mscn.model_id), str(folder / "metadata" / f"{mscn.model_id}.json"))


def test_loads_what_it_saved(session: Session, trained: tuple[Mscn, Any, Path], tmp_path: Path) -> None:
    """A saved and loaded model steers bit for bit alike, and the artifacts of training are the same model."""
    query = Query(id="x", sql=SQL)
    asked = dict.fromkeys((frozenset({"u"}), frozenset({"u", "p"})), 1.0)
    trained[0].save(tmp_path)
    for folder in (tmp_path, trained[2]):
        loaded = Mscn()
        loaded.load(folder, training(session, tmp_path / "unused"))
        assert loaded.model_id == trained[0].model_id
        assert loaded.steer(query, asked) == trained[0].steer(query, asked)


def test_decides_without_a_database(trained: tuple[Mscn, Any, Path]) -> None:
    """From a folder and SQL to rows of every subplan; what only PostgreSQL can evaluate is an error that names it."""
    estimate = Mscn.decider(trained[2])
    found = estimate(SQL)
    assert found.keys() == {frozenset({"u"}), frozenset({"p"}), frozenset({"u", "p"})}
    assert found == trained[0].steer(Query(id="x", sql=SQL), found)
    message = (
        "only PostgreSQL can evaluate \"name\" < 'b' on the sample of table 'users'; give the model a session, or use one without samples"
    )
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"):
        estimate("SELECT COUNT(*) FROM users WHERE name < 'b'")


def test_evaluates_by_postgres_where_there_is_one(trained: tuple[Mscn, Any, Path]) -> None:
    """The order of text is no error with a session."""
    query = Query(id="x", sql="SELECT COUNT(*) FROM users WHERE name < 'b'")
    assert trained[0].steer(query, {frozenset({"users"}): 1.0}).keys() == {frozenset({"users"})}


def test_empty_relation_is_estimated(trained: tuple[Mscn, Any, Path]) -> None:
    """A table without rows has an estimate like any other."""
    query = Query(id="x", sql="SELECT COUNT(*) FROM users u, nothing n WHERE u.id = n.userid AND n.userid = 3")
    found = trained[0].steer(query, {frozenset({"n"}): 1.0, frozenset({"u", "n"}): 1.0})
    assert all(np.isfinite(rows) for rows in found.values())


def test_a_subplan_of_unknown_aliases_has_no_estimate(trained: tuple[Mscn, Any, Path]) -> None:
    """A subplan of other relations than the query's is left out, so that the run leaves the query to PostgreSQL."""
    found = trained[0].steer(Query(id="x", sql=SQL), {frozenset({"u"}): 1.0, frozenset({"u", "q"}): 1.0})
    assert found.keys() == {frozenset({"u"})}


def test_weights_of_nan_give_estimates_of_nan(trained: tuple[Mscn, Any, Path], session: Session) -> None:
    """A broken network is not hidden behind a clamp: the run sees the NaN and fails."""
    broken = TrainedModel.load(trained[2]).network
    broken.output.bias.data[:] = float("nan")
    other = fresh(trained, session)
    assert other.model is not None
    other.model = TrainedModel(vocabulary=other.model.vocabulary, samples=other.model.samples, network=broken)
    assert np.isnan(other.steer(Query(id="x", sql=SQL), {frozenset({"u"}): 1.0})[frozenset({"u"})])


def test_model_of_other_data_is_refused(session: Session, trained: tuple[Mscn, Any, Path], tmp_path: Path) -> None:
    """Both fingerprints are shown and nothing is loaded."""
    message = (
        f"model {trained[0].model_id} was trained on other data: its fingerprint is data-1, that of this database is data-2; "
        "use the dataset it was trained on, or train again"
    )
    other = Mscn()
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        other.load(trained[2], training(session, tmp_path, data="data-2"))
    assert other.model is None


def test_steering_without_a_model_is_an_error() -> None:
    """An untrained network is never used."""
    with pytest.raises(ModelError, match=r"^mscn has no model yet; train it, or load one$"):
        Mscn().steer(Query(id="x", sql=SQL), {})


def test_unfinished_labels_are_left_out_and_counted(session: Session, tmp_path: Path) -> None:
    """Counts that did not finish are no samples; without bitmaps no sample rows are stored."""
    given = training(session, tmp_path / "artifacts", count=5, epochs=1, sample_bitmaps=False)
    given.unfinished = frozenset({"u", "p"})
    found = Mscn()
    report = found.train(given)
    assert report.scalars["num_training_samples"] == 10
    assert report.scalars["num_unfinished_labels"] == 25
    assert report.parameters["sample_rows"] == 0
    assert found.model is not None
    assert found.model.samples is None


def test_learns_from_the_inner_joins_of_every_query(session: Session, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of an outer join and of an EXISTS both sides are learnt from; a query without any counted inner join is named."""
    given = training(session, tmp_path / "artifacts", count=2, epochs=1)
    given.queries = [
        *given.queries,
        Query(id="none", sql="SELECT 1"),
        Query(id="full", sql="SELECT * FROM users u FULL JOIN posts p ON u.id = p.userid"),
        Query(id="test", sql="SELECT * FROM users u WHERE EXISTS (SELECT 1 FROM posts p WHERE p.userid = u.id)"),
        Query(id="with", sql="WITH q AS MATERIALIZED (SELECT * FROM posts) SELECT * FROM users u, q WHERE q.userid = u.id"),
        Query(id="function", sql="SELECT * FROM generate_series(1, 3) AS g"),
        Query(id="division", sql="SELECT * FROM users WHERE 1 / (id - id) = 1"),
    ]
    report = Mscn().train(given)
    assert report.scalars["num_unsupported_queries"] == 1
    assert report.scalars["num_training_queries"] == 5
    assert report.scalars["num_training_samples"] == 2 * 3 + 2 + 2 + 1
    named = [record.getMessage() for record in caplog.records if record.name == "pytest_pilotscope.algorithms.mscn.estimator"]
    nothing = "none of its sets of relations is an inner join of tables by equality of columns that was counted"
    assert named == [f"mscn does not learn from query function: {nothing}", f"mscn does not learn from query division: {nothing}"]


def test_options_of_its_own(session: Session, tmp_path: Path) -> None:
    """Batch size, hidden units and learning rate are recorded, and a loaded network is as wide as the saved one."""
    options = {"batch_size": 32, "hidden_units": 8, "learning_rate": 0.01}
    given = training(session, tmp_path / "artifacts", count=5, epochs=1, options=options)
    found, loaded = Mscn(), Mscn()
    assert found.train(given).parameters.items() >= options.items()
    found.save(tmp_path)
    loaded.load(tmp_path, given)
    assert loaded.model is not None
    assert loaded.model.network.hidden == 8
    assert loaded.steer_by_text(Query(id="x", sql=SQL)) == found.steer_by_text(Query(id="x", sql=SQL))


def test_nothing_labelled_is_an_error(session: Session, tmp_path: Path) -> None:
    """No training query, no model."""
    message = "mscn has no labelled subplan to learn from; give it training queries whose subplans can be counted"
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"):
        Mscn().train(training(session, tmp_path / "artifacts", count=0))
