"""Indexes can be hidden from the planner, exactly as if they were not there."""

from __future__ import annotations

import re

import pytest

from pytest_pilotscope.errors import SteeringError
from pytest_pilotscope.postgres.session import Session

from .corpora import text_plan


@pytest.fixture
def table(steered: Session) -> Session:
    """One table with two indexes, one of them in another schema's namesake."""
    steered.execute("CREATE SCHEMA other; CREATE TABLE t (id int, k int); CREATE TABLE other.t (id int, k int)")
    for schema in ("public", "other"):
        steered.execute(f"INSERT INTO {schema}.t SELECT g, g % 1000 FROM generate_series(1, 10000) AS g")
        steered.execute(f"CREATE INDEX t_k ON {schema}.t (k)")
    steered.execute('CREATE UNIQUE INDEX "T, id" ON t (id)')
    steered.execute("VACUUM ANALYZE")
    return steered


_QUERIES = (
    "SELECT * FROM t WHERE k = 5",
    "SELECT * FROM t WHERE id = 5",
    "SELECT x.k FROM t AS x LEFT JOIN t AS y ON x.id = y.id",
    "SELECT * FROM t AS x JOIN t AS y ON x.k = y.id WHERE x.id < 50",
)


def test_hiding_is_like_dropping(table: Session) -> None:
    """With an index hidden every plan is what it is without that index, and afterwards what it was."""
    for index in ("t_k", "T, id"):
        before = [text_plan(table, sql) for sql in _QUERIES]
        with table.hidden_indexes([index]):
            hidden = [text_plan(table, sql) for sql in _QUERIES]
        with table.rolled_back():
            quoted = '"' + index + '"'
            table.execute(f"DROP INDEX public.{quoted}")
            dropped = [text_plan(table, sql) for sql in _QUERIES]
        assert hidden == dropped
        assert hidden != before
        assert [text_plan(table, sql) for sql in _QUERIES] == before


def test_a_schema_chooses(table: Session) -> None:
    """A name with its schema hides that index only, a bare name all of that name."""
    there, here = "SELECT * FROM other.t WHERE k = 5", "SELECT * FROM public.t WHERE k = 5"

    def uses(sql: str) -> bool:
        return any(node.index == "t_k" for node in table.explain(sql).nodes())

    with table.hidden_indexes(["other.t_k"]):
        assert (uses(here), uses(there)) == (True, False)
    with table.hidden_indexes(["t_k"]):
        assert (uses(here), uses(there)) == (False, False)
    with table.hidden_indexes([]):
        assert (uses(here), uses(there)) == (True, True)


def test_prepared_statements_follow(table: Session) -> None:
    """A kept plan that uses an index is made anew when the index is hidden."""
    table.execute("SET plan_cache_mode = force_generic_plan; PREPARE q AS SELECT * FROM t WHERE k = 5; EXECUTE q")
    before = table.execute("EXPLAIN EXECUTE q")
    with table.hidden_indexes(["t_k"]):
        assert table.execute("EXPLAIN EXECUTE q") != before
    assert table.execute("EXPLAIN EXECUTE q") == before


def test_a_hidden_index_is_kept_up(table: Session) -> None:
    """Rows written while an index is hidden are found with it later, and its uniqueness holds."""
    with table.hidden_indexes(["t_k"]):
        table.execute("INSERT INTO t VALUES (20000, 77777)")
    table.execute("SET enable_seqscan = off")
    assert table.execute("SELECT id FROM t WHERE k = 77777") == [(20000,)]


def test_unknown_names_are_refused(table: Session) -> None:
    """A name that no index has is a mistake, not an index hidden already."""
    message = "there is no index to hide named 'nope', 'public.t' in this database"
    with pytest.raises(SteeringError, match=f"^{re.escape(message)}$"), table.hidden_indexes(["t_k", "nope", "public.t"]):
        pass
