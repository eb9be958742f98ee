"""Databases that several algorithms are tried on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from pytest_pilotscope.datasets.base import Dataset
from pytest_pilotscope.errors import MissingServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from tests.algorithms.forum import Forum
from tests.algorithms.shop import Shop


def _opened(dataset: Dataset, **choice: int) -> Iterator[Database]:
    with ExitStack() as stack:
        try:
            config = PostgreSQLConfig(dataset.name, server="embedded", **choice)  # type: ignore[arg-type]
            database = stack.enter_context(open_database(config, dataset))
        except MissingServer as error:
            pytest.skip(str(error))
        yield database


@pytest.fixture(scope="session")
def shop() -> Iterator[Database]:
    """Customers and orders on the default PostgreSQL."""
    yield from _opened(Shop())


@pytest.fixture(scope="session")
def shop_of_15() -> Iterator[Database]:
    """Customers and orders on Debian's PostgreSQL 15, which can have HypoPG."""
    yield from _opened(Shop(), pg_version=15)


@pytest.fixture(scope="session")
def forum() -> Iterator[Database]:
    """Users, posts, comments and votes on the default PostgreSQL."""
    yield from _opened(Forum())


@pytest.fixture
def forum_session(forum: Database) -> Iterator[Session]:
    """A session in the forum."""
    with forum.session() as session:
        yield session
