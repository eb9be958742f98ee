"""A record that 0.1.0 wrote, in which plans are text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_pilotscope.record.format1 import with_tree
from pytest_pilotscope.record.json_values import from_json
from pytest_pilotscope.record.record import Record, read_record
from pytest_pilotscope.record.results import PlanNode
from pytest_pilotscope.report.page import page
from pytest_pilotscope.statistics.summary import summarize

OLD_RECORD = Path(__file__).parent / "record_0.1.0.jsonl"
"""The record that `pytest benchmarks --algo oracle` wrote; the plans of its third query have counted rows and a line break."""


@pytest.fixture(scope="module")
def old() -> Record:
    """Return the record of 0.1.0."""
    return read_record(OLD_RECORD)


def plan_of(text: str) -> PlanNode:
    """Return the tree of a plan's text."""
    return from_json(PlanNode, with_tree({"plan": text})["plan"])


def test_a_record_of_0_1_0_is_read_whole(old: Record) -> None:
    """The reader keeps every line and every figure."""
    lines = [json.loads(line) for line in OLD_RECORD.read_text(encoding="utf-8").splitlines()]
    assert (lines[0]["format"], lines[0]["suite_version"]) == (1, "0.1.0")
    assert len(lines) == 2 + len(old.runs) + len(old.reports) + len(old.training)
    assert (old.status, old.truncated, old.ignored) == ("FINISHED", False, {})
    assert summarize(old).sides["oracle"].query_count == 3


def test_its_plans_say_what_their_text_said(old: Record) -> None:
    """Written as text again, node by node, each plan equals the text in the file."""
    texts = [line["plan"] for line in map(json.loads, OLD_RECORD.read_text(encoding="utf-8").splitlines()) if "plan" in line]
    assert [_text(report.plan) for report in old.reports if report.plan] == texts


def test_its_plans_know_their_relations_and_counted_rows(old: Record) -> None:
    """The tree, the aliases, the names of subplans and what was counted."""
    plan = old.reports[-1].plan
    assert plan is not None
    assert [(depth, node.subplan, node.operation, node.alias, node.actual_rows) for depth, node in plan.nodes()] == [
        (0, None, "Aggregate", None, 1),
        (1, "CTE best", "Seq Scan", "users_1", 135),
        (2, "InitPlan 1", "Aggregate", None, 1),
        (3, None, "Seq Scan", "users", 403),
        (1, None, "Hash Join", None, 62),
        (2, None, "Index Scan", "posts", 78),
        (2, None, "Hash", None, 135),
        (3, None, "CTE Scan", "best", 135),
    ]
    assert plan.children[0].relation == "users"
    assert plan.children[1].conditions == ("posts.owneruserid = best.id", "random() < '2'::double precision")
    assert plan.children[1].children[0].index == "posts_pkey"


def test_it_is_reported(old: Record) -> None:
    """The page shows its plans."""
    text = page([old])
    assert "Hash Join [c.userid = u.id]" in text
    assert "CTE best: Seq Scan users users_1 [((reputation)::numeric &gt; (InitPlan 1).col1)" in text


def test_an_alias_is_found_behind_every_kind_of_scan() -> None:
    """Scans are read with and without an alias, with an index, and in parallel; an index scan below a bitmap scan has no relation."""
    plan = plan_of(
        "Append rows=1 cost=1.00\n"
        "  Parallel Bitmap Heap Scan posts p [x = 1] rows=1 cost=1.00\n"
        "    Bitmap Index Scan using i [x = 1] rows=1 cost=1.00\n"
        "  Index Only Scan votes using votes_pkey [id = 1] rows=1 cost=1.00\n"
        "  CTE Scan recent r_1 rows=1 cost=1.00"
    )
    assert [node.alias for _, node in plan.nodes()] == [None, "p", None, "votes", "r_1"]


def test_a_text_that_is_no_plan_is_refused() -> None:
    """The reader rejects a text that is not a plan, like any other wrong value."""
    with pytest.raises(ValueError, match=r"^field 'plan' must be the text of a plan, found 'Hash Join\\n  Seq Scan users'$"):
        with_tree({"plan": "Hash Join\n  Seq Scan users"})


def _text(plan: PlanNode) -> str:
    """Return a plan as 0.1.0 wrote it."""
    return "\n".join("  " * depth + _line(node) for depth, node in plan.nodes())


def _line(node: PlanNode) -> str:
    counted = "" if node.actual_rows is None else f" actual={node.actual_rows:g} loops={node.loops:.0f}"
    return f"{node.text} rows={node.rows:.0f}{counted} cost={node.cost:.2f}"
