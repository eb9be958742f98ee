"""The comparison of plans with injected cardinalities: made-up plans, and those of a server."""

from __future__ import annotations

import pytest

from pytest_pilotscope.postgres.adherence import LEFT_OUT, uninjected, verify
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.explain import Plan
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import LeveledSubplan
from tests.conftest import LibraryOf


def _scan(alias: str, rows: float, **fields: object) -> Plan:
    return Plan(node_type="Seq Scan", relation="t", alias=alias, rows=rows, **fields)  # type: ignore[arg-type]  # fields of Plan


def _join(rows: float, outer: Plan, inner: Plan, kind: str = "Hash Join", **fields: object) -> Plan:
    from dataclasses import replace

    sides = (replace(outer, relationship="Outer"), replace(inner, relationship="Inner"))
    return Plan(node_type=kind, join_type="Inner", rows=rows, children=sides, **fields)  # type: ignore[arg-type]  # fields of Plan


_INJECTED = {frozenset("a"): 10.4, frozenset("b"): 20.0, frozenset("ab"): 0.0}


def test_verify_counts_nodes_that_carry_their_value() -> None:
    """The ratio is over the nodes with an injected value, rounded and clamped as the planner does."""
    adherence = verify(_join(1, _scan("a", 10), _scan("b", 20)), _INJECTED)
    assert (adherence.steered_ratio, adherence.compared, adherence.reasons, adherence.explained) == (1.0, 3, (), ())


def test_verify_names_each_node_that_does_not() -> None:
    """Every other node is named with what it should have had and what it has."""
    adherence = verify(_join(7, _scan("a", 10), _scan("b", 21)), _INJECTED)
    assert adherence.steered_ratio == pytest.approx(1 / 3)
    assert adherence.reasons == ("Seq Scan b: injected 20 rows, the plan has 21", "Hash Join a b: injected 1 rows, the plan has 7")


def test_verify_counts_nodes_that_had_nothing_injected() -> None:
    """They are not steered, unless only what was injected is asked for: rows that are scaled to force a plan are for some joins."""
    plan = _join(1, _scan("a", 10), _scan("z", 5))
    adherence = verify(plan, _INJECTED)
    assert adherence.reasons == ("Seq Scan z: no rows were injected for it", "Hash Join a z: no rows were injected for it")
    assert adherence.steered_ratio == pytest.approx(1 / 3)
    assert (adherence.compared, adherence.not_injected) == (3, 2)
    some = verify(plan, _INJECTED, only_injected=True)
    assert (some.steered_ratio, some.compared, some.reasons, some.explained) == (1.0, 1, (), adherence.reasons)


def test_verify_says_why_nothing_was_injected() -> None:
    """The reasons are those of the sets that the planner considered."""
    plan = _join(1, _scan("a", 10), _scan("z", 5))
    adherence = verify(plan, _INJECTED, {frozenset("z"): "it has a LIMIT", frozenset("az"): "GEQO"})
    assert adherence.reasons == ("Seq Scan z: it has a LIMIT", "Hash Join a z: GEQO")


def test_verify_does_not_know_the_level() -> None:
    """A node that carries what was injected for its aliases in any level is steered; one that does not may be of the other level."""
    injected: dict[frozenset[str], float] = {LeveledSubplan(2, "a"): 10.0}
    unknown: dict[frozenset[str], str] = {LeveledSubplan(1, "a"): "another level"}
    assert verify(_scan("a", 10), injected, unknown).steered_ratio == 1.0
    assert verify(_scan("a", 7), injected, unknown).reasons == ("Seq Scan a: another level",)


def test_verify_knows_subqueries_that_explain_does_not_name() -> None:
    """A join with a subquery whose scan PostgreSQL leaves out is named after the relations inside of the subquery."""
    injected: dict[frozenset[str], float] = {
        LeveledSubplan(1, "b"): 20.0,
        LeveledSubplan(2, "a"): 10.0,
        LeveledSubplan(2, "s"): 5.0,
        LeveledSubplan(2, "as"): 3.0,
    }
    aggregate = Plan(node_type="Aggregate", rows=5, children=(_scan("b", 20, relationship="Outer"),))
    assert verify(_join(3, _scan("a", 10), aggregate), injected, {}).steered_ratio == 1.0
    assert verify(_join(4, _scan("a", 10), aggregate), injected, {}).reasons == ("Hash Join a b: injected 3 rows, the plan has 4",)
    lacking = {subplan: rows for subplan, rows in injected.items() if len(subplan) == 1}
    found = verify(_join(4, _scan("a", 10), aggregate), lacking, {LeveledSubplan(2, "as"): "it has a LIMIT"})
    assert found.reasons == ("Hash Join a b: it has a LIMIT",)


def test_verify_tells_a_hidden_subquery_from_another_use_of_its_table() -> None:
    """A join with a subquery over r, which EXPLAIN calls r_1, is not the join with the r beside it."""
    grouped = Plan(node_type="Aggregate", rows=3, children=(_scan("r_1", 40, relationship="Outer"),))
    plan = _join(90, _join(7, grouped, _scan("a", 10)), _scan("r", 40))
    rows = {(1, "r"): 40.0, (2, "a"): 10.0, (2, "r"): 40.0, (2, "s"): 3.0, (2, "as"): 7.0, (2, "ar"): 500.0, (2, "ars"): 90.0}
    adherence = verify(plan, {LeveledSubplan(level, aliases): number for (level, aliases), number in rows.items()}, {})
    assert (adherence.steered_ratio, adherence.reasons) == (1.0, ())


def test_verify_explains_joins_of_relations_that_explain_does_not_name() -> None:
    """A side without any name is no reason to count the join as one of the other side."""
    result = Plan(node_type="Result", rows=1)
    found = verify(_join(7, _scan("a", 10), result), {frozenset("a"): 10.0}, {})
    assert (found.steered_ratio, found.compared) == (1.0, 1)
    assert found.explained == ("Hash Join a: EXPLAIN does not say which relations are below it",)


def test_verify_knows_parameterized_scans() -> None:
    """The inner side of a nested loop has rows per execution when a condition of it refers to the other side, not otherwise."""
    referring = _scan("b", 2, conditions={"Index Cond": "(k = a.id)"})
    plan = _join(1, _scan("a", 10), referring, "Nested Loop")
    assert verify(plan, _INJECTED).reasons == ()
    assert verify(plan, _INJECTED).explained == ("Seq Scan b: rows are per execution of the inner side of a nested loop",)
    quoting = _scan("b", 2, conditions={"Filter": "(v = 'a.id')"})
    assert verify(_join(1, _scan("a", 10), quoting), _INJECTED).reasons == ("Seq Scan b: injected 20 rows, the plan has 2",)
    too_many = _scan("b", 21, conditions={"Index Cond": "(k = a.id)"})
    assert verify(_join(1, _scan("a", 10), too_many, "Nested Loop"), _INJECTED).reasons == (
        "Seq Scan b: injected 20 rows, the plan has 21",
    )


def test_verify_knows_processes_that_share_rows() -> None:
    """Below a Gather of 2 workers each process has 1 / 2.4 of the rows, above it there are all of them."""
    shared = Plan(node_type="Gather", rows=20, workers=2, children=(_scan("b", 8, relationship="Outer", parallel_aware=True),))
    assert verify(shared, _INJECTED).steered_ratio == 1.0
    assert verify(_scan("b", 8), _INJECTED).steered_ratio == 0.0


def test_verify_knows_partitions() -> None:
    """The partitions of a table have a share of its rows, the node above them has all."""
    members = tuple(_scan(f"b_{number}", 10, relationship="Member") for number in (1, 2))
    adherence = verify(Plan(node_type="Append", rows=20, children=members), _INJECTED)
    assert (adherence.steered_ratio, adherence.compared, len(adherence.explained)) == (1.0, 1, 2)


def test_every_set_without_rows_has_a_reason() -> None:
    """Given by the estimator, or found by comparing what PostgreSQL considers with what it was given."""
    abc, ab, a, c = frozenset("abc"), frozenset("ab"), frozenset("a"), frozenset("c")
    found = uninjected([frozenset("aX"), frozenset("b")], [a, ab, abc, c], [a, ab, c], {ab: "it has a LIMIT"})
    assert found == {
        a: "removed: rows were injected for it with X, which PostgreSQL removed",
        ab: "not known: it has a LIMIT",
        abc: "GEQO: PostgreSQL did not consider these relations together when it was asked",
        c: LEFT_OUT,
    }
    levels = [LeveledSubplan(1, "a"), LeveledSubplan(2, "a")]
    assert uninjected([LeveledSubplan(2, "a")], levels, levels, {}) == {levels[0]: LEFT_OUT}
    assert uninjected([a], levels, levels, {}) == {}


_FORMS = {
    "grouped subquery": "SELECT * FROM t a JOIN (SELECT k, count(*) AS n FROM r b GROUP BY k) s ON a.k = s.k",
    "subquery twice": "SELECT * FROM (SELECT k FROM t a GROUP BY k) x JOIN (SELECT k FROM t a GROUP BY k) y ON x.k = y.k",
    "limited subquery": "SELECT * FROM t a JOIN (SELECT * FROM r b LIMIT 7) s ON a.id = s.id",
    "fenced subquery": "SELECT * FROM t a JOIN (SELECT b.k FROM r b JOIN t c ON b.id = c.id OFFSET 0) s ON a.k = s.k",
    "WITH": "WITH w AS MATERIALIZED (SELECT k FROM r b WHERE id < 90) SELECT * FROM t a JOIN w ON a.k = w.k JOIN w v ON a.id = v.k",
    "IN over a group": "SELECT * FROM t a WHERE a.id IN (SELECT max(id) FROM r b GROUP BY k)",
    "correlated": "SELECT * FROM t a WHERE a.k = (SELECT max(k) FROM r b WHERE b.id = a.id)",
    "EXISTS": "SELECT * FROM t a WHERE EXISTS (SELECT FROM r b WHERE b.k = a.id)",
    "union in FROM": "SELECT * FROM t a JOIN (SELECT k FROM r b UNION ALL SELECT k FROM t c) u ON a.id = u.k",
    "union of joins": "SELECT a.k FROM t a JOIN r b ON a.id = b.id UNION ALL SELECT a.id FROM t a JOIN r b ON a.id = b.k",
    "union of other joins": "SELECT a.k FROM t a JOIN r b ON a.id = b.id UNION ALL SELECT a.id FROM t a JOIN r c ON a.id = c.k",
    "union under the same name": "SELECT * FROM t a JOIN (SELECT k FROM r a UNION ALL SELECT k FROM t a) u ON a.id = u.k",
    "union": "SELECT k FROM t a UNION SELECT k FROM r b",
    "except": "SELECT k FROM t a EXCEPT SELECT k FROM r b",
    "recursion": "WITH RECURSIVE w AS (SELECT id FROM t a WHERE id < 3 UNION ALL SELECT a.k FROM w JOIN t a ON a.id = w.id + 1) "
    "SELECT * FROM w LIMIT 9",
    "partitions": "SELECT * FROM p JOIN t a ON p.id = a.id",
    "partition by partition": "SELECT * FROM p JOIN p q ON p.id = q.id",
    "view twice": "SELECT * FROM v JOIN v AS w ON v.id = w.k",
    "function": "SELECT * FROM t a JOIN generate_series(1, 9) g ON a.id = g",
    "values": "SELECT * FROM t a JOIN (VALUES (1), (2)) x (n) ON a.id = x.n",
    "lateral": "SELECT * FROM t a, LATERAL (SELECT count(*) AS n FROM r b WHERE b.k = a.id) s",
    "minimum": "SELECT min(id), max(id) FROM t a",
    "nothing": "SELECT * FROM t a JOIN r b ON a.id = b.id WHERE false",
    "update": "UPDATE t a SET k = 1 FROM r b WHERE a.id = b.id",
    "insert": "INSERT INTO r SELECT a.* FROM t a JOIN r b ON a.id = b.id",
}


_SHARES = ("union in FROM", "union under the same name", "partitions", "partition by partition")
"""Those with nodes that have a share of the rows of the whole."""


@pytest.fixture(scope="module")
def forms(server: EmbeddedServer, module_scratch: Session, library_of: LibraryOf) -> Session:
    """Tables, one of them partitioned, and a view."""
    module_scratch.execute(f"LOAD '{library_of(server)}'")
    for statement in (
        "CREATE TABLE t AS SELECT g AS id, g % 10 AS k FROM generate_series(1, 1000) AS g; CREATE UNIQUE INDEX ON t (id)",
        "CREATE TABLE r AS TABLE t",
        "CREATE VIEW v AS SELECT a.id, b.k FROM t a JOIN r b ON a.id = b.id",
        "CREATE TABLE p (id int, k int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (600)",
        "CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (600) TO (2000); INSERT INTO p TABLE t",
        "ANALYZE; SET enable_partitionwise_join = on",
    ):
        module_scratch.execute(statement)
    return module_scratch


@pytest.mark.parametrize("form", _FORMS)
def test_every_node_is_accounted_for(forms: Session, form: str) -> None:
    """With rows for all sets every node carries its own; with none they all count as not steered, with the reason."""
    sql = _FORMS[form]
    own = forms.subplans(sql)
    injected = {subplan: 1000.0 + 7 * number for number, subplan in enumerate(own)}
    with forms.cardinalities(injected):
        plan, considered = forms.explain(sql), forms.subplans(sql)
    assert uninjected(injected, considered, own, {}) == {}
    found = verify(plan, injected, {})
    assert found.reasons == (), plan
    assert (found.compared > 0) == (form != "nothing"), plan
    none = verify(forms.explain(sql), {}, uninjected({}, own, own, dict.fromkeys(own, "it is not")))
    assert (none.steered_ratio == 0) == (none.compared > 0)
    assert none.compared == none.not_injected
    assert all(reason.endswith(": not known: it is not") for reason in none.reasons), none.reasons
    assert (none.explained == ()) == (form not in _SHARES) or form == "except", none.explained  # up to 17 an Append
