"""Other extensions in the same session, loaded before or after."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pilotscope.errors import StatementFailed
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import verify

from .corpora import text_plan

_SQL = "SELECT * FROM t AS a JOIN t AS b ON a.id = b.k WHERE b.id = 17"


def _load(session: Session, *libraries: str | Path) -> None:
    for library in libraries:
        try:
            session.execute(f"LOAD '{library}'")
        except StatementFailed as error:
            pytest.skip(f"{library} is not installed here: {error}")


@pytest.fixture
def table(scratch: Session) -> Session:
    """Make a table of 10,000 rows without indexes; no library is loaded yet."""
    scratch.execute("CREATE TABLE t AS SELECT g AS id, g % 100 AS k FROM generate_series(1, 10000) AS g; ANALYZE t")
    return scratch


@pytest.mark.parametrize("ours_first", [True, False])
def test_hypopg(table: Session, library: Path, ours_first: bool) -> None:
    """Hypothetical indexes and injected rows come together in one plan; hiding concerns real indexes only."""
    _load(table, *((library, "hypopg") if ours_first else ("hypopg", library)))
    table.execute("CREATE EXTENSION hypopg")
    stock = text_plan(table, _SQL)
    table.execute("SELECT hypopg_create_index('CREATE INDEX ON t (id)')")
    injected = {frozenset("a"): 10_000.0, frozenset("b"): 3.0, frozenset("ab"): 4.0}
    with table.cardinalities(injected):
        plan = table.explain(_SQL)
        assert verify(plan, injected).reasons == ()
        assert any("btree_t_id" in (node.index or "") for node in plan.nodes())
    table.execute("CREATE INDEX real ON t (k)")
    with table.hidden_indexes(["real"]):
        assert any("btree_t_id" in (node.index or "") for node in table.explain(_SQL).nodes())
    table.execute("SELECT hypopg_reset(); DROP INDEX real")
    assert text_plan(table, _SQL) == stock


@pytest.mark.parametrize("ours_first", [True, False])
def test_pg_hint_plan(table: Session, library: Path, ours_first: bool) -> None:
    """Its hints in comments work beside injected rows."""
    _load(table, *((library, "pg_hint_plan") if ours_first else ("pg_hint_plan", library)))
    injected = {frozenset("a"): 9_000.0, frozenset("b"): 3.0, frozenset("ab"): 4.0}
    with table.cardinalities(injected):
        plan = table.explain(f"/*+ MergeJoin(a b) */ {_SQL}")
    assert any(node.node_type == "Merge Join" and node.rows == 4 for node in plan.nodes())


@pytest.mark.parametrize("ours_first", [True, False])
def test_foreign_tables(table: Session, library: Path, ours_first: bool) -> None:
    """Foreign tables and joins pushed to their server are planned and answered under injected rows, hints and pseudoconstants."""
    _load(table, *((library, "postgres_fdw") if ours_first else ("postgres_fdw", library)))
    here = dict(part.split("=", 1) for part in table.dsn.split() if "=" in part)
    table.execute("CREATE EXTENSION postgres_fdw")
    options = f"host '{here['host']}', port '{here['port']}', dbname '{table.database}'"
    table.execute(f"CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw OPTIONS ({options})")
    table.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER s OPTIONS (user 'postgres')")
    table.execute("CREATE FOREIGN TABLE f (id int, k int) SERVER s OPTIONS (table_name 't')")
    sql = "SELECT * FROM f AS a JOIN f AS b ON a.id = b.k JOIN t AS c ON c.id = a.k WHERE b.id < 17 AND now() > '2020-01-01'"
    expected = sorted(table.execute(sql))
    for rows in (1.0, 50.0, 1e6):
        subplans = table.subplans(sql)
        with table.cardinalities(dict.fromkeys(subplans, rows)):
            assert sorted(table.execute(sql)) == expected
    with table.hints(join_order="((a c) b)", methods={"a b c": "hashjoin"}):
        assert sorted(table.execute(sql)) == expected
