"""Index selection counts what the scripts of `--writes` pay for an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from pytest_pilotscope.algorithms.index.advisor import take_start
from pytest_pilotscope.algorithms.index.costs import Answer, Question, UsedSetCosts
from pytest_pilotscope.algorithms.index.maintenance import Maintenance, Written, changed_columns, count_written, maintenance_of
from pytest_pilotscope.algorithms.index.query_columns import IndexedQuery
from pytest_pilotscope.algorithms.index.selection import IndexSelection
from pytest_pilotscope.postgres.indexes import Index, create_index
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.queries.scripts import ScriptRun, Writes, parse_script
from tests.algorithms.shop import Shop, training

CUSTOMER, PLACED, AMOUNT = (Index("orders", (column,)) for column in ("customer", "placed", "amount"))
PRIMARY = Index("orders", ("id",))
MOVE = "\\set id random(1, 20000)\nUPDATE orders SET placed = placed + 1 WHERE id = :id;"
NOTE = "\\set id random(1, 20000)\nUPDATE orders SET note = 'y' WHERE id = :id;"
ORDER = "\\set id random(20001, 2000000000)\nINSERT INTO orders VALUES (:id, 1, 1, 1, 'x') ON CONFLICT DO NOTHING;"


@pytest.fixture
def database(shop: Database) -> Database:
    """The shop on a server whose planner can be steered."""
    with shop.session() as session:
        if not has_extension(session):
            pytest.skip("the pilotscope library cannot be built here")
    return shop


@pytest.fixture
def copy(database: Database) -> Iterator[Session]:
    """A session in a copy that may be changed."""
    with database.copy() as copied, copied.session() as session:
        yield session


@dataclass(frozen=True, kw_only=True)
class Roomy(Shop):
    """The shop with room in the pages of its orders, in which new versions can be heap-only."""

    key: str = "shop-roomy"

    def load(self, session: Session) -> None:
        """Fill half of each page."""
        super().load(session)
        session.execute("ALTER TABLE orders SET (fillfactor = 50)")
        session.execute("VACUUM FULL orders")


@pytest.fixture(scope="module")
def roomy(shop: Database) -> Iterator[Database]:
    """The shop with room in its pages."""
    with shop.session() as session:
        if not has_extension(session):
            pytest.skip("the pilotscope library cannot be built here")
    with open_database(PostgreSQLConfig("shop", server="embedded"), Roomy()) as opened:
        yield opened


def trained(database: Database, folder: Path, script: str | None, per_query: float = 200.0) -> tuple[IndexSelection, dict[str, Any]]:
    """Return the selection for the training queries and a script, and its figures."""
    algorithm, chosen = IndexSelection(), dict[str, Any]()
    if script is not None:
        (folder / "s.sql").write_text(script)
        chosen = {"writes": (str(folder / "s.sql"),), "writes_per_query": per_query}
    with training("index", database, folder, **chosen) as given:
        return algorithm, dict(algorithm.train(given).scalars)


@pytest.mark.slow
def test_an_index_that_costs_more_than_it_saves_is_not_chosen(roomy: Database, tmp_path: Path) -> None:
    """
    Scripts that change a column rule out the index on it and no other; those that change no indexed column rule out none; those that insert
    rule out whichever saves less than its entries cost.
    """
    without, figures = trained(roomy, tmp_path, None)
    assert without.indexes == (CUSTOMER, PLACED)
    assert "estimated_maintenance_cost" not in figures
    moved, figures = trained(roomy, tmp_path, MOVE)
    assert moved.indexes == (CUSTOMER,)
    assert figures["estimated_maintenance_cost"] == 0
    noted, figures = trained(roomy, tmp_path, NOTE)
    assert noted.indexes == without.indexes
    assert figures["estimated_maintenance_cost"] == 0
    seldom, figures = trained(roomy, tmp_path, ORDER, per_query=1.0)
    assert seldom.indexes == without.indexes
    paid = figures["estimated_maintenance_cost"]
    assert 0 < paid < figures["estimated_cost_before"] - figures["estimated_cost_after"]
    often, figures = trained(roomy, tmp_path, ORDER, per_query=1000.0)
    assert often.indexes == ()
    assert figures["estimated_cost_after"] == figures["estimated_cost_before"]


def test_the_figures_repeat(database: Database, tmp_path: Path) -> None:
    """Nothing is timed, so that two trainings have the same figures."""
    first, second = (trained(database, tmp_path, ORDER, per_query=1.0)[1] for _ in range(2))
    assert first == second


def test_pages_without_room_are_counted(database: Database, tmp_path: Path) -> None:
    """A new version in another page needs an entry in every index, whatever the statement changes."""
    noted, _ = trained(database, tmp_path, NOTE.replace("'y'", "repeat('y', 200)"), per_query=1000.0)
    assert noted.indexes == ()


@pytest.mark.parametrize("full", [pytest.param(False, id="roomy"), pytest.param(True, id="full", marks=pytest.mark.slow)])
@pytest.mark.parametrize("script", [MOVE, NOTE, ORDER], ids=["move", "note", "order"])
@pytest.mark.parametrize("indexes", [(CUSTOMER, PLACED), (CUSTOMER,)], ids=str)
def test_postgresql_makes_as_many_entries(
    database: Database, roomy: Database, *, full: bool, script: str, indexes: tuple[Index, ...]
) -> None:
    """The entries that the model expects of indexes are those that PostgreSQL writes: the WAL of a copy with them has a record for each."""
    database = database if full else roomy
    writes = Writes(scripts=(parse_script(script, "s.sql"),), per_query=1.0)
    runs = writes.draw(50, Random(3), {"scale": 1, "client_id": 0})  # noqa: S311  # no secret
    records = []
    with database.copy() as copied, copied.session() as session:
        start = take_start(session, drop=False)
        with database.copy() as scratch, scratch.session() as counting:
            written = count_written(counting, writes, 0)
        expected = sum(maintenance_of(session, writes, start, Sizes(), written).entries(frozenset(indexes)).values())
    for built in ((), indexes):
        with database.copy() as copied, copied.session() as session:
            for index in built:
                create_index(session, index)
            records.append(sum(index_records(session, run) for run in runs))
    assert (records[1] - records[0]) / len(runs) == pytest.approx(expected, abs=0.1)  # a page that splits is a record of its own


def index_records(session: Session, run: ScriptRun) -> int:
    """Return the WAL records of a run. Those of the table are the same with and without indexes."""
    (statement,) = run.statements
    return int(session.scalar(f"EXPLAIN (ANALYZE, WAL, FORMAT JSON) {statement}")[0]["Plan"]["WAL Records"])


def test_rows_are_counted(copy: Session) -> None:
    """By table and changed columns, triggers and WITH included; what a trigger updates has unknown columns; nothing stays."""
    copy.execute("CREATE TABLE audit (n int, v int)")
    copy.execute("INSERT INTO audit VALUES (1, 0)")
    body = "BEGIN INSERT INTO audit VALUES (2, 0); UPDATE audit SET v = v + 1 WHERE n = 1; RETURN NULL; END"
    copy.execute(f"CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS '{body}'")
    copy.execute("CREATE TRIGGER note AFTER UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION note()")
    script = (
        "BEGIN; UPDATE customers SET city = city + 1 WHERE id IN (1, 2); "
        "WITH moved AS (UPDATE orders SET placed = 1 WHERE id = 1 RETURNING *) INSERT INTO audit SELECT id, 3 FROM moved; COMMIT"
    )
    written = count_written(copy, Writes(scripts=(parse_script(script, "s.sql"),), per_query=1.0), 0)
    assert {name: round(rows, 6) for name, rows in written.inserted.items()} == {"audit": 3}
    everything = {key: written.updated.get(key, 0) + written.heap_only.get(key, 0) for key in (*written.updated, *written.heap_only)}
    assert {key: round(rows, 6) for key, rows in everything.items()} == {
        ("customers", frozenset({"city"})): 2,
        ("orders", frozenset({"placed"})): 1,
        ("audit", None): 2,
    }
    assert copy.execute("SELECT count(*), sum(v) FROM audit") == [(1, 0)]


@pytest.mark.parametrize(
    ("sql", "changed"),
    [
        ("UPDATE t SET a = 1, B = c WHERE d = 2", {"t": {"a", "b"}}),
        ('UPDATE s."T" AS x SET (a, "B") = (1, 2)', {"T": {"a", "B"}}),
        ("INSERT INTO t VALUES (1)", {}),
        ("INSERT INTO t (id, a) VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET a = excluded.a", {"t": {"a"}}),
        ("INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", {}),
        ("MERGE INTO t USING s ON t.id = s.id WHEN MATCHED THEN UPDATE SET a = s.a WHEN NOT MATCHED THEN INSERT VALUES (1)", {"t": {"a"}}),
        ("WITH x AS (UPDATE t SET a = 1 RETURNING *) UPDATE u SET b = 2 FROM x", {"t": {"a"}, "u": {"b"}}),
        ("UPDATE t SET SET", {}),
    ],
)
def test_columns_of_a_statement(sql: str, changed: dict[str, set[str]]) -> None:
    """Names are folded as PostgreSQL does; a text that cannot be read changes columns that nobody knows."""
    assert changed_columns(sql) == changed


class Sizes:
    """A back end for which every query costs 10, and no index helps."""

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Return the same for all."""
        return [Answer(10.0, frozenset()) for _ in questions]

    def size_bytes(self, index: Index) -> int:
        """Return 300 pages."""
        return 300 * 8192


def maintenance(written: Written, kept: dict[Index, int] | None = None) -> Maintenance:
    """Return the cost in a table of 2**17 rows, with PostgreSQL's constants and two runs for each query."""
    return Maintenance(
        written=written,
        per_query=2.0,
        kept=kept or {},
        table_rows={"orders": float(2**17)},
        operator_cost=0.0025,
        entry_cost=0.005,
        page_cost=4.0,
        what_if=Sizes(),
    )


def test_an_entry_costs_what_the_planner_charges_for_finding_its_place() -> None:
    """17 comparisons and three pages (root, inner, leaf) at 50 operators each, a page at random, an entry; for each query twice."""
    entry = (17 + 3 * 50) * 0.0025 + 4.0 + 0.005
    found = maintenance(Written(inserted={"orders": 1.5}, updated={}, heap_only={}))
    assert found.cost(frozenset()) == 0
    assert found.cost(frozenset({PLACED})) == pytest.approx(2 * 1.5 * entry)
    assert found.cost(frozenset({PLACED, CUSTOMER, Index("customers", ("city",))})) == pytest.approx(2 * 1.5 * 2 * entry)


def test_an_index_on_a_changed_column_brings_entries_in_all_others() -> None:
    """Versions were heap-only before; where they were not, only the entries of the chosen indexes are new."""
    placed = Written(inserted={}, updated={}, heap_only={("orders", frozenset({"placed"})): 1.0})
    assert maintenance(placed, {PRIMARY: 8192}).entries(frozenset({CUSTOMER})) == {}
    assert maintenance(placed, {PRIMARY: 8192}).entries(frozenset({CUSTOMER, PLACED})) == {CUSTOMER: 1, PLACED: 1, PRIMARY: 1}
    moved = Written(inserted={}, updated={("orders", frozenset({"placed"})): 1.0}, heap_only={})
    assert maintenance(moved, {PRIMARY: 8192}).entries(frozenset({CUSTOMER})) == {CUSTOMER: 1}
    unknown = Written(inserted={}, updated={}, heap_only={("orders", None): 1.0})
    assert maintenance(unknown, {PRIMARY: 8192}).entries(frozenset({CUSTOMER})) == {CUSTOMER: 1, PRIMARY: 1}
    assert maintenance(unknown).entries(frozenset({Index("customers", ("city",))})) == {}


def test_maintenance_is_part_of_totals_and_bounds() -> None:
    """For each query; a bound that left it out would let Extend ask in vain."""
    found = maintenance(Written(inserted={"orders": 1.0}, updated={}, heap_only={}))
    columns = {"orders": frozenset({"amount", "placed"})}
    queries = [IndexedQuery(id=sql, sql=sql, referenced=columns, indexable=columns) for sql in ("one", "other")]
    configurations = [frozenset[Index](), frozenset({AMOUNT}), frozenset({AMOUNT, PLACED})]
    costs = UsedSetCosts(Sizes(), queries, found.cost)
    paid = [2 * found.cost(configuration) for configuration in configurations]
    assert [costs.total(configuration) for configuration in configurations] == pytest.approx([20 + more for more in paid])
    assert costs.lower_bounds(configurations, frozenset()) == pytest.approx([20 + more for more in paid])
