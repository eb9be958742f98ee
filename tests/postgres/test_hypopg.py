"""Hypothetical indexes: priced without being built, close to what the real ones cost."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.postgres import hypopg
from pytest_pilotscope.postgres.hypopg import HypotheticalIndexes
from pytest_pilotscope.postgres.indexes import Index, create_index, explain_cost, index_size_bytes
from pytest_pilotscope.postgres.session import Session
from tests.conftest import ServerOf

A, B, BA = Index("T t", ("A",)), Index("T t", ("b",)), Index("T t", ("b", "A"))
SQL = 'SELECT count(*) FROM "T t" WHERE b = 5 AND "A" < 300'


@pytest.fixture
def session(server_of: ServerOf) -> Iterator[Session]:
    """Open a database with HypoPG and a table of 10,000 rows on a server that has HypoPG; skips where none has."""
    server = server_of(15)
    with server.connect() as administrator:
        if hypopg.obstacle(administrator):
            pytest.skip("HypoPG is not installed for PostgreSQL 15 (Debian: postgresql-15-hypopg)")
        administrator.execute("CREATE DATABASE hypothetical")
        with server.connect("hypothetical") as session:
            session.execute('CREATE TABLE "T t" ("A" int, b int, pad text)')
            session.execute("""INSERT INTO "T t" SELECT i, i % 100, repeat('x', 50) FROM generate_series(1, 10000) AS i""")
            session.execute('VACUUM ANALYZE "T t"')
            yield session
        administrator.execute("DROP DATABASE hypothetical WITH (FORCE)")


def test_costs_are_those_of_real_indexes(session: Session) -> None:
    """Within 10 % of the cost with the index built, and the same indexes are used; sizes are up to 3 times the real ones."""
    hypopg.install(session)
    hypopg.install(session)
    indexes = HypotheticalIndexes(session)
    plain, used = indexes.cost(SQL, frozenset())
    assert used == frozenset()
    estimates = {index: indexes.cost(SQL, frozenset({index})) for index in (A, B, BA)}
    sizes = {index: indexes.size_bytes(index) for index in (A, B, BA)}
    both, used = indexes.cost(SQL, frozenset({A, BA}))
    assert (both, used) == (estimates[BA][0], frozenset({BA}))
    assert indexes.cost(SQL, frozenset()) == (plain, frozenset())
    indexes.close()
    for index, (cost, used) in estimates.items():
        assert used == {index}
        with session.rolled_back():
            create_index(session, index)
            real, names = explain_cost(session, SQL)
            assert names == {index.name}
            assert cost == pytest.approx(real, rel=0.1)
            real_bytes = index_size_bytes(session, index)
            assert real_bytes * 0.85 < sizes[index] < real_bytes * 3  # HypoPG knows nothing of the deduplication of equal values


def test_what_does_not_matter_may_stay(session: Session) -> None:
    """An index that makes no difference to a statement is left alone; one that does is dropped for it."""
    hypopg.install(session)
    indexes = HypotheticalIndexes(session)
    indexes.cost(SQL, frozenset({A, B, BA}))
    cost, used = indexes.cost(SQL, frozenset({B}), matters=lambda index: index != A)
    assert session.scalar("SELECT count(*) FROM hypopg()") == 2
    assert used <= {A, B}
    assert cost >= indexes.cost(SQL, frozenset({A, B}))[0]
    indexes.close()
    assert session.scalar("SELECT count(*) FROM hypopg()") == 0


def test_it_says_when_it_is_not_installed(session: Session) -> None:
    """The extension has to be in the database, not only on the disk."""
    expected = "HypoPG is not installed in database 'hypothetical': run CREATE EXTENSION hypopg there"
    with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
        HypotheticalIndexes(session)


def test_it_is_seen_where_it_is_not(newest_scratch: Session) -> None:
    """The servers from pip packages do not have it."""
    assert hypopg.obstacle(newest_scratch) == "HypoPG is not on this server"


def test_asking_creates_nothing(session: Session) -> None:
    """Asking whether the role can create it leaves no trace."""
    assert hypopg.obstacle(session) is None
    assert session.scalar("SELECT count(*) FROM pg_extension WHERE extname = 'hypopg'") == 0
