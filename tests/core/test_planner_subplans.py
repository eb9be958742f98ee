"""The subplans of a query are those that PostgreSQL's planner builds, asked through the library."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.core.joins import parse
from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.labels import Label, by_level, subqueries_of
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
        "SELECT 1 FROM a LEFT JOIN b ON a.x = b.x LEFT JOIN c ON b.y = c.y",
        "SELECT 1 FROM a LEFT JOIN b ON a.x = b.x LEFT JOIN c ON b.y = c.y WHERE c.z > 1",
        "SELECT 1 FROM a LEFT JOIN (b JOIN c ON b.x = c.x) ON a.y = b.y",
        "SELECT 1 FROM a LEFT JOIN (b LEFT JOIN c ON b.x = c.x) ON a.y = b.y AND a.z = c.z",
        "SELECT 1 FROM a LEFT JOIN b ON a.x = b.x AND a.y = 2, c WHERE c.x = a.x AND b.z IS NULL",
        "SELECT 1 FROM a RIGHT JOIN b ON a.x < b.x JOIN c ON c.y = b.y",
        "SELECT 1 FROM a LEFT JOIN b ON TRUE LEFT JOIN c ON a.x = c.x",
        "SELECT 1 FROM a FULL JOIN b ON a.x = b.x, c WHERE c.x = a.x OR c.y = 1",
        "SELECT 1 FROM (a JOIN b ON a.x = b.x) FULL JOIN c ON c.y = b.y",
        "SELECT 1 FROM c JOIN (a FULL JOIN b USING (x)) ON c.y = 2 AND coalesce(a.y, b.y) = c.y",
        "SELECT 1 FROM a LEFT JOIN b USING (x, y, z, s) NATURAL RIGHT JOIN c WHERE s = 'k'",
        "SELECT 1 FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.x = a.x)",
        "SELECT 1 FROM a, c WHERE a.x = c.x AND EXISTS (SELECT * FROM b WHERE b.x = a.x AND y = 2 LIMIT 1)",
        "SELECT 1 FROM a, c WHERE a.x = c.x AND EXISTS (SELECT * FROM b WHERE b.x = a.x AND b.y < c.y)",
        "SELECT 1 FROM a, c WHERE a.x = c.x AND NOT EXISTS (SELECT * FROM b WHERE b.x = a.x AND y = 2)",
        "SELECT 1 FROM a WHERE EXISTS (SELECT 1 FROM b, c WHERE b.x = a.x AND b.y = c.y)",
        "SELECT 1 FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.x = a.x) AND NOT EXISTS (SELECT 1 FROM c WHERE c.x = a.x)",
        "SELECT 1 FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.x = a.x AND EXISTS (SELECT 1 FROM c WHERE c.y = b.y))",
        "SELECT 1 FROM a, c WHERE a.x IN (SELECT x FROM b WHERE z > 1) AND c.y = a.y",
        "SELECT 1 FROM a WHERE (x, y) IN (SELECT b.x, c.y FROM b, c WHERE b.z = c.z)",
        "SELECT 1 FROM a, LATERAL (SELECT * FROM b WHERE b.x = a.x AND z > 1) AS l, c WHERE c.y = l.y",
        "SELECT 1 FROM a LEFT JOIN LATERAL (SELECT * FROM b WHERE b.x = a.x) AS l ON l.y = 2 JOIN c ON c.x = a.x",
        "SELECT 1 FROM a JOIN (SELECT b.x AS key, c.y + 1 AS next FROM b, c WHERE b.z = c.z) AS q ON q.key = a.x AND next > 2",
    ],
)
def test_subplans_are_those_of_the_planner(steered: Session, sql: str) -> None:
    """Equivalence classes, shared constants, inequalities, products and disjunctions connect relations as in PostgreSQL."""
    assert_same(steered, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 FROM a, c WHERE a.x = c.x AND a.y NOT IN (SELECT y FROM b WHERE z = 1)",
        "SELECT 1 FROM a WHERE x = 1 OR y IN (SELECT y FROM a WHERE z = 2)",
        "SELECT 1 FROM a WHERE y > (SELECT max(c.y) FROM b, c WHERE b.z = c.z AND b.x NOT IN (SELECT d.x FROM a AS d))",
        "SELECT 1 FROM a WHERE y > (SELECT avg(y) FROM b) AND EXISTS (SELECT 1 FROM c WHERE c.x = a.x AND c.z < (SELECT 2 FROM a AS d))",
    ],
)
def test_every_level_has_labels(steered: Session, sql: str) -> None:
    """Labels of a query and of the subqueries planned on their own answer for every subplan that the planner asks about."""
    schema = read_schema(steered)
    label = Label(rows=1, source="memory")
    itself, *inner = (dict.fromkeys(parse(text, schema).subplans(), label) for text in (sql, *subqueries_of(sql, schema)))
    assert by_level(steered.subplans(sql), itself, inner).keys() >= steered.subplans(sql).keys()


def random_tree(draw: random.Random, aliases: list[str]) -> str:
    """A FROM clause of inner and outer joins of any shape, with a condition or two in each ON."""
    if len(aliases) == 1:
        return f"{draw.choice('abc')} AS {aliases[0]}"
    cut = len(aliases) - 1 if draw.random() < 0.6 else draw.randint(1, len(aliases) - 1)
    left, right = aliases[:cut], aliases[cut:]
    on = f"{draw.choice(left)}.{draw.choice('xyz')} = {draw.choice(right)}.{draw.choice('xyz')}"
    if draw.random() < 0.3:
        on += f" AND {draw.choice(aliases)}.{draw.choice('xyz')} {draw.choice(['< 4', 'IS NOT NULL', 'IS NULL', '= 2'])}"
    joined = random_tree(draw, right)
    kind = draw.choice(["JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
    on = on.split(" AND ")[0] if kind == "FULL JOIN" else on  # PostgreSQL merges or hashes a FULL JOIN, or refuses it
    return f"{random_tree(draw, left)} {kind} {f'({joined})' if len(right) > 1 else joined} ON {on}"


def random_test(draw: random.Random, outer: list[str], inner: list[str]) -> str:
    """EXISTS, NOT EXISTS or IN over a subquery of one or two relations."""
    conditions = [f"{inner[0]}.{draw.choice('xyz')} > {draw.randint(0, 2)}"] if draw.random() < 0.4 else []
    if len(inner) > 1:
        conditions.append(f"{inner[0]}.{draw.choice('xyz')} = {inner[1]}.{draw.choice('xyz')}")
    tables = ", ".join(f"{draw.choice('abc')} AS {alias}" for alias in inner)
    column, key = f"{draw.choice(outer)}.{draw.choice('xyz')}", f"{draw.choice(inner)}.{draw.choice('xyz')}"
    if draw.random() < 0.3:
        return f"{column} IN (SELECT {key} FROM {tables}{' WHERE ' if conditions else ''}{' AND '.join(conditions)})"
    conditions.append(f"{key} {draw.choice('===<')} {column}")
    return f"{draw.choice(['', '', 'NOT '])}EXISTS (SELECT 1 FROM {tables} WHERE {' AND '.join(conditions)})"


def scanned(node: dict[str, Any], found: list[tuple[frozenset[str], str, int, int]]) -> frozenset[str]:
    """Collect relations, type, rows and loops of every node of an analyzed plan."""
    below = frozenset([node["Alias"]] if "Alias" in node else [])
    below = below.union(*(scanned(child, found) for child in node.get("Plans", [])))
    found.append((below, node["Node Type"], int(node["Actual Rows"]), int(node["Actual Loops"])))
    return below


def test_random_special_joins_are_counted_as_they_are_executed(steered: Session) -> None:
    """
    The text of every subplan counts what PostgreSQL's own plan nodes return, for 200 queries with outer joins, EXISTS and IN.

    Every subplan of the planner is among the subplans; in few cases there are more, which costs a count.
    """
    steered.execute("INSERT INTO a SELECT i % 5, i % 3, nullif(i % 7, 3) FROM generate_series(1, 23) AS i")
    steered.execute("INSERT INTO b SELECT i % 4, i % 6, nullif(i % 3, 1) FROM generate_series(1, 31) AS i")
    steered.execute("INSERT INTO c SELECT i % 6, i % 4, nullif(i % 5, 2) FROM generate_series(1, 17) AS i")
    steered.execute("ANALYZE; SET max_parallel_workers_per_gather = 0")
    schema = read_schema(steered)
    draw = random.Random(11)  # noqa: S311  # a choice of cases
    compared = more = 0
    for _ in range(200):
        aliases = [f"r{number}" for number in range(draw.randint(2, 5))]
        cut = draw.randint(max(1, len(aliases) - 2), len(aliases))
        conditions = [f"{draw.choice(aliases[:cut])}.{draw.choice('xyz')} {draw.choice(['> 0', 'IS NULL'])}"] if draw.random() < 0.4 else []
        conditions += [random_test(draw, aliases[:cut], aliases[cut:])] if aliases[cut:] else []
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        sql = f"SELECT count(*) FROM {random_tree(draw, aliases[:cut])}{where}"
        query = parse(sql, schema)
        considered = {frozenset(subplan) for subplan in steered.subplans(sql)}
        assert considered <= set(query.subplans()), sql
        more += len(considered) < len(query.subplans())
        assert steered.scalar(query.count_sql(frozenset(aliases))) == steered.scalar(sql), sql
        with steered.rolled_back():
            steered.execute("SET LOCAL enable_nestloop = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_material = off")
            plan = steered.scalar(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}")[0]["Plan"]
        nodes: list[tuple[frozenset[str], str, int, int]] = []
        scanned(plan, nodes)
        if all(rows and loops == 1 for _, _, rows, loops in nodes):  # else a node may have stopped early
            for below, kind, rows, _ in nodes:
                if kind not in ("Aggregate", "Hash"):
                    assert steered.scalar(query.count_sql(below)) == rows, (sql, below)
                    compared += 1
    assert compared > 200
    assert more < 5


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
