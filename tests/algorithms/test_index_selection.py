"""The algorithm `index` from training to the prepared database, and that nothing of it stays behind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.algorithms.index.selection import IndexOptions, IndexSelection
from pytest_pilotscope.algorithms.index.whatif import BackEnd
from pytest_pilotscope.algorithms.model_files import write_json_model
from pytest_pilotscope.errors import AlgorithmError, ModelError
from pytest_pilotscope.postgres import hypopg
from pytest_pilotscope.postgres.fingerprint import fingerprint
from pytest_pilotscope.postgres.indexes import Index, existing_indexes
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.provision.database import Database
from pytest_pilotscope.queries.queries import Query
from tests.algorithms.shop import Shop, metadata_for, training
from tests.algorithms.statements import failing_at, steps

CUSTOMER, PLACED = Index("orders", ("customer",)), Index("orders", ("placed",))
_SETTINGS = "SELECT name, setting, source FROM pg_settings WHERE name NOT LIKE 'pilotscope.%' ORDER BY 1"  # those show the last statement


@pytest.fixture
def database(shop: Database) -> Database:
    """The shop on a server whose planner can be steered."""
    with shop.session() as session:
        if not has_extension(session):
            pytest.skip("the pilotscope library cannot be built here")
    return shop


def state(database: Database) -> tuple[object, ...]:
    """Everything of the server that index selection must not change."""
    with database.session() as session:
        databases = session.execute("SELECT datname FROM pg_database ORDER BY 1")
        return (fingerprint(session), databases, session.execute(_SETTINGS))


def trained(database: Database, folder: Path, *, update_every: int = 200, **options: Any) -> tuple[IndexSelection, dict[str, Any]]:
    """An algorithm that has been trained, and its report as a dictionary."""
    algorithm = IndexSelection()
    with training("index", database, folder, options=options, update_every=update_every) as given:
        report = algorithm.train(given)
    return algorithm, {"metrics": report.metrics, "parameters": report.parameters, "scalars": report.scalars, "artifacts": report.artifacts}


def test_training_selects_and_records(database: Database, tmp_path: Path) -> None:
    """Two updates, one series value each; the fixed names; an artifact per update with what was selected."""
    algorithm, report = trained(database, tmp_path, update_every=5)
    assert algorithm.indexes == (CUSTOMER, PLACED)
    assert {name: len(values) for name, values in report["metrics"].items()} == {
        "index_optimization_time_seconds": 3,
        "num_indexes_selected": 3,
        "num_queries": 3,
    }
    assert report["metrics"]["num_queries"] == (5, 10, 12)
    assert report["metrics"]["num_indexes_selected"][-1] == 2
    assert set(report["scalars"]) == {
        "whatif_calls",
        "whatif_cache_hits",
        "estimated_cost_before",
        "estimated_cost_after",
        "index_size_bytes",
        "num_training_queries",
        "num_indexes_dropped",
        "validation_estimated_cost",
    }
    assert 0 < report["scalars"]["estimated_cost_after"] < report["scalars"]["estimated_cost_before"]
    assert report["parameters"]["index_whatif"] == "hidden"
    assert re.fullmatch(r"index_\d{8}_\d{6}", algorithm.model_id)
    assert report["parameters"]["model_id"] == algorithm.model_id
    model = [algorithm.model_id, f"{algorithm.model_id}.json"]
    assert [Path(path).name for path in report["artifacts"]] == [*model, *(f"index_config_iteration_{n}.json" for n in range(3))]
    last = json.loads(Path(report["artifacts"][-1]).read_text())
    assert [entry["sql"] for entry in last["indexes"]] == ['CREATE INDEX ON "orders" ("customer")', 'CREATE INDEX ON "orders" ("placed")']
    assert sum(entry["size_bytes"] for entry in last["indexes"]) == report["scalars"]["index_size_bytes"] == last["size_bytes"]


def test_the_number_of_questions_is_exact(database: Database, tmp_path: Path) -> None:
    """Two trainings ask the same questions, so the figure can be gated exactly."""
    first, second = (trained(database, tmp_path)[1]["scalars"] for _ in range(2))
    assert first == second


def test_only_training_queries_are_read(database: Database, tmp_path: Path) -> None:
    """With training queries that look at one table only, nothing else is indexed."""
    algorithm = IndexSelection()
    with training("index", database, tmp_path) as given:
        given.queries = [query for query in Shop().workload().train if query.id.endswith("-2")]
        algorithm.train(given)
    assert algorithm.indexes == (CUSTOMER,)


def test_the_prepared_database_has_the_indexes_and_the_same_statistics(database: Database, tmp_path: Path) -> None:
    """Built, analyzed, and different from the original in nothing but the indexes."""
    algorithm, _ = trained(database, tmp_path)
    with algorithm.prepare(database) as prepared, prepared.session() as session, database.session() as original:
        assert session.database != original.database
        assert {e.index for e in existing_indexes(session)} - {e.index for e in existing_indexes(original)} == {CUSTOMER, PLACED}
        columns = "SELECT * FROM pg_stats WHERE schemaname = 'public' ORDER BY tablename, attname"
        assert session.execute(columns) == original.execute(columns)
        assert prepared.fingerprint.data == database.fingerprint.data
        assert prepared.fingerprint.indexes != database.fingerprint.indexes
        for query in Shop().workload().test:
            assert session.execute(query.sql) == original.execute(query.sql)
        assert session.explain(Shop().workload().test[2].sql).total_cost < original.explain(Shop().workload().test[2].sql).total_cost / 3


def test_starting_with_none_drops_what_no_constraint_needs(database: Database, tmp_path: Path) -> None:
    """The unused secondary indexes are not in the prepared database, and the record says so."""
    algorithm, report = trained(database, tmp_path, start="none")
    assert report["scalars"]["num_indexes_dropped"] == 2
    with algorithm.prepare(database) as prepared, prepared.session() as session:
        names = {existing.name for existing in existing_indexes(session)}
        assert names == {"customers_pkey", "orders_pkey", *(index.name for index in algorithm.indexes or ())}
        assert {CUSTOMER, PLACED} <= set(algorithm.indexes or ())


def test_the_budget_is_in_megabytes(database: Database, tmp_path: Path) -> None:
    """With 0.2 MB only the cheaper of the two indexes fits."""
    algorithm, report = trained(database, tmp_path, budget_mb=0.25)
    assert algorithm.indexes is not None
    assert len(algorithm.indexes) == 1
    assert report["scalars"]["index_size_bytes"] <= 0.25 * 2**20


@pytest.mark.slow
def test_the_server_is_the_same_before_and_after_whatever_fails(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Indexes, settings, statistics and databases have the same hash after training and preparing, and after a failure at each kind of step.

    Not at those that make, mark and drop the copy, which are tested with the copies: what is left then goes with the server.
    """

    def life() -> None:
        algorithm, _ = trained(database, tmp_path, start="none")
        with algorithm.prepare(database) as prepared, prepared.session() as session:
            session.execute("SELECT count(*) FROM orders")

    before = state(database)
    found = [step for step in steps(monkeypatch, life) if not step.startswith(("Composed SQL", "SELECT pg_advisory"))]
    assert state(database) == before
    assert len(found) >= 12
    for step in found:
        with pytest.raises(KeyboardInterrupt, match=f"^{step}$"), failing_at(monkeypatch, step):
            life()
        assert state(database) == before, step


def test_save_and_load(database: Database, tmp_path: Path) -> None:
    """A loaded selection prepares what the saved one did, without training, and can be served without a database."""
    algorithm, _ = trained(database, tmp_path / "training", start="none")
    algorithm.save(tmp_path / "saved")
    again = IndexSelection()
    with training("index", database, tmp_path) as given:
        again.load(tmp_path / "saved", given)
    assert (again.indexes, again.model_id) == (algorithm.indexes, algorithm.model_id)
    with again.prepare(database) as prepared, prepared.session() as session:
        assert PLACED in {existing.index for existing in existing_indexes(session)}
    decision = IndexSelection.decider(tmp_path / "saved")("SELECT 1")
    assert decision == {"indexes": [index.statement for index in algorithm.indexes or ()]}
    assert PLACED.statement in decision["indexes"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"start": "none"}, r"model index_1 is not a saved index selection ('indexes'); train again"),
        (
            {"start": "x", "indexes": []},
            "model index_1 is not a saved index selection: it starts with 'x', expected 'existing' or 'none', or has an index without "
            "columns; train again",
        ),
        (
            {"start": "none", "indexes": [{"table": "orders", "columns": ["colour"]}]},
            "model index_1 has an index on orders(colour), but this database has no such columns; train again",
        ),
    ],
)
def test_broken_and_foreign_selections(database: Database, tmp_path: Path, content: dict[str, Any], expected: str) -> None:
    """Each is a ModelError that names the model."""
    with training("index", database, tmp_path) as given:
        write_json_model(tmp_path, metadata_for(given, "index_1"), "indexes.json", content, format_number=1)
        with pytest.raises(ModelError, match=f"^{re.escape(expected)}$"):
            IndexSelection().load(tmp_path, given)


def test_untrained(shop: Database, tmp_path: Path) -> None:
    """There is nothing to build, to save, or to learn from."""
    with (
        pytest.raises(AlgorithmError, match=r"^index selection has nothing to build: train it or load a model first$"),
        IndexSelection().prepare(shop),
    ):
        pass
    with pytest.raises(AlgorithmError, match=r"^index selection has nothing to save: train it or load a model first$"):
        IndexSelection().save(tmp_path)
    with training("index", shop, tmp_path) as given:
        given.queries = ()
        expected = "index selection has no training queries; raise --training-size or give a workload that has some"
        with pytest.raises(AlgorithmError, match=f"^{re.escape(expected)}$"):
            IndexSelection().train(given)


def test_options_are_typed(shop: Database, tmp_path: Path) -> None:
    """The options of the command line make the options of the algorithm, whose budget is in bytes."""
    with training("index", shop, tmp_path, options={"budget_mb": 3.5}) as given:
        assert IndexOptions(**given.options, update_every=7).limits.budget_bytes == 3_670_016


@pytest.fixture
def odd(shop_of_15: Database) -> Iterator[Database]:
    """The shop as a user's own database, with a table in it that has columns that cannot be indexed, and a foreign table."""
    with shop_of_15.copy() as copy:
        with copy.session() as session:
            session.execute("CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw")
            session.execute("CREATE FOREIGN TABLE far (id int) SERVER files OPTIONS (filename '/dev/null')")
            session.execute("CREATE TABLE odd (id int, doc json, place point, docs json[], note text, word text)")
            session.execute("INSERT INTO odd SELECT i, '{}', '(1,2)', '{}', 'note ' || i, 'word ' || i FROM generate_series(1, 20000) AS i")
            long = "SELECT string_agg(md5(i::text), '') FROM generate_series(1, 200) AS i"  # does not become shorter by compression
            session.execute(f"UPDATE odd SET note = ({long}) WHERE id = 777; ANALYZE odd")
        with replace(copy, copy_source=None).copyable() as database:
            yield database


@pytest.mark.parametrize("means", ["hypopg", "hidden"])
def test_what_cannot_be_indexed_is_no_candidate(odd: Database, tmp_path: Path, means: BackEnd, caplog: pytest.LogCaptureFixture) -> None:
    """Foreign tables, types without an order, and values too long for a btree leave the rest to be selected and built."""
    with odd.session() as session:
        if means == "hypopg" and hypopg.obstacle(session):
            pytest.skip("HypoPG is not installed for PostgreSQL 15 (Debian: postgresql-15-hypopg)")
        if means == "hidden" and not has_extension(session):
            pytest.skip("the pilotscope library cannot be built here")
    conditions = (
        "odd WHERE note = 'note 7'",
        "odd WHERE word = 'word 7' AND note = 'note 7'",
        "odd WHERE id = 7",
        "odd WHERE doc IS NULL",
        "odd WHERE place IS NULL",
        "odd WHERE docs IS NULL",
        "far WHERE id = 7",
    )
    algorithm = IndexSelection()
    with training("index", odd, tmp_path, options={"whatif": means}) as given:
        given.queries = [Query(id=condition, sql=f"SELECT count(*) FROM {condition}") for condition in conditions]
        given.validation = ()
        algorithm.train(given)
    assert algorithm.indexes == (Index("odd", ("id",)), Index("odd", ("word",)))
    assert [re.sub(r"(?<=size )\d+|(?<=\")\w+(?=\")|\d+,\d+", "...", message) for message in caplog.messages] == [
        'no index on odd(note) is considered: index row size ... exceeds btree version 4 maximum 2704 for index "..." '
        '(Index row references tuple (...) in relation "...".)'
    ]
    with algorithm.prepare(odd) as prepared, prepared.session() as session:
        assert set(algorithm.indexes) <= {existing.index for existing in existing_indexes(session)}


def test_partitioned_tables_are_left_out(database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Built indexes on one cannot be told apart in plans: a line names it, and indexes are selected for the other tables."""
    with database.copy() as copy:
        with copy.session() as session:
            session.execute("CREATE TABLE parted (id int, customer int) PARTITION BY RANGE (id)")
            session.execute("CREATE TABLE parted_0 PARTITION OF parted FOR VALUES FROM (0) TO (20000)")
            session.execute("INSERT INTO parted SELECT i, i * 7919 % 20000 FROM generate_series(0, 19999) AS i; ANALYZE parted")
        with (
            replace(copy, copy_source=None).copyable() as changed,
            training("index", changed, tmp_path, options={"whatif": "hidden"}) as given,
        ):
            given.queries = [
                *given.queries,
                Query(id="p", sql="SELECT count(*) FROM parted p JOIN orders o ON o.customer = p.customer WHERE p.customer = 7"),
            ]
            algorithm = IndexSelection()
            algorithm.train(given)
    assert {index.table for index in algorithm.indexes or ()} == {"orders"}
    assert caplog.messages == [
        "no index is selected on parted: of a partitioned table, built indexes cannot be told apart in plans; HypoPG (Debian: "
        "postgresql-NN-hypopg) can tell: use --index-whatif hypopg with --pg-bindir /usr/lib/postgresql/NN/bin, or on a server of yours "
        "that has it"
    ]


def test_partitioned_tables(shop_of_15: Database, tmp_path: Path) -> None:
    """HypoPG knows that an index on one is an index on each partition; hidden indexes would give wrong costs, so there are none."""
    with shop_of_15.session() as session:
        if hypopg.obstacle(session) or not has_extension(session):
            pytest.skip("this needs HypoPG for PostgreSQL 15 (Debian: postgresql-15-hypopg) and the pilotscope library")
    with shop_of_15.copy() as copy:
        with copy.session() as session:
            session.execute("CREATE TABLE parted (id int, customer int) PARTITION BY RANGE (id)")
            for n in range(4):
                session.execute(f"CREATE TABLE parted_{n} PARTITION OF parted FOR VALUES FROM ({n * 5000}) TO ({n * 5000 + 5000})")
            session.execute("INSERT INTO parted SELECT i, i * 7919 % 20000 FROM generate_series(0, 19999) AS i; ANALYZE parted")
        with (
            replace(copy, copy_source=None).copyable() as database,
            training("index", database, tmp_path, options={"whatif": "hypopg"}) as given,
        ):
            given.queries = [Query(id="q", sql="SELECT count(*) FROM parted WHERE customer = 7")]
            given.validation = ()
            algorithm = IndexSelection()
            report = algorithm.train(given)
            assert algorithm.indexes == (Index("parted", ("customer",)),)
            assert 4 * 8192 < report.scalars["index_size_bytes"] < 2 << 20
            with algorithm.prepare(database) as prepared, prepared.session() as session:
                real = session.explain(given.queries[0].sql).total_cost
            assert report.scalars["estimated_cost_after"] == pytest.approx(real, rel=0.15)
            given.options = {**given.options, "whatif": "hidden"}
            algorithm.train(given)
            assert len(algorithm.indexes) == 0
