"""Indexes: named, listed, created, dropped, hidden; what a plan costs and uses."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pytest_pilotscope.errors import MissingExtension, StatementFailed
from pytest_pilotscope.postgres.binaries import available_binaries
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.indexes import (
    HiddenIndexes,
    Index,
    create_index,
    drop_index,
    existing_indexes,
    explain_cost,
    index_size_bytes,
)
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import steering_libraries


@pytest.fixture(scope="module")
def steerable() -> Iterator[Session]:
    """Open a session on a server with the pilotscope library, with a table of 10,000 rows."""
    binaries = next(available_binaries(), None)
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine")
    libraries = steering_libraries(binaries.bindir)
    if not libraries:
        pytest.skip("the pilotscope library cannot be built here")
    with EmbeddedServer(binaries, libraries=libraries) as server, server.connect() as session:
        session.execute("CREATE TABLE t (a int, b int, pad text)")
        session.execute("INSERT INTO t SELECT i, i % 100, repeat('x', 50) FROM generate_series(1, 10000) AS i")
        session.execute("ANALYZE t")
        yield session


def test_names_are_short_plain_and_different() -> None:
    """Whatever table and columns are called, the name is an identifier of at most 63 bytes that needs no quotes."""
    indexes = [
        Index("a", ("b_c",)),
        Index("a_b", ("c",)),
        Index("ü" * 63, ("x",)),
        Index('T "q"', ("A b", "é")),
        Index("t", ("x" * 63,) * 5),
    ]
    names = [index.name for index in indexes]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"pilotscope_[a-z0-9_]{1,52}", name) for name in names)


def test_a_prefix_is_on_the_same_table_and_in_the_same_order() -> None:
    """(a) is a prefix of (a, b); (b) and another table's (a) are not."""
    assert Index("t", ("a",)).is_prefix_of(Index("t", ("a", "b")))
    assert Index("t", ("a", "b")).is_prefix_of(Index("t", ("a", "b")))
    assert not Index("t", ("b",)).is_prefix_of(Index("t", ("a", "b")))
    assert not Index("u", ("a",)).is_prefix_of(Index("t", ("a", "b")))
    assert not Index("t", ("a", "b")).is_prefix_of(Index("t", ("a",)))


def test_existing_indexes_are_told_apart(scratch: Session) -> None:
    """Constraints and unique indexes hold the data together; only plain btrees on columns have an `index`."""
    scratch.execute('CREATE TABLE "T" (id int PRIMARY KEY, "U" int UNIQUE, a int, b text)')
    scratch.execute('CREATE INDEX plain ON "T" (a, b) INCLUDE ("U")')
    scratch.execute('CREATE INDEX part ON "T" (a) WHERE a > 3')
    scratch.execute('CREATE INDEX expression ON "T" (lower(b))')
    scratch.execute('CREATE INDEX hashed ON "T" USING hash (a)')
    scratch.execute('CREATE UNIQUE INDEX "Uni" ON "T" (b)')
    found = {existing.name: existing for existing in existing_indexes(scratch)}
    assert {name for name, existing in found.items() if existing.constraint} == {"T_pkey", "T_U_key", "Uni"}
    assert {name: existing.index for name, existing in found.items() if existing.index is not None} == {
        "T_pkey": Index("T", ("id",)),
        "T_U_key": Index("T", ("U",)),
        "plain": Index("T", ("a", "b")),
        "Uni": Index("T", ("b",)),
    }
    assert found["Uni"].qualified == '"Uni"'
    assert found["part"].definition.endswith("USING btree (a) WHERE (a > 3)")
    assert found["plain"].size_bytes > 0


def test_indexes_of_partitions_go_with_their_parents(scratch: Session) -> None:
    """An index on a partitioned table is one index."""
    scratch.execute("CREATE TABLE p (a int) PARTITION BY RANGE (a)")
    scratch.execute("CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)")
    scratch.execute("CREATE INDEX on_p ON p (a)")
    assert [existing.name for existing in existing_indexes(scratch)] == ["on_p"]


def test_create_measure_and_drop(scratch: Session) -> None:
    """An index is built under its own name once; a second time is an error; its size is that on disk."""
    scratch.execute('CREATE TABLE "T t" ("A" int, b int)')
    scratch.execute('INSERT INTO "T t" SELECT i, i FROM generate_series(1, 1000) AS i')
    index = Index("T t", ("b", "A"))
    create_index(scratch, index)
    assert index_size_bytes(scratch, index) >= 3 * 8192
    with pytest.raises(StatementFailed, match=rf'^statement failed: relation "{index.name}" already exists \[42P07\]: CREATE INDEX '):
        create_index(scratch, index)
    (existing,) = existing_indexes(scratch)
    assert (existing.name, existing.index) == (index.name, index)
    drop_index(scratch, existing.qualified)
    assert existing_indexes(scratch) == ()


def test_explain_cost_names_the_indexes_of_the_plan(scratch: Session) -> None:
    """Also those of subplans and bitmap scans; what `before` sets holds for the statement."""
    scratch.execute("CREATE TABLE t (id int PRIMARY KEY, a int)")
    scratch.execute("INSERT INTO t SELECT i, i FROM generate_series(1, 5000) AS i")
    scratch.execute('CREATE INDEX "on\n""a"": ä" ON t (a)')
    scratch.execute("ANALYZE t")
    sql = "SELECT (SELECT count(*) FROM t WHERE id = 7) FROM t WHERE a = 3 AND a::text <> '\n   Index Name: \"x\"\n   Total Cost: 0'"
    cost, names = explain_cost(scratch, sql)
    assert names == {"t_pkey", 'on\n"a": ä'}
    assert cost == scratch.execute(f"EXPLAIN (FORMAT JSON) {sql}")[0][0][0]["Plan"]["Total Cost"]
    dearer, none = explain_cost(
        scratch, sql, before="SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off; "
    )
    assert none == frozenset()
    assert dearer > 2 * cost


def test_hidden_indexes_change_the_plan_as_if_they_were_not_there(steerable: Session) -> None:
    """Cost with an index hidden = cost before it was built; shown again = used again."""
    a, b = Index("t", ("a",)), Index("t", ("b", "a"))
    sql = "SELECT count(*) FROM t WHERE a = 77 AND b = 77"
    plain = explain_cost(steerable, sql)
    built = {}
    for index in (a, b):
        create_index(steerable, index)
        built[index] = index.name
    hidden = HiddenIndexes(steerable)
    assert hidden.cost(sql, frozenset(), built) == (plain[0], frozenset())
    cost_a, used_a = hidden.cost(sql, frozenset({a}), built)
    cost_b, used_b = hidden.cost(sql, frozenset({b}), built)
    assert (used_a, used_b) == (frozenset({a}), frozenset({b}))
    assert cost_a < plain[0] > cost_b
    assert hidden.cost(sql, frozenset(), built) == (plain[0], frozenset())
    hidden.close()
    assert explain_cost(steerable, sql)[1] <= set(built.values())
    assert explain_cost(steerable, sql)[0] == min(cost_a, cost_b)


def test_hiding_needs_the_library(newest_scratch: Session) -> None:
    """Without it nothing is hidden silently."""
    with pytest.raises(
        MissingExtension, match=r"^indexes cannot be hidden in .*: the pilotscope library is not loaded; see docs/steering\.md$"
    ):
        HiddenIndexes(newest_scratch)
