"""The SQL of a set says what the planner means by it: one statement for each way in which sets are joined."""

from __future__ import annotations

import pytest

from pytest_pilotscope.errors import StatementFailed
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import LeveledSubplan
from pytest_pilotscope.queries.meaning import NoCount, Statement
from pytest_pilotscope.queries.predicates import Opaque

_TABLES = """
    CREATE TABLE a (id int PRIMARY KEY, x int, y int, t text);
    CREATE TABLE b (id int PRIMARY KEY, x int, y int, t text);
    CREATE TABLE c (id int PRIMARY KEY, x int, y int, t text);
    INSERT INTO a SELECT i, i % 3, i % 5, 'k' || i % 3 FROM generate_series(1, 30) AS i;
    INSERT INTO b SELECT i, i % 4, i % 3, 'k' || i % 4 FROM generate_series(1, 20) AS i;
    INSERT INTO c SELECT i, i % 2, NULLIF(i % 6, 0), 'k' || i % 5 FROM generate_series(1, 10) AS i;
    ANALYZE a, b, c
"""


@pytest.fixture
def planned(steered: Session) -> Session:
    """Open a session with the library and three small tables."""
    for statement in _TABLES.split(";"):
        steered.execute(statement)
    return steered


def _sql(statement: Statement, *aliases: str) -> str:
    level = statement.outermost
    assert level is not None
    return level.count_sql(level.query.mask(frozenset(aliases))).sql


@pytest.mark.parametrize(
    ("sql", "aliases", "counting"),
    [
        (
            "SELECT * FROM a, b WHERE a.id = b.x AND a.id IN (1)",
            "b",
            'SELECT count(*) FROM public.b AS "b" WHERE (b.x = 1)',
        ),
        (
            "SELECT * FROM a, b WHERE a.id = b.x AND ((a.y = 1 AND b.y = 1) OR (a.y = 2 AND b.y = 2))",
            "a",
            'SELECT count(*) FROM public.a AS "a" WHERE ((a.y = 1) OR (a.y = 2))',
        ),
        (
            "SELECT * FROM a LEFT JOIN b ON a.id = b.x AND a.y = 1 AND b.y > 1 WHERE a.x < 2",
            "a b",
            'SELECT count(*) FROM (public.a AS "a" LEFT JOIN public.b AS "b" ON (b.y > 1) AND (a.y = 1) AND (a.id = b.x)) WHERE (a.x < 2)',
        ),
        (
            "SELECT * FROM (SELECT * FROM a WHERE y = 1) AS a FULL JOIN b ON a.id = b.x",
            "a b",
            'SELECT count(*) FROM ((public.a AS "a" JOIN (SELECT) AS "#f2" ON (a.y = 1)) FULL JOIN public.b AS "b" ON (a.id = b.x))',
        ),
        (
            "SELECT * FROM a WHERE EXISTS (SELECT FROM b WHERE b.x = a.y AND b.y > 1)",
            "a b",
            'SELECT count(*) FROM public.a AS "a" WHERE EXISTS (SELECT FROM public.b AS "b" WHERE (b.y > 1) AND (a.y = b.x))',
        ),
        (
            "SELECT * FROM a WHERE NOT EXISTS (SELECT FROM b WHERE b.x = a.y)",
            "a b",
            'SELECT count(*) FROM public.a AS "a" WHERE NOT EXISTS (SELECT FROM public.b AS "b" WHERE (b.x = a.y))',
        ),
        (
            "SELECT * FROM a LEFT JOIN b ON a.id = b.x WHERE b.x IS NULL AND coalesce(b.y, a.y) = 3",
            "a b",
            'SELECT count(*) FROM (public.a AS "a" LEFT JOIN (public.b AS "b" CROSS JOIN (SELECT true AS p) AS "#m2") ON (a.id = b.x)) '
            'WHERE "#m2".p IS NULL AND (COALESCE(b.y, a.y) = 3)',
        ),
        (
            "SELECT * FROM a, c WHERE a.x = c.x AND a.x IN (SELECT b.x FROM b WHERE b.y > 1)",
            "b c",
            'SELECT count(*) FROM public.c AS "c", (SELECT DISTINCT b.x AS c1 FROM public.b AS "b" WHERE (b.y > 1)) AS "#u4" '
            'WHERE (c.x = "#u4".c1)',
        ),
        (
            "SELECT * FROM a WHERE a.x > (SELECT avg(b.x) FROM b WHERE b.y = a.y)",
            "a",
            'SELECT count(*) FROM public.a AS "a" WHERE ((a.x)::numeric > (SELECT avg("b@1".x) AS c1 FROM public.b AS "b@1" '
            'WHERE ("b@1".y = a.y) GROUP BY ()))',
        ),
        (
            "SELECT * FROM a, (SELECT b.x, count(*) AS n FROM b GROUP BY b.x HAVING count(*) > 4) AS s WHERE a.x = s.x",
            "a s",
            'SELECT count(*) FROM public.a AS "a", (SELECT "b@1".x AS c1, count(*) AS c2 FROM public.b AS "b@1" GROUP BY "b@1".x '
            'HAVING (count(*) > 4)) AS "s"(c1, c2) WHERE (a.x = s.c1)',
        ),
        (
            "SELECT * FROM a, (SELECT x FROM b UNION ALL SELECT y FROM c) AS u WHERE a.id = u.x",
            "u",
            'SELECT count(*) FROM (SELECT "r#5".x FROM public.b AS "r#5" UNION ALL SELECT "r#6".y FROM public.c AS "r#6") AS "u"(c1)',
        ),
        (
            "SELECT * FROM a, generate_series(1, a.x) AS g WHERE g > 1",
            "a g",
            'SELECT count(*) FROM public.a AS "a", LATERAL ROWS FROM(generate_series(1, a.x)) AS "g"(c1) WHERE (g.c1 > 1)',
        ),
        (
            'SELECT * FROM a, b WHERE a.t COLLATE "C" = b.t AND a.id < 3',
            "a b",
            'SELECT count(*) FROM public.a AS "a", public.b AS "b" WHERE (a.id < 3) AND ((a.t COLLATE "C") = (b.t COLLATE "C"))',
        ),
        (
            "SELECT * FROM a LEFT JOIN (SELECT b.id, coalesce(b.y, 7) AS v FROM b) AS s ON a.id = s.id WHERE s.v IS NULL",
            "a b",
            'SELECT count(*) FROM (public.a AS "a" LEFT JOIN (public.b AS "b" CROSS JOIN LATERAL (SELECT COALESCE(b.y, 7) AS v) AS "#h1") '
            'ON (a.id = b.id)) WHERE ("#h1".v IS NULL)',
        ),
    ],
)
def test_sql_of_a_set(planned: Session, sql: str, aliases: str, counting: str) -> None:
    """The set is written as the planner understands it, and the SQL runs."""
    found = _sql(read_meaning(planned, sql), *aliases.split())
    assert found == counting
    assert planned.scalar(found) >= 0


@pytest.mark.parametrize(
    ("sql", "aliases", "reason"),
    [
        (
            "SELECT * FROM a, LATERAL (SELECT b.id FROM b WHERE b.x = a.y LIMIT 2) AS s",
            "a s",
            "LIMIT or DISTINCT ON, and no order that decides which rows these are",
        ),
        (
            "SELECT * FROM a, (SELECT DISTINCT ON (x, y) x, y FROM b ORDER BY x LIMIT 2) AS s",
            "a s",
            "LIMIT or DISTINCT ON, and no order that decides which rows these are",
        ),
        ("SELECT * FROM a, generate_series(1, a.x) AS g", "g", "it depends on a row of another relation"),
        ("SELECT * FROM a, (SELECT id, rank() OVER (ORDER BY x) AS n FROM b) AS s WHERE s.n = a.id", "s", "a window function"),
        ("SELECT * FROM (VALUES (2)) AS v (x), a WHERE v.x = a.x AND (v.x, v.x) IS NOT NULL", "a", "a constant row"),
        ("SELECT * FROM a TABLESAMPLE system (50), b WHERE a.id = b.id", "a", "TABLESAMPLE"),
        (
            "WITH RECURSIVE w (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM w WHERE n < 5) SELECT * FROM a, w WHERE a.id = w.n",
            "w",
            "a recursive WITH",
        ),
        (
            "SELECT * FROM a, ROWS FROM (json_to_recordset('[]') AS (k int)) AS j WHERE j.k = a.id",
            "j",
            "a function with a list of column definitions",
        ),
    ],
)
def test_a_set_without_sql_says_why(planned: Session, sql: str, aliases: str, reason: str) -> None:
    """A set that no SQL counts gives the reason."""
    with pytest.raises(NoCount) as failure:
        _sql(read_meaning(planned, sql), *aliases.split())
    assert str(failure.value) == reason


def test_sets_of_every_level_are_reported(planned: Session) -> None:
    """Sets of a subquery have the number of its level; those that depend on the row around it have no SQL."""
    statement = read_meaning(
        planned, "SELECT * FROM a WHERE a.x > (SELECT avg(b.x) FROM b WHERE b.y = a.y) AND a.y < (SELECT max(c.id + 1) FROM c)"
    )
    named = {key: level for key, (level, _) in statement.subplans().items()}
    assert set(named) == {LeveledSubplan(1, "b"), LeveledSubplan(2, "c"), LeveledSubplan(3, "a")}
    assert named[LeveledSubplan(2, "c")].count_sql(1).sql == 'SELECT count(*) FROM public.c AS "c@2"'
    with pytest.raises(NoCount, match=r"^it depends on a row of the query around it$"):
        named[LeveledSubplan(1, "b")].count_sql(1)


@pytest.mark.parametrize(
    ("condition", "volatility"), [("a.x = 1", "i"), ("a.t < now()::text", "s"), ("a.x > random()", "v"), ("a.id = pg_backend_pid()", "s")]
)
def test_volatility_is_asked_of_postgresql(planned: Session, condition: str, volatility: str) -> None:
    """A count is as volatile as the functions in its conditions."""
    level = read_meaning(planned, f"SELECT * FROM a, b WHERE a.id = b.id AND {condition}").outermost
    assert level is not None
    assert level.count_sql(0b11).volatility == volatility
    assert level.in_memory(0b11) is (volatility == "i")


def test_nothing_is_reported_without_being_asked(planned: Session) -> None:
    """With the switches off the report is empty, and a statement that cannot be planned leaves them off."""
    with pytest.raises(StatementFailed, match=r'relation "nowhere" does not exist'):
        read_meaning(planned, "SELECT * FROM nowhere")
    planned.execute("EXPLAIN SELECT * FROM a")
    assert planned.scalar("SHOW pilotscope.meaning") == "{}"


def test_deep_statements_are_read(planned: Session) -> None:
    """Two thousand ORs, a list of twenty thousand values and nested conditions are no problem."""
    ors = " OR ".join(f"(a.x = {i} AND a.y = {i % 7})" for i in range(2000))
    listed = ", ".join(map(str, range(20000)))
    nested = "NOT (a.x = 1 AND " * 60 + "a.y = 2" + ")" * 60
    level = read_meaning(planned, f"SELECT * FROM a, b WHERE a.id = b.id AND ({ors}) AND b.x IN ({listed}) AND {nested}").outermost
    assert level is not None
    assert planned.scalar(level.count_sql(0b11).sql) >= 0


def test_a_column_that_may_have_nulls_is_no_key(planned: Session) -> None:
    """A unique index takes any number of NULLs, also while a NOT NULL constraint does not hold for all rows yet (PostgreSQL 18)."""
    sql = "SELECT * FROM a, (SELECT y FROM b ORDER BY x LIMIT 2) AS s"
    planned.execute("UPDATE b SET x = id; CREATE UNIQUE INDEX ON b (x)")
    undecided = "LIMIT or DISTINCT ON, and no order that decides which rows these are"
    states = [("", undecided), ("ALTER TABLE b ALTER x SET NOT NULL", None)]
    if planned.server_version >= 180_000:
        states.insert(1, ("ALTER TABLE b ADD CONSTRAINT later NOT NULL x NOT VALID", undecided))
    for change, reason in states:
        if change:
            planned.execute(change)
        statement = read_meaning(planned, sql)
        found = [level.result.why for level in statement.levels if level.result is not None]
        assert found == [reason], change


def test_a_filter_that_takes_different_texts_as_equal_has_no_structured_form(planned: Session) -> None:
    """Only PostgreSQL can compare texts by such a collation; others do not change which texts are equal."""
    try:
        planned.execute("CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)")
    except StatementFailed as error:
        pytest.skip(f"no collation that takes different texts as equal: {error.reason}")

    def structured(condition: str) -> bool:
        [level] = read_meaning(planned, f"SELECT * FROM a WHERE {condition}").levels
        return not any(isinstance(predicate.condition, Opaque) for predicate in level.query.relations["a"].predicates)

    conditions = ("t = 'k1'", "t IN ('k1', 'k2')", "t <> 'k1'", "t = t || ''")
    assert [structured(condition) for condition in conditions] == [True, True, True, False]
    assert [structured(condition.replace("'k1'", "'k1' COLLATE \"C\"")) for condition in conditions[:3]] == [True] * 3
    assert [structured(condition.replace("'k1'", "'k1' COLLATE loose")) for condition in conditions[:3]] == [False] * 3
