"""Hints are obeyed: join trees with directions, join methods, scan methods."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from pytest_pilotscope.postgres.explain import Plan
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import JoinQuery

from .corpora import Corpus, chance, text_plan

Tree = str | tuple["Tree", "Tree"]

_NODE_OF = {"nestloop": "Nested Loop", "hashjoin": "Hash Join", "mergejoin": "Merge Join"}


def _aliases(tree: Tree) -> frozenset[str]:
    return frozenset({tree}) if isinstance(tree, str) else _aliases(tree[0]) | _aliases(tree[1])


def _text(tree: Tree) -> str:
    return tree if isinstance(tree, str) else f"({_text(tree[0])} {_text(tree[1])})"


def _inner_nodes(tree: Tree) -> list[frozenset[str]]:
    return [] if isinstance(tree, str) else [_aliases(tree), *_inner_nodes(tree[0]), *_inner_nodes(tree[1])]


def _random_tree(query: JoinQuery, dice: random.Random) -> Tree:
    """Return a tree of all relations in which every join has a condition."""
    parts: list[Tree] = list(query.aliases)
    connected = set(query.subplans())
    while len(parts) > 1:
        left, right = dice.sample(parts, 2)
        if _aliases(left) | _aliases(right) in connected:
            parts = [part for part in parts if part is not left and part is not right] + [(left, right)]
    return parts[0]


def _tree_of(plan: Plan) -> Tree:
    """Return the join tree of a plan, outer sides first."""
    if plan.is_join:
        return (_tree_of(plan.children[0]), _tree_of(plan.children[1]))
    return plan.alias if plan.alias is not None else _tree_of(plan.children[0])


def _key(aliases: frozenset[str]) -> str:
    return " ".join(sorted(aliases))


def _methods_of(plan: Plan) -> dict[str, str]:
    return {_key(node.aliases): node.node_type for node in plan.nodes() if node.is_join}


def _parsed(corpus: Corpus, mode: str = "serial") -> list[JoinQuery]:
    levels = (read_meaning(corpus.steered, query.sql).outermost for query in corpus.queries_for(mode))
    return [level.query for level in levels if level is not None and 1 < len(level.query.aliases) <= 9]


def test_trees_are_obeyed(corpus: Corpus, mode: str) -> None:
    """The plan has exactly the tree that was hinted, both directions of every join included, also under GEQO and in parallel."""
    for number, query in enumerate(_parsed(corpus, mode)[::2]):
        tree = _random_tree(query, chance(number))
        with corpus.steered.hints(join_order=_text(tree)):
            plan = corpus.steered.explain(query.sql)
        assert _tree_of(plan) == tree, (mode, query.sql)
    assert corpus.steered.take_notices() == []


def test_partial_trees_are_obeyed(corpus: Corpus) -> None:
    """A tree of some of the relations is a part of the plan's tree."""
    for number, query in enumerate(_parsed(corpus)[::5]):
        tree = _random_tree(query, chance(number))
        part = next(part for part in (tree[0], tree[1], tree) if not isinstance(part, str))
        with corpus.steered.hints(join_order=_text(part)):
            found = _tree_of(corpus.steered.explain(query.sql))
        assert _text(part) in _text(found), query.sql


def _group(query: JoinQuery, dice: random.Random) -> list[str]:
    """Return three or more connected relations, in any order."""
    group = sorted(dice.choice([subplan for subplan in query.subplans() if len(subplan) > 2]))
    dice.shuffle(group)
    return group


def test_groups_are_joined_first_in_any_order(corpus: Corpus, mode: str) -> None:
    """The relations of a group are joined with each other before any other relation, in the order of the lowest cost."""
    for number, query in enumerate(query for query in _parsed(corpus, mode)[::3] if len(query.aliases) > 2):
        group = _group(query, chance(number))
        others = [alias for alias in query.aliases if frozenset([*group, alias]) in query.subplans() and alias not in group]
        tree = f"(({' '.join(group)}) {others[0]})" if others else f"({' '.join(group)})"
        with corpus.steered.hints(join_order=tree):
            plan = corpus.steered.explain(query.sql)
        joins = {node.aliases: node for node in plan.nodes() if node.is_join}
        assert frozenset(group) in joins, (mode, tree, query.sql)
        if others:
            sides = [child.aliases for child in joins[frozenset([*group, others[0]])].children]
            assert sides == [frozenset(group), frozenset(others[:1])], (mode, tree, query.sql)
    assert corpus.steered.take_notices() == []


def test_a_group_of_all_relations_decides_nothing(corpus: Corpus) -> None:
    """The planner is as free as without it: its plan costs the same."""
    for query in _parsed(corpus)[::4]:
        own = corpus.steered.explain(query.sql)
        with corpus.steered.hints(join_order=f"({' '.join(sorted(query.aliases))})" if len(query.aliases) > 2 else None):
            assert corpus.steered.explain(query.sql).total_cost == pytest.approx(own.total_cost, rel=1e-6), query.sql


@pytest.mark.parametrize("with_tree", [True, False])
def test_methods_are_obeyed(corpus: Corpus, with_tree: bool) -> None:
    """Every join with a hinted method has it, both in a given tree and where the planner orders the joins."""
    for number, query in enumerate(_parsed(corpus)[::3]):
        dice = chance(number)
        tree = _random_tree(query, dice)
        hinted = _inner_nodes(tree) if with_tree else [subplan for subplan in query.subplans() if len(subplan) > 1]
        methods = {_key(subplan): dice.choice(sorted(_NODE_OF)) for subplan in hinted}
        with corpus.steered.hints(join_order=_text(tree) if with_tree else None, methods=methods):
            found = _methods_of(corpus.steered.explain(query.sql))
        disobeyed = {key: (node, methods[key]) for key, node in found.items() if _NODE_OF[methods[key]] != node}
        assert disobeyed == {}, query.sql


def test_hints_and_rows_together(corpus: Corpus) -> None:
    """A hinted tree carries injected rows like any other plan."""
    for number, query in enumerate(_parsed(corpus)[::7]):
        tree = _random_tree(query, chance(number))
        rows = {subplan: float(1000 + place) for place, subplan in enumerate(_inner_nodes(tree))}
        with (
            corpus.steered.hints(join_order=_text(tree), methods=dict.fromkeys(map(_key, rows), "hashjoin")),
            corpus.steered.cardinalities(rows),
        ):
            plan = corpus.steered.explain(query.sql)
        assert {node.aliases: node.rows for node in plan.nodes() if node.is_join} == rows, query.sql


@pytest.fixture
def tables(steered: Session) -> Session:
    """Three tables with indexes."""
    for name in "abc":
        steered.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, other int, pad text)")
        steered.execute(f"INSERT INTO {name} SELECT g, g % 50, repeat('x', 50) FROM generate_series(1, 2000) AS g")
        steered.execute(f"CREATE INDEX ON {name} (other)")
    steered.execute("VACUUM ANALYZE")
    return steered


@pytest.mark.parametrize(
    ("method", "node_type", "sql"),
    [
        ("seqscan", "Seq Scan", "SELECT * FROM a WHERE id = 5"),
        ("indexscan", "Index Scan", "SELECT * FROM a WHERE other < 40"),
        ("bitmapscan", "Bitmap Heap Scan", "SELECT * FROM a WHERE id = 5"),
        ("indexonlyscan", "Index Only Scan", "SELECT id FROM a WHERE id < 1900"),
        ("indexscan", "Index Scan", "SELECT id FROM a WHERE id = 7"),
        ("seqscan", "Seq Scan", "SELECT * FROM a WHERE ctid = '(0,1)'"),
        ("tidscan", "Tid Scan", "SELECT * FROM a WHERE ctid = '(0,1)'"),
    ],
)
def test_scan_methods_are_obeyed(tables: Session, method: str, node_type: str, sql: str) -> None:
    """A relation is scanned the hinted way, and as before when the hint is gone."""
    before = text_plan(tables, sql)
    with tables.hints(methods={"a": method}):
        assert tables.explain(sql).node_type == node_type
    assert text_plan(tables, sql) == before


def test_impossible_method_leaves_a_plan(tables: Session) -> None:
    """A method that cannot be had, here a hash join without an equality, leaves what can."""
    with tables.hints(methods={"a b": "hashjoin", "a": "tidscan"}):
        assert tables.execute("SELECT count(*) FROM a JOIN b ON a.id < b.id WHERE a.id < 3 AND b.id < 4") == [(3,)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM a LEFT JOIN (b JOIN c ON b.id = c.id) ON a.id = b.id",
        "SELECT * FROM a WHERE NOT EXISTS (SELECT FROM b JOIN c ON b.id = c.id WHERE b.other = a.id)",
    ],
)
def test_illegal_tree_is_ignored_with_a_warning(tables: Session, sql: str) -> None:
    """An order that outer joins forbid is a WARNING, and the plan is the planner's own."""
    stock = text_plan(tables, sql)
    with tables.hints(join_order="((a c) b)"):
        assert text_plan(tables, sql) == stock
    assert tables.take_notices() == ["WARNING:  pilotscope.join_order: a tree is not a legal join order here and was ignored"]


@pytest.mark.parametrize("threshold", [2, 12])
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM a LEFT JOIN (b JOIN c ON b.id = c.id) ON a.id = b.id JOIN a AS d ON a.id = d.other",
        "SELECT * FROM a JOIN a AS d ON a.id = d.other WHERE NOT EXISTS (SELECT FROM b JOIN c ON b.id = c.id WHERE b.other = a.id)",
        "SELECT * FROM a JOIN a AS d ON a.id = d.other LEFT JOIN LATERAL (SELECT b.id FROM b JOIN c ON b.id = a.other + c.id) AS s ON true",
    ],
)
def test_an_illegal_group_is_ignored_with_a_warning(tables: Session, sql: str, threshold: int) -> None:
    """The search for the order of a group finds none where outer joins forbid all: a WARNING, and the plan is the planner's own."""
    tables.execute(f"SET geqo_threshold = {threshold}")
    stock = text_plan(tables, sql)
    with tables.hints(join_order="(a d c)"):
        found = text_plan(tables, sql)
        tables.subplans(sql)
    assert (found, set(tables.take_notices())) == (
        stock,
        {"WARNING:  pilotscope.join_order: a tree is not a legal join order here and was ignored"},
    )
    assert text_plan(tables, sql) == stock


def test_any_group_of_outer_joins_leaves_a_plan(tables: Session) -> None:
    """Whichever relations are grouped, the statement is planned and answers the same: by that order, or by the planner's own."""
    sql = (
        "SELECT count(*), sum(c.id), sum(e.id) FROM a LEFT JOIN b ON a.id = b.other AND b.id < 500 JOIN c ON c.id = a.other "
        "LEFT JOIN (a AS d JOIN b AS e ON d.id = e.other) ON d.id = c.other "
        "WHERE a.id < 90 AND EXISTS (SELECT FROM c AS f WHERE f.id = a.id)"
    )
    answer = tables.execute(sql)
    used = 0
    for size in (3, 4, 5):
        for group in combinations("abcdef", size):
            with tables.hints(join_order=f"({' '.join(group)})"):
                plan = tables.explain(sql)
                assert tables.execute(sql) == answer
            warnings = set(tables.take_notices())
            assert warnings <= {"WARNING:  pilotscope.join_order: a tree is not a legal join order here and was ignored"}
            assert warnings or frozenset(group) in {node.aliases for node in plan.nodes() if node.is_join}, group
            used += not warnings
    assert 0 < used < 41


@pytest.mark.parametrize(
    ("trees", "absent"),
    [
        ("(a z)", ', which has no "z"'),
        ("((y a) z)", ', which has no "y", "z"'),
        ("7:(a b)", ', which has no "a", "b" at level 7'),
        ("(a a#2)", ', which has no "a#2"'),
    ],
)
def test_misfit_tree_is_ignored_with_a_warning(tables: Session, trees: str, absent: str) -> None:
    """A tree of aliases that the statement does not have is a WARNING, which names them."""
    sql = "SELECT * FROM a JOIN b ON a.id = b.id"
    stock = text_plan(tables, sql)
    with tables.hints(join_order=trees):
        assert text_plan(tables, sql) == stock
    assert tables.take_notices() == [
        f"WARNING:  pilotscope.join_order: tree 1 of 1 was not used: it does not fit the relations of this statement{absent}"
    ]


def test_outer_joins_can_be_turned_round(tables: Session) -> None:
    """The outer side of a LEFT JOIN can be hinted to be the inner side of the plan's RIGHT JOIN."""
    sql = "SELECT * FROM a LEFT JOIN b ON a.id = b.other"
    for tree, join_type in (("(a b)", "Left"), ("(b a)", "Right")):
        with tables.hints(join_order=tree, methods={"a b": "hashjoin"}):
            plan = tables.explain(sql)
        assert (plan.join_type, _text(_tree_of(plan))) == (join_type, tree)


def test_levels_are_addressed(tables: Session) -> None:
    """A tree with a level is for that query level; another level with the same aliases is free."""
    sql = (
        "SELECT * FROM (SELECT a.id, count(*) FROM a JOIN b ON a.id = b.id GROUP BY a.id OFFSET 0) AS s "
        "JOIN (SELECT a.other, count(*) FROM a JOIN b ON a.id = b.id GROUP BY a.other OFFSET 0) AS r ON s.id = r.other"
    )
    with tables.hints(join_order="1:(a b) 2:(b a)", methods={"1:a b": "mergejoin", "2:a b": "hashjoin"}):
        plan = tables.explain(sql)
    found = [(node.node_type, tuple(_aliases(_tree_of(child)) for child in node.children)) for node in plan.nodes() if node.is_join]
    inner = [kind for kind, sides in found if len(sides[0] | sides[1]) == 2 and not sides[0] & {"s", "r"}]
    assert sorted(inner) == ["Hash Join", "Merge Join"]
