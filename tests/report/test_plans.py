"""Plans read back from their text."""

from __future__ import annotations

from pytest_pilotscope.core.results import QueryReport, SubplanEstimate
from pytest_pilotscope.report.plans import compared, judged, nodes_of

HASHED = """\
Aggregate rows=1 cost=569.54
  Hash Join [c.userid = u.id] rows=175 cost=131.35
    Seq Scan comments c [score <= 18] rows=1706 cost=38.14
    Hash rows=393 cost=10.05
      Seq Scan users u rows=393 cost=10.05"""
LOOPED = """\
Aggregate rows=1 actual=1 loops=1 cost=371.27
  Nested Loop rows=175 actual=200 loops=1 cost=243.16
    Seq Scan users u rows=393 actual=400 loops=1 cost=10.05
    Index Scan comments c using idx_comments_userid [userid = u.id] [score <= 18] rows=3 actual=0.5 loops=400 cost=0.51"""
U, C = frozenset("u"), frozenset("c")


def test_every_line_is_a_node_that_knows_its_relations() -> None:
    """Depth, text, numbers and the aliases at and below each node."""
    nodes = nodes_of(HASHED)
    assert [(node.depth, node.operation) for node in nodes] == [
        (0, "Aggregate"),
        (1, "Hash Join"),
        (2, "Seq Scan comments c"),
        (2, "Hash"),
        (3, "Seq Scan users u"),
    ]
    assert [node.aliases for node in nodes] == [U | C, U | C, C, U, U]
    assert (nodes[2].text, nodes[2].rows, nodes[2].cost) == ("Seq Scan comments c [score <= 18]", 1706, 38.14)


def test_an_alias_is_found_behind_every_kind_of_scan() -> None:
    """With and without another name for the table, with an index, in parallel; an index scan below a bitmap scan has no relation."""
    plan = """\
Parallel Bitmap Heap Scan posts p [x = 1] rows=1 cost=1.00
  Bitmap Index Scan using i [x = 1] rows=1 cost=1.00
Index Only Scan votes using votes_pkey [id = 1] rows=1 cost=1.00
CTE Scan recent r_1 rows=1 cost=1.00"""
    assert [sorted(node.aliases) for node in nodes_of(plan)] == [["p"], [], ["votes"], ["r_1"]]


def test_a_line_break_within_a_condition_ends_no_node() -> None:
    """A constant may hold one."""
    nodes = nodes_of("Seq Scan users u [name = 'a\nb'] rows=7 cost=1.50\nSeq Scan posts p rows=1 cost=2.00")
    assert [(node.text, node.rows) for node in nodes] == [("Seq Scan users u [name = 'a\nb']", 7), ("Seq Scan posts p", 1)]


def test_counted_rows_are_the_truth() -> None:
    """Where the plan was run with counters, each node is judged by them; per execution, as they are shown."""
    nodes = judged(nodes_of(LOOPED), QueryReport(query_id="q", side="mscn"))
    assert [(node.rows, node.true_rows, node.q_error) for node in nodes] == [
        (1, 1, 1),
        (175, 200, 200 / 175),
        (393, 400, 400 / 393),
        (3, 0.5, 3),
    ]


def test_what_was_never_executed_is_not_judged() -> None:
    """The inner side of a join without outer rows yields nothing, and that says nothing about its estimate."""
    (node,) = judged(nodes_of("Seq Scan comments c rows=300 actual=0 loops=0 cost=0.51"), QueryReport(query_id="q", side="mscn"))
    assert (node.true_rows, node.q_error) == (None, None)


def test_known_cardinalities_are_the_truth_of_scans_and_joins() -> None:
    """A node is judged by the estimate for its relations and their true rows; aggregates and hash tables are none."""
    estimates = tuple(
        SubplanEstimate(aliases=aliases, estimated=estimated, true=true)
        for aliases, estimated, true in ((("c", "u"), 175.0, 350.0), (("c",), 1706.0, 1706.0))
    )
    nodes = judged(nodes_of(HASHED), QueryReport(query_id="q", side="mscn", estimates=estimates))
    assert [(node.estimated_rows, node.true_rows, node.q_error) for node in nodes] == [
        (None, None, None),
        (175, 350, 2),
        (1706, 1706, 1),
        (None, None, None),
        (None, None, None),
    ]


def test_what_the_other_plan_does_differently_is_marked() -> None:
    """The same relations by another method; what both do the same way is not marked, wherever it stands."""
    assert [node.difference for node in compared(nodes_of(LOOPED), nodes_of(HASHED))] == ["", "method", "", "method"]
    assert [node.difference for node in compared(nodes_of(HASHED), nodes_of(HASHED))] == [""] * 5


def test_relations_that_the_other_plan_never_joins_are_another_order() -> None:
    """(a b) c and a (b c) have the three together in common, and no two of them."""
    end = "rows=1 cost=1"
    joined, a, b, c = f"Hash Join {end}", f"Seq Scan a {end}", f"Seq Scan b {end}", f"Seq Scan c {end}"
    left = nodes_of(f"{joined}\n  {joined}\n    {a}\n    {b}\n  {c}")
    right = nodes_of(f"{joined}\n  {a}\n  {joined}\n    {b}\n    {c}")
    assert [node.difference for node in compared(left, right)] == ["", "order", "", "", ""]


def test_an_empty_plan_has_no_nodes() -> None:
    """Nothing recorded, nothing shown."""
    assert nodes_of("") == ()
