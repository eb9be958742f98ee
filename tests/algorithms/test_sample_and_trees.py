"""`sample` and `trees`: the textbook's formula, features that are what they say, and models that survive being saved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from pytest_pilotscope.algorithms.planned import PlannedEstimator
from pytest_pilotscope.algorithms.sample import Sample
from pytest_pilotscope.algorithms.textbook import NONE_PASSED, ColumnFacts, Textbook, membership, read_textbook
from pytest_pilotscope.algorithms.trees.estimator import Trees
from pytest_pilotscope.algorithms.trees.features import Featurizer
from pytest_pilotscope.algorithms.trees.forest import Forest, HyperParameters, grow
from pytest_pilotscope.algorithms.trees.saved_forest import TREES
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import AlgorithmError, ModelError, UnsupportedQuery
from pytest_pilotscope.labels import read_schema
from pytest_pilotscope.learning.algorithm import PartialCardinalities
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database
from pytest_pilotscope.queries.joins import JoinQuery
from pytest_pilotscope.queries.queries import Query
from tests.algorithms.shop import Shop

JOINED = "SELECT count(*) FROM customers AS c JOIN orders AS o ON o.customer = c.id WHERE o.amount < 10 AND c.city = 3"


@pytest.fixture(scope="module")
def session(shop: Database) -> Iterator[Session]:
    """A session in the shop."""
    with shop.session() as opened:
        yield opened


@pytest.fixture(scope="module")
def textbook(session: Session) -> Textbook:
    """The facts and samples of the shop."""
    return read_textbook(session, read_schema(session), seed=0)


def training(shop: Database, session: Session, folder: Path, algorithm: str, **options: Any) -> Training:
    """The queries, the database and the options of a training in the shop."""
    return Training.of(
        Shop().workload(),
        algorithm=algorithm,
        database=shop,
        session=session,
        settings=Settings(),
        options=builtin_registry().options(algorithm, {algorithm: options}),
        folder=folder,
        progress=silent,
    )


def meaning(session: Session, sql: str) -> JoinQuery:
    """The relations and joins of a query."""
    level = read_meaning(session, sql).outermost
    assert level is not None
    return level.query


def test_the_textbook_multiplies_rows_and_divides_by_the_larger_number_of_values(session: Session, textbook: Textbook) -> None:
    """20,000 orders, 2,000 customers with 2,000 values on either side: the join keeps one of 2,000 pairs."""
    query = meaning(session, "SELECT count(*) FROM customers AS c JOIN orders AS o ON o.customer = c.id")
    assert textbook.rows(query, query.masks) == pytest.approx([2000, 20_000, 20_000])


def test_filters_are_estimated_by_the_sample(session: Session, textbook: Textbook) -> None:
    """A filter keeps the share of sample rows that pass it; of a filter that no sample row passes half a row is taken."""
    query = meaning(session, JOINED + " AND o.id < 0")
    orders = query.relations["o"]
    assert textbook.filtered(orders) == 20_000 * NONE_PASSED / 1000
    query = meaning(session, JOINED)
    passed = int(textbook.samples.bitmap(query.relations["o"]).sum())
    assert 150 < passed < 250
    assert textbook.filtered(query.relations["o"]) == 20_000 * passed / 1000


def test_a_column_without_statistics_is_named(session: Session, textbook: Textbook) -> None:
    """PostgreSQL's own guess of 200 values is not taken for knowledge."""
    query = meaning(session, JOINED)
    bare = Textbook(table_rows=textbook.table_rows, columns={}, samples=textbook.samples)
    with pytest.raises(AlgorithmError, match=r"^PostgreSQL has no statistics of column customers\.id; run ANALYZE customers$"):
        bare.rows(query, query.masks)


def test_values_are_counted_where_statistics_are_switched_off(newest_scratch: Session) -> None:
    """The other columns of the table have statistics, so that ANALYZE would not help."""
    newest_scratch.execute(
        "CREATE TABLE t AS SELECT g AS id, nullif(g % 12, 0) AS x FROM generate_series(1, 300) AS g; "
        "ALTER TABLE t ALTER x SET STATISTICS 0; ANALYZE"
    )
    facts = read_textbook(newest_scratch, read_schema(newest_scratch), seed=0).columns
    assert facts["t", "id"] == ColumnFacts(distinct=300, null_share=0)
    assert facts["t", "x"].distinct == 11
    assert facts["t", "x"].null_share == pytest.approx(25 / 300)


def test_membership_has_a_column_for_each_relation() -> None:
    """Also beyond the 62 relations that a 64-bit number has room for."""
    query = cast(JoinQuery, type("Q", (), {"aliases": tuple(f"r{number}" for number in range(70))}))
    found = membership(query, [1, 1 << 69])
    assert found.shape == (2, 70)
    assert [row.nonzero()[0].tolist() for row in found] == [[0], [69]]


@pytest.mark.parametrize("made", [Sample(), Trees()], ids=lambda each: each.name)
def test_other_sets_are_left_to_postgresql_with_the_reason(
    made: PlannedEstimator, shop: Database, session: Session, tmp_path: Path
) -> None:
    """An outer join and a subquery have no estimate, the tables have one; a query without any table is refused."""
    made.train(training(shop, session, tmp_path, made.name))  # type: ignore[attr-defined]
    query = Query(id="q", sql="SELECT count(*) FROM customers AS c LEFT JOIN orders AS o ON o.customer = c.id AND o.amount = 1")
    found = made.steer(query, session.subplans(query.sql))
    assert isinstance(found, PartialCardinalities)
    assert found.keys() == {frozenset("c"), frozenset("o")}
    assert found.unknown == {frozenset("co"): "{c, o} is no inner join of tables by equality of columns"}
    with pytest.raises(UnsupportedQuery, match="it has no relations"):
        made.steer_by_text(Query(id="q", sql="SELECT 1"))
    assert made.steer_by_text(Query(id="q", sql="SELECT nothing FROM nowhere")) is None


@pytest.mark.parametrize("made", [Sample(), Trees()], ids=lambda each: each.name)
def test_an_estimator_without_training_says_so(made: PlannedEstimator) -> None:
    """No server is asked."""
    with pytest.raises(ModelError, match=f"^{made.name} has nothing to estimate with; train it, or load a model$"):
        made.steer_by_text(Query(id="q", sql=JOINED))


def test_features_of_sets(session: Session, textbook: Textbook) -> None:
    """Estimate, product of filtered tables, number of relations; tables, their filters; joined columns."""
    query = meaning(session, JOINED)
    schema = read_schema(session)
    featurizer = Featurizer(schema=schema, textbook=textbook)
    found = featurizer.features(query, query.masks)
    assert found.shape == (3, featurizer.width) == (3, 3 + 2 * 2 + 8)
    both = dict(zip(query.subplans(), found, strict=True))[frozenset("co")]
    customers, orders = (textbook.filtered(query.relations[alias]) for alias in "co")
    assert both[:3] == pytest.approx([np.log(textbook.rows(query, [3])[0]), np.log(customers * orders), 2], rel=1e-5)
    assert both[3:5].tolist() == [1, 1]
    assert both[5:7] == pytest.approx(np.log([customers / 2000, orders / 20_000]), rel=1e-5)
    columns = [(table, column) for table, types in schema.items() for column in types]
    assert {columns[position] for position in both[7:].nonzero()[0]} == {("customers", "id"), ("orders", "customer")}


def test_a_forest_answers_as_scikit_learn_does() -> None:
    """The arrays give the same numbers as the object they were taken from, and the early end keeps the best trees."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(400, 5)).astype(np.float32)
    targets = np.where(rows[:, 0] > 0, rows[:, 1] ** 2, rows[:, 2])
    parameters = HyperParameters(count=200, depth=4, learning_rate=0.2, seed=1)
    grown = grow(rows[:300], targets[:300], rows[300:], targets[300:], parameters=parameters, advance=lambda steps: None)
    assert (
        len(grown.forest.values) == int(np.argmin(grown.validation_loss)) + 1 < len(grown.train_loss) == len(grown.validation_loss) <= 200
    )
    assert np.mean((grown.forest.predict(rows[300:]) - targets[300:]) ** 2) == pytest.approx(min(grown.validation_loss))
    unchecked = grow(rows, targets, rows[:0], targets[:0], parameters=parameters, advance=lambda steps: None)
    assert np.mean((unchecked.forest.predict(rows) - targets) ** 2) == pytest.approx(unchecked.train_loss[-1])
    assert unchecked.validation_loss == []


def test_trees_learn_more_than_the_textbook_knows(shop: Database, session: Session, tmp_path: Path) -> None:
    """The report has their names, and the loss falls below that of the features alone."""
    made = Trees()
    given = training(shop, session, tmp_path, "trees", count=50)
    report = made.train(given)
    assert report.metrics.keys() == {"train_loss", "validation_loss"}
    assert report.parameters == {"model_id": made.model_id, "count": 50, "depth": 6, "learning_rate": 0.05}
    assert report.scalars["num_training_queries"] == 12
    assert report.scalars["num_training_samples"] == 20
    assert report.metrics["train_loss"][-1] < 0.5 * report.metrics["train_loss"][0]
    assert report.scalars["best_validation_loss"] == min(report.metrics["validation_loss"])


def test_a_broken_file_is_named(shop: Database, session: Session, tmp_path: Path) -> None:
    """A model whose arrays do not fit is not loaded, and a changed file is found by its hash."""
    made = Trees()
    made.train(training(shop, session, tmp_path / "training", "trees", count=3))
    assert made.model is not None
    made.save(tmp_path / "saved")
    inner = tmp_path / "saved" / "model" / made.model_id
    (inner / TREES).write_bytes(b"changed")
    with pytest.raises(ModelError, match=f"^{re.escape(str(inner / TREES))} is not the file that was saved: its SHA-256 is "):
        Trees().load(tmp_path / "saved", training(shop, session, tmp_path, "trees"))
    with pytest.raises(ValueError, match="arrays of different shapes"):
        Forest.of_arrays(
            {name: np.zeros((1, 2 + (name == "left"))) for name in ("start", "features", "thresholds", "left", "right", "values")}
        )


def test_trees_without_labels_say_so(shop: Database, session: Session, tmp_path: Path) -> None:
    """Nothing to learn from is an error with what to do."""
    given = training(shop, session, tmp_path, "trees")
    given.queries = ()
    message = (
        "trees has nothing to learn from: none of 0 training queries has a counted inner join by equality; give other training queries, "
        "or run once without --no-collection"
    )
    with pytest.raises(AlgorithmError, match=f"^{re.escape(message)}$"):
        Trees().train(given)
