"""The comparison of plans with hints: those of a server, with a library that obeys or cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.explain import Plan
from pytest_pilotscope.postgres.plan_hints import hints_of, verify_hints
from pytest_pilotscope.postgres.session import Session
from tests.conftest import LibraryOf

FOUR = "SELECT * FROM a JOIN b ON a.id = b.other JOIN c ON b.id = c.other JOIN a AS d ON c.id = d.other"
LEVELS = (
    "SELECT * FROM (SELECT a.id FROM a JOIN b ON a.id = b.id OFFSET 0) AS s "
    "JOIN (SELECT a.other FROM a JOIN b ON a.id = b.id OFFSET 0) AS r ON s.id = r.other"
)


@pytest.fixture(scope="module")
def tables(newest_server: EmbeddedServer, library_of: LibraryOf) -> Iterator[Session]:
    """Return a session with the library and three tables."""
    with newest_server.connect() as administrator:
        administrator.execute("CREATE DATABASE hinted")
        with newest_server.connect("hinted") as session:
            session.execute(f"LOAD '{library_of(newest_server)}'")
            for name in "abc":
                session.execute(f"CREATE TABLE {name} AS SELECT g AS id, g % 50 AS other FROM generate_series(1, 900) AS g")
                session.execute(f"CREATE INDEX ON {name} (id); CREATE INDEX ON {name} (other)")
            session.execute('CREATE TABLE "odd, name" AS TABLE a')
            session.execute("CREATE TABLE p (id int, other int) PARTITION BY HASH (id)")
            for number in range(2):
                session.execute(f"CREATE TABLE p_{number} PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER {number})")
            session.execute("INSERT INTO p TABLE a; ANALYZE")
            yield session
        administrator.execute("DROP DATABASE hinted WITH (FORCE)")


@dataclass(frozen=True, slots=True)
class _Hints:
    join_order: str | None = None
    methods: tuple[tuple[str, str], ...] = ()


def _hinted(session: Session, sql: str, hints: _Hints) -> Plan:
    with session.hints(join_order=hints.join_order, methods=dict(hints.methods)):
        return session.explain(sql)


@pytest.mark.parametrize(
    ("sql", "hints", "parts"),
    [
        (FOUR, _Hints("(((a b) c) d)"), 3),
        (FOUR, _Hints("(d (c (b a)))"), 3),
        (FOUR, _Hints("((a b c) d)"), 2),
        (FOUR, _Hints("(d (b c))"), 2),
        (FOUR, _Hints("(a b) (d c)"), 2),
        (FOUR, _Hints("((a b c) d)", (("a b c d", "mergejoin"), ("d", "seqscan"))), 4),
        (FOUR, _Hints("((a b) (c d))", (("a b", "nestloop"), ("c d", "hashjoin"), ("b", "bitmapscan"))), 6),
        (LEVELS, _Hints("1:(a b) 2:(b a)", (("1:a b", "mergejoin"), ("2:b a", "hashjoin"))), 4),
        (LEVELS, _Hints("(a b)", (("a b", "hashjoin"), ("r s", "mergejoin"))), 2),
        ('SELECT * FROM a JOIN "odd, name" ON a.id = "odd, name".id', _Hints('("odd, name" a)', (('a "odd, name"', "hashjoin"),)), 2),
        ("SELECT * FROM p JOIN a ON p.id = a.id", _Hints("(p a)", (("p a", "hashjoin"), ("p", "seqscan"))), 3),
        ("SELECT * FROM a LEFT JOIN b ON a.id = b.other", _Hints("(b a)", (("a b", "hashjoin"),)), 2),
        ("SELECT (SELECT max(id) FROM c), * FROM a JOIN b USING (id)", _Hints("(b a)", (("c", "seqscan"),)), 2),
    ],
)
def test_hints_that_are_obeyed_are_followed(tables: Session, sql: str, hints: _Hints, parts: int) -> None:
    """Each join of a tree, with its outer side, and each method is found in the plan: in every level, in partitions, in any order."""
    plan = _hinted(tables, sql, hints)
    for aliases in ((), frozenset().union(*tables.subplans(sql))):
        adherence = verify_hints(plan, hints.join_order, dict(hints.methods), aliases=aliases)
        assert (adherence.reasons, adherence.compared, adherence.steered_ratio) == ((), parts, 1.0), plan


def test_an_alias_that_looks_numbered_is_another_relation(tables: Session) -> None:
    """`a_1` is EXPLAIN's name of a second `a`, unless the statement has it: each of the two has a method of its own."""
    sql = "SELECT * FROM a JOIN a AS a_1 ON a.id = a_1.other JOIN b ON a.id = b.id JOIN b AS b_1 ON a_1.id = b_1.id"
    hints = _Hints("((a b) (a_1 b_1))", (("a b", "hashjoin"), ("a_1 b_1", "mergejoin"), ("a", "seqscan"), ("a_1", "indexscan")))
    plan = _hinted(tables, sql, hints)
    adherence = verify_hints(plan, hints.join_order, dict(hints.methods), aliases=("a", "a_1", "b", "b_1"))
    assert (adherence.reasons, adherence.compared) == ((), 7), plan
    swapped = {"1:a b": "mergejoin", "1:a": "indexscan"}  # of the other two, which a hint for one level must not be followed by
    adherence = verify_hints(plan, None, swapped, aliases=("a", "a_1", "b", "b_1"))
    assert adherence.reasons == ("Hash Join a b: mergejoin was decided", "Seq Scan a: indexscan was decided")


def test_what_was_not_obeyed_has_a_line(tables: Session) -> None:
    """A plan is held against hints that it was not made with: another order, another outer side, another method, another scan."""
    plan = _hinted(tables, FOUR, _Hints("(((a b) c) d)", (("a b", "hashjoin"), ("a", "seqscan"))))
    adherence = verify_hints(plan, "((d c) (b a))", {"a b": "mergejoin", "a": "bitmapscan", "a d": "hashjoin", "b c a": "tidscan"})
    assert adherence.reasons[:4] == (
        "join of c d: the plan has no join of exactly these",
        "Hash Join a b: b was decided to be the outer side",
        next(reason for reason in adherence.reasons if reason.endswith("c d was decided to be the outer side")),
        "Hash Join a b: mergejoin was decided",
    )
    assert adherence.reasons[4:6] == ("Seq Scan a: bitmapscan was decided", "hashjoin of a d: the plan has no join of exactly these")
    assert (adherence.compared, adherence.steered_ratio) == (7, 0.0)


def test_a_relation_that_explain_does_not_name_is_explained(tables: Session) -> None:
    """A subquery that needs no node of its own is not in the plan."""
    sql = "SELECT * FROM a JOIN (SELECT id FROM b LIMIT 5) AS s ON a.id = s.id"
    plan = _hinted(tables, sql, _Hints("(s a)"))
    adherence = verify_hints(plan, "(s a)", {})
    assert (adherence.compared, adherence.explained) in (
        (0, ("join of a s: EXPLAIN does not name s",)),
        (1, ()),  # it has a node
    )


def test_the_hints_of_a_plan_are_followed_by_it(tables: Session) -> None:
    """Whatever plan PostgreSQL makes, its own tree and methods are found in it."""
    for sql in (FOUR, "SELECT * FROM a JOIN b USING (id) WHERE a.id < 7"):
        plan = tables.explain(sql)
        adherence = verify_hints(plan, *hints_of(plan))
        assert adherence.steered_ratio == 1
        assert adherence.compared >= 4
