"""Everything that is not a plain inner join: the planner is steered, and no answer changes."""

from __future__ import annotations

import pytest

from pytest_pilotscope.measurement.answers import answer_hash
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import LeveledSubplan, verify

from .corpora import chance, text_plan

_SCHEMA = """
    CREATE TABLE a (id int PRIMARY KEY, k int, v int);
    CREATE TABLE b (id int PRIMARY KEY, k int, v int);
    CREATE TABLE c (id int PRIMARY KEY, k int, v int);
    INSERT INTO a SELECT g, g % 97, g % 7 FROM generate_series(1, 3000) AS g;
    INSERT INTO b SELECT g, g % 89, g % 5 FROM generate_series(1, 2000) AS g;
    INSERT INTO c SELECT g, g % 83, g % 3 FROM generate_series(1, 1000) AS g;
    CREATE INDEX ON a (k); CREATE INDEX ON b (k); CREATE INDEX ON c (k);
    CREATE TABLE p (id int, k int) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (1000);
    CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (1000) TO (3000);
    CREATE TABLE q (id int, k int) PARTITION BY RANGE (id);
    CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (0) TO (1000);
    CREATE TABLE q2 PARTITION OF q FOR VALUES FROM (1000) TO (3000);
    INSERT INTO p SELECT g, g % 50 FROM generate_series(0, 2999) AS g;
    INSERT INTO q SELECT g, g % 40 FROM generate_series(0, 2999) AS g;
    CREATE TABLE parent (id int, k int);
    CREATE TABLE child (extra int) INHERITS (parent);
    INSERT INTO parent SELECT g, g % 10 FROM generate_series(1, 500) AS g;
    INSERT INTO child SELECT g, g % 10, g FROM generate_series(501, 1500) AS g;
    CREATE VIEW w AS SELECT a.id, b.v FROM a JOIN b ON a.k = b.k;
    CREATE TABLE target (id int PRIMARY KEY, v int);
    INSERT INTO target SELECT g, 0 FROM generate_series(1, 500) AS g;
"""

FORMS = {
    "left join": "SELECT * FROM a LEFT JOIN b ON a.k = b.k AND b.v = 1 LEFT JOIN c ON b.id = c.id",
    "left join of a join": "SELECT * FROM a LEFT JOIN (b JOIN c ON b.k = c.k) ON a.id = b.id",
    "right join": "SELECT * FROM a RIGHT JOIN b ON a.id = b.id WHERE b.v < 3",
    "full join": "SELECT * FROM a FULL JOIN b ON a.id = b.id FULL JOIN c ON c.id = b.id",
    "semi join": "SELECT * FROM a WHERE EXISTS (SELECT FROM b WHERE b.k = a.k AND b.v = 2)",
    "semi join by IN": "SELECT * FROM a, c WHERE a.id = c.id AND a.k IN (SELECT k FROM b WHERE v = 3)",
    "semi join of a join": "SELECT * FROM a WHERE a.k IN (SELECT b.k FROM b JOIN c ON b.id = c.id WHERE c.v = 1)",
    "anti join": "SELECT * FROM a WHERE NOT EXISTS (SELECT FROM b WHERE b.id = a.id AND b.v = 2)",
    "views": "SELECT count(*) FROM w AS x JOIN w AS y ON x.id = y.v",
    "self-join": "SELECT * FROM a AS x JOIN a AS y ON x.k = y.id JOIN a AS z ON y.k = z.id WHERE x.v = 1",
    "inlined CTE": "WITH s AS (SELECT * FROM a WHERE v = 1) SELECT * FROM s JOIN b ON s.k = b.k",
    "materialized CTE": "WITH s AS MATERIALIZED (SELECT a.k, b.v FROM a JOIN b ON a.id = b.id) SELECT * FROM s JOIN c ON s.k = c.k",
    "recursive CTE": "WITH RECURSIVE r AS (SELECT id, k FROM a WHERE id < 5 "
    "UNION SELECT a.id, a.k FROM r JOIN a ON a.id = r.k) SELECT * FROM r",
    "lateral": "SELECT * FROM a, LATERAL (SELECT * FROM b WHERE b.k = a.k ORDER BY b.id LIMIT 2) AS l WHERE a.v = 1",
    "lateral function": "SELECT * FROM c, LATERAL generate_series(1, c.v) AS g",
    "sublink": "SELECT * FROM a WHERE a.k = (SELECT max(b.k) FROM b JOIN c ON b.id = c.id)",
    "correlated sublink": "SELECT *, (SELECT count(*) FROM b WHERE b.k = c.k) FROM c WHERE c.v = 1",
    "hashed sublink": "SELECT * FROM a WHERE a.k NOT IN (SELECT b.k FROM b WHERE b.v = 1) OR a.v = 3",
    "aggregated subquery": "SELECT * FROM a JOIN (SELECT k, count(*) AS n FROM b GROUP BY k) AS s ON a.k = s.k WHERE s.n > 3",
    "equal aliases in two levels": "SELECT * FROM a "
    "JOIN (SELECT a.k, count(*) FROM a JOIN b ON a.id = b.id GROUP BY a.k) AS s ON a.id = s.k",
    "union all": "SELECT * FROM (SELECT id, k FROM a UNION ALL SELECT id, k FROM b) AS u JOIN c ON u.k = c.k",
    "union": "SELECT id FROM a WHERE v = 1 UNION SELECT b.id FROM b JOIN c ON b.id = c.id",
    "values": "SELECT * FROM a JOIN (VALUES (1), (2), (3)) AS l (k) ON a.k = l.k",
    "function": "SELECT * FROM generate_series(1, 100) AS g JOIN a ON a.id = g",
    "table sample": "SELECT * FROM a TABLESAMPLE SYSTEM (50) REPEATABLE (1) JOIN b ON a.id = b.id",
    "pseudoconstant": "SELECT * FROM a JOIN b ON a.k = b.k WHERE now() > '2020-01-01' AND a.v = 1",
    "pseudoconstant under GEQO": "SELECT * FROM a JOIN b ON a.k = b.k JOIN c ON c.id = a.id WHERE now() > '2020-01-01'",
    "proven empty": "SELECT * FROM a JOIN b ON a.k = b.k WHERE a.v = 1 AND false",
    "partly empty": "SELECT * FROM a LEFT JOIN (SELECT * FROM b WHERE false) AS n ON a.id = n.id JOIN c ON c.id = a.id",
    "partitions": "SELECT * FROM p JOIN a ON p.id = a.id",
    "pruned partitions": "SELECT * FROM p JOIN a ON p.id = a.id WHERE p.id < 500",
    "partitions of both sides": "SELECT * FROM p JOIN q ON p.id = q.id JOIN c ON c.id = p.k",
    "inheritance": "SELECT * FROM parent JOIN a ON parent.id = a.id",
    "only": "SELECT * FROM ONLY parent JOIN a ON parent.id = a.id",
    "cross join": "SELECT count(*) FROM a, c WHERE a.v = 1 AND c.v = 1",
    "inequality": "SELECT count(*) FROM a JOIN c ON a.id < c.id WHERE a.v = 1",
    "distinct and order": "SELECT DISTINCT a.k FROM a JOIN b ON a.k = b.k ORDER BY 1 LIMIT 5",
    "window": "SELECT sum(b.v) OVER (PARTITION BY a.k ORDER BY a.id, b.id) FROM a JOIN b ON a.k = b.k",
    "minimum": "SELECT min(id), max(id) FROM a",
    "for update": "SELECT * FROM a JOIN b ON a.id = b.id FOR UPDATE OF a",
    "insert": "INSERT INTO target SELECT a.id, b.v FROM a JOIN b ON a.id = b.id WHERE a.id > 500 RETURNING *",
    "insert on conflict": "INSERT INTO target SELECT a.id, b.v FROM a JOIN b ON a.id = b.id "
    "ON CONFLICT (id) DO UPDATE SET v = 9 RETURNING *",
    "update": "UPDATE target SET v = b.v FROM a JOIN b ON a.k = b.k WHERE target.id = a.id AND b.id < 90 RETURNING target.id",
    "update of partitions": "UPDATE p SET k = c.v FROM c WHERE p.id = c.id RETURNING p.id",
    "delete": "DELETE FROM target USING a, b WHERE target.id = a.id AND a.id = b.id RETURNING target.id",
    "merge": "MERGE INTO target USING (SELECT a.id, b.v FROM a JOIN b ON a.id = b.id) AS s ON target.id = s.id "
    "WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v)",
}

SETTINGS = {
    "pseudoconstant under GEQO": "SET geqo_threshold = 2",
    "partitions of both sides": "SET enable_partitionwise_join = on",
}


@pytest.fixture(scope="module")
def forms(module_scratch: Session, library: object) -> Session:
    """Open a session with the library in a database with all tables."""
    module_scratch.execute(_SCHEMA)
    module_scratch.execute("VACUUM ANALYZE")
    module_scratch.execute(f"LOAD '{library}'")
    return module_scratch


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, forms: Session) -> str:
    """Give the name of one of the forms, with the settings it needs in force."""
    if request.param == "merge" and forms.server_version < 150000:
        pytest.skip("MERGE is there from PostgreSQL 15 on")
    forms.execute("RESET geqo_threshold; RESET enable_partitionwise_join")
    forms.execute(SETTINGS.get(request.param, "SELECT 1"))
    return str(request.param)


def test_own_rows_change_nothing(forms: Session, form: str) -> None:
    """Injecting what the planner thought anyway leaves the plan as it is, letter for letter."""
    sql = FORMS[form]
    stock = text_plan(forms, sql)
    with forms.cardinalities(forms.subplans(sql)):
        assert text_plan(forms, sql) == stock
    assert text_plan(forms, sql) == stock


@pytest.mark.parametrize("seed", range(2))
def test_values_arrive(forms: Session, form: str, seed: int) -> None:
    """Unique random rows are found on the nodes of their relations, except where a rule says otherwise."""
    sql = FORMS[form]
    subplans = forms.subplans(sql)
    rows = map(float, chance(seed).sample(range(10, 1_000_000), len(subplans)))
    injected = dict(zip(subplans, rows, strict=True))
    with forms.cardinalities(injected):
        plan = forms.explain(sql)
        assert {key: rows for key, rows in forms.subplans(sql).items() if rows > 1} == {
            key: rows for key, rows in injected.items() if subplans[key] > 0
        }
    assert verify(plan, injected, {}).reasons == ()
    assert forms.take_notices() == []


def test_answers_stay(forms: Session, form: str) -> None:
    """However wrong the rows that are injected, the answer is the same."""
    sql = FORMS[form]
    injected = {key: chance(f"{form} {sorted(key)}").choice([0.0, 1.0, 30.0, 1e6]) for key in forms.subplans(sql)}
    with forms.rolled_back():
        expected = forms.execute(sql)
    with forms.rolled_back(), forms.cardinalities(injected):
        found = forms.execute(sql)
    assert (len(found), answer_hash(found)) == (len(expected), answer_hash(expected))


def test_levels_are_addressed(forms: Session) -> None:
    """In a statement of several levels every key has its level, inner levels first, and a value for one leaves the other alone."""
    sql = FORMS["equal aliases in two levels"]
    subplans = forms.subplans(sql)
    assert sorted((key.level, sorted(key)) for key in subplans if isinstance(key, LeveledSubplan)) == [
        (1, ["a"]),
        (1, ["a", "b"]),
        (1, ["b"]),
        (2, ["a"]),
        (2, ["a", "s"]),
        (2, ["s"]),
    ]
    inner, outer = LeveledSubplan(1, {"a"}), LeveledSubplan(2, {"a"})
    with forms.cardinalities({inner: 11}):
        assert (forms.subplans(sql)[inner], forms.subplans(sql)[outer]) == (11, subplans[outer])
    with forms.cardinalities({frozenset({"a"}): 12}):
        assert (forms.subplans(sql)[inner], forms.subplans(sql)[outer]) == (12, 12)
    with forms.cardinalities({frozenset({"a"}): 12, outer: 13}):
        assert (forms.subplans(sql)[inner], forms.subplans(sql)[outer]) == (12, 13)


def test_equal_aliases_in_one_level_are_numbered(forms: Session) -> None:
    """The relations of a view that is used twice are a and b, a#2 and b#2."""
    subplans = forms.subplans(FORMS["views"])
    assert sorted(sorted(key)[0] for key in subplans if len(key) == 1) == ["a", "a#2", "b", "b#2"]


def test_minimum_by_index_is_no_level(forms: Session) -> None:
    """The planner's trial whether an index gives a minimum or maximum is not told, and steered like the query itself."""
    sql = FORMS["minimum"]
    assert set(forms.subplans(sql)) == {frozenset({"a"})}
    with forms.cardinalities({LeveledSubplan(1, {"a"}): 77}):
        assert {node.rows for node in forms.explain(sql).nodes() if node.alias == "a" and node.node_type == "Index Only Scan"} == {77}
    assert forms.take_notices() == []
    limited = "SELECT max(id), (SELECT id FROM a WHERE id IS NOT NULL ORDER BY id LIMIT 1) FROM a"
    assert len({key.level for key in forms.subplans(limited) if isinstance(key, LeveledSubplan)}) > 1


def test_plan_of_a_partitioned_table_adds_up(forms: Session) -> None:
    """The rows of the partitions are scaled with those of their table, and the table's own are exactly what was injected."""
    stock = forms.explain("SELECT * FROM p")
    with forms.cardinalities({frozenset({"p"}): 100 * stock.rows}):
        plan = forms.explain("SELECT * FROM p")
    assert plan.rows == 100 * stock.rows
    assert [child.rows for child in plan.children] == [100 * child.rows for child in stock.children]


def test_the_sql_of_a_set_has_its_estimate(forms: Session) -> None:
    """The SQL that counts a set runs, and its own plan has the same estimate for its join."""
    sql = "SELECT * FROM a JOIN b ON a.k = b.k JOIN c ON c.id = b.id AND c.k + a.v > 3 WHERE a.v = 1 AND b.v IN (1, 2)"
    [level] = read_meaning(forms, sql).levels
    assert len(level.query.masks) == 7
    for mask in level.query.masks:
        counting = level.count_sql(mask).sql
        assert forms.explain(counting.replace("count(*)", "1", 1)).rows == level.rows[mask], counting
    assert forms.scalar(level.count_sql(0b111).sql) == len(forms.execute(sql))
