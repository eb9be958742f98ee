"""Databases that several algorithms are tried on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_pilotscope.errors import MissingServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from tests.algorithms.forum import Forum
from tests.algorithms.shop import Shop


def _shop(**choice: int) -> Iterator[Database]:
    try:
        opening = open_database(PostgreSQLConfig("shop", server="embedded", **choice), Shop())  # type: ignore[arg-type]
        database = opening.__enter__()
    except MissingServer as error:
        pytest.skip(str(error))
    try:
        yield database
    finally:
        opening.__exit__(None, None, None)


@pytest.fixture(scope="session")
def shop() -> Iterator[Database]:
    """Customers and orders on the default PostgreSQL."""
    yield from _shop()


@pytest.fixture(scope="session")
def shop_of_15() -> Iterator[Database]:
    """Customers and orders on Debian's PostgreSQL 15, which can have HypoPG."""
    yield from _shop(pg_version=15)


@pytest.fixture(scope="session")
def forum() -> Iterator[Database]:
    """Users, posts, comments and votes on the default PostgreSQL."""
    try:
        opening = open_database(PostgreSQLConfig("forum", server="embedded"), Forum())
        database = opening.__enter__()
    except MissingServer as error:
        pytest.skip(str(error))
    try:
        yield database
    finally:
        opening.__exit__(None, None, None)


@pytest.fixture
def forum_session(forum: Database) -> Iterator[Session]:
    """A session in the forum."""
    with forum.session() as session:
        yield session
