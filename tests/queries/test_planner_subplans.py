"""A plain query that is read from its text has the sets and the conditions that the planner has for it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from pytest_pilotscope.datasets.stats.dataset import StatsDataset
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import JoinQuery, Relation
from pytest_pilotscope.queries.plainparser import parse_plain
from pytest_pilotscope.queries.predicates import ColumnComparison, render
from tests.conftest import LibraryOf
from tests.labels.dumps import load_dump

TABLES = """
    CREATE TABLE a (x integer, y smallint, z bigint, s text);
    CREATE TABLE b (x integer, y smallint, z bigint, s varchar(9));
    CREATE TABLE c (x integer, y integer, z integer, s text, d date, t timestamp, n numeric(8,2), f double precision);
"""


@pytest.fixture
def steered(newest_server: EmbeddedServer, newest_scratch: Session, library_of: LibraryOf) -> Session:
    """Return a session with the library in an empty database, and the exhaustive join search for any number of relations."""
    newest_scratch.execute(f"LOAD '{library_of(newest_server)}'")
    newest_scratch.execute("SET geqo = off; SET join_collapse_limit = 20")
    return newest_scratch


def meaning(query: JoinQuery) -> object:
    """Return filters, classes of equal columns and sets, whatever the order of their parts."""
    relations = {relation.alias: (relation.table, *filters(relation)) for relation in query.relations.values()}
    return relations, {frozenset(members) for members in query.classes}, set(query.subplans())


def filters(relation: Relation) -> tuple[set[str], set[frozenset[str]]]:
    """Return the conditions of a relation, and which of its columns are equal: not which pairs of them were compared."""
    conditions = [one.condition for one in relation.predicates]
    equal: set[frozenset[str]] = set()
    for one in conditions:
        if isinstance(one, ColumnComparison) and one.operator == "=":
            touched = {members for members in equal if members & {one.left, one.right}}
            equal = equal - touched | {frozenset({one.left, one.right}).union(*touched)}
    return {render(one) for one in conditions if not (isinstance(one, ColumnComparison) and one.operator == "=")}, equal


def differing(session: Session, texts: Iterable[str]) -> tuple[int, list[str]]:
    """Return the number of plain texts, and those for which the planner considers other sets."""
    schema = read_schema(session)
    plain = [query for query in (parse_plain(sql, schema) for sql in texts) if query is not None]
    different = []
    for query in plain:
        level = read_meaning(session, query.sql).outermost
        if level is None or meaning(level.query) != meaning(query):
            different.append(query.sql)
    return len(plain), different


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.x = c.x",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.y = c.z AND a.y = 2 AND c.z = 2",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.x = 2 AND c.y = 2",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.y = c.y AND a.s = 'k' AND c.s = 'k'",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.y = c.y AND a.s = 'k' AND c.s > 'k'",
        "SELECT 1 FROM a, b, c WHERE a.x = b.x AND b.y = c.y AND a.z = 3000000000 AND c.x = 3",
        "SELECT 1 FROM a, b, c",
        "SELECT 1 FROM a, b, c, a AS d WHERE a.x = b.x AND c.x = d.x",
        "SELECT 1 FROM a JOIN b ON (a.x = b.x AND b.z > 1) INNER JOIN c ON c.y = a.y WHERE a.z < 3",
        "SELECT 1 FROM a, c WHERE c.x = a.x AND c.z = a.x",
        "SELECT 1 FROM a, b WHERE a.x = b.x AND a.x IN (7) AND b.y NOT IN (3) AND b.z IN (3, 1, 3) AND a.y NOT IN (1, 2)",
        "SELECT 1 FROM c WHERE x BETWEEN 1 AND 2 AND y NOT BETWEEN -1 AND 2 AND z IS NOT NULL AND s IS NULL AND '5' <= x",
        "SELECT 1 FROM c WHERE s LIKE 'a%' AND s NOT LIKE '%b' AND s ILIKE 'c' AND x < y AND x = z",
        "SELECT 1 FROM c WHERE d >= '2010-01-01'::date AND d < '2010-01-02' AND n > -1.5 AND n <= 7 AND f < 2.5 AND f > '1'",
        "SELECT 1 FROM c WHERE t <= '2010-01-01 00:00:01'::timestamp AND t > '2010-01-01 12:00:00'::timestamp without time zone",
        f"SELECT 1 FROM c WHERE {'(' * 300}x = 1{')' * 300}",
    ],
)
def test_a_plain_query_means_what_it_means_to_the_planner(steered: Session, sql: str) -> None:
    """Equivalence classes, constants that reach a relation, products, and the form of every kind of condition."""
    steered.execute(TABLES)
    assert differing(steered, [sql]) == (1, [])


def test_random_queries_mean_what_they_mean_to_the_planner(steered: Session) -> None:
    """Two hundred queries of up to six relations, with self-joins and products, most of them plain."""
    steered.execute(TABLES)
    draw = random.Random(7)  # noqa: S311  # a choice of cases
    texts = []
    for _ in range(200):
        aliases = [f"r{number}" for number in range(draw.randint(1, 6))]
        sources = ", ".join(f"{draw.choice('abc')} AS {alias}" for alias in aliases)
        conditions = [
            f"{draw.choice(aliases)}.{draw.choice('xyz')} = {draw.choice(aliases)}.{draw.choice('xyz')}" for _ in range(draw.randint(0, 6))
        ]
        conditions += [
            f"{draw.choice(aliases)}.{draw.choice('xyz')} {draw.choice(['= 2', '< 1', 'IN (1, 2)'])}" for _ in range(draw.randint(0, 4))
        ]
        texts.append(f"SELECT count(*) FROM {sources}{' WHERE ' if conditions else ''}{' AND '.join(conditions)}")
    plain, different = differing(steered, texts)
    assert plain > 140
    assert different == []


def test_the_generated_workload_means_what_it_means_to_the_planner(steered: Session) -> None:
    """Every query of the generated STATS workload is plain."""
    dataset = StatsDataset(name="stats_tiny", scale=0.01)
    dataset.load(steered)
    queries = [query.sql for query in (*dataset.workload().train[:100], *dataset.workload().test)]
    assert differing(steered, queries) == (len(queries), [])


@pytest.mark.parametrize(("name", "pattern", "plain"), [("stats_tiny", "t*.sql", 1146), ("imdb_tiny", "queries/*.sql", 45)])
def test_published_workloads_mean_what_they_mean_to_the_planner(
    steered: Session, shared_data: Path, name: str, pattern: str, plain: int
) -> None:
    """STATS-CEB as a whole, and the queries of JOB that have no OR; from 17 on, IS NOT NULL of a column declared so is no condition."""
    load_dump(steered, shared_data / name / f"{name}.sql")
    texts = [text for path in sorted((shared_data / name).glob(pattern)) for text in path.read_text(encoding="utf-8").split(";\n")]
    taken, different = differing(steered, filter(str.strip, texts))
    assert taken == plain
    assert [sql for sql in different if "k.keyword IS NOT NULL" not in sql] == []
