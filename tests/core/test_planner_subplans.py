"""The subplans of a query are those that PostgreSQL's planner builds, asked through the library."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path

import pytest

from pytest_pilotscope.core.joins import parse
from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.extension.build import build_library
from pytest_pilotscope.postgres.session import Session

TABLES = """
    CREATE TABLE a (x integer, y smallint, z bigint, s text);
    CREATE TABLE b (x integer, y smallint, z bigint, s varchar(9));
    CREATE TABLE c (x integer, y integer, z integer, s text);
"""


@pytest.fixture
def steered(newest_server: EmbeddedServer, newest_scratch: Session) -> Session:
    """A session with the library, three empty tables, and the exhaustive join search for any number of relations."""
    try:
        library = build_library(newest_server.binaries.bindir)
    except MissingExtension as error:
        pytest.skip(str(error))
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        copied = Path(folder) / library.name
        shutil.copyfile(library, copied)
        copied.chmod(0o755)
        newest_scratch.execute(f"LOAD '{copied}'")
    newest_scratch.execute(TABLES)
    newest_scratch.execute("SET geqo = off; SET join_collapse_limit = 20")
    return newest_scratch


def assert_same(session: Session, sql: str) -> None:
    """Compare with the planner."""
    considered = {frozenset(subplan) for subplan in session.subplans(sql)}
    found = set(parse(sql, read_schema(session)).subplans())
    assert found == considered, sql


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.x = c.x",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.y = c.y",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.y = c.y AND a.y = 2 AND c.z = 2",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.x = 2 AND c.y = 2",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.y = c.y AND a.s = 'k' AND c.s = 'k'",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.y = c.y AND a.s = 'k' AND c.s > 'k'",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.y = c.y AND a.z = 3000000000 AND c.x = 3",
        "SELECT 1 FROM a, b, c",
        "SELECT 1 FROM a, b, c, a AS d WHERE a.x = b.x AND c.x = d.x",
        "SELECT 1 FROM a JOIN b USING (x) JOIN c ON c.y < a.y",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND (a.y = 1 OR b.y = 2 OR c.y = 3)",
        "SELECT 1 FROM a, b, c WHERE NOT (a.x <> b.x OR b.s <> c.s)",
    ],
)
def test_subplans_are_those_of_the_planner(steered: Session, sql: str) -> None:
    """Equivalence classes, shared constants, inequalities, products and disjunctions connect relations as in PostgreSQL."""
    assert_same(steered, sql)


def test_random_queries_have_the_planner_s_subplans(steered: Session) -> None:
    """Two hundred queries of up to six relations, with self-joins and products; filters do not contradict each other."""
    draw = random.Random(7)  # noqa: S311  # a choice of cases
    for _ in range(200):
        aliases = [f"r{number}" for number in range(draw.randint(1, 6))]
        sources = ", ".join(f"{draw.choice('abc')} AS {alias}" for alias in aliases)
        conditions = [
            f"{draw.choice(aliases)}.{draw.choice('xyz')} {draw.choice(['=', '=', '=', '<'])} {draw.choice(aliases)}.{draw.choice('xyz')}"
            for _ in range(draw.randint(0, 6))
        ]
        conditions += [
            f"{draw.choice(aliases)}.{draw.choice('xyz')} {draw.choice(['= 2', '< 1', '< 2'])}" for _ in range(draw.randint(0, 4))
        ]
        kept = [condition for condition in conditions if condition.split()[0] != condition.split()[2]]
        assert_same(steered, f"SELECT count(*) FROM {sources}{' WHERE ' if kept else ''}{' AND '.join(kept)}")
