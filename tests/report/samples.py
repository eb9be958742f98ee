"""A record with everything that a page can show, and with texts that could break it."""

from __future__ import annotations

from dataclasses import replace

from pytest_pilotscope.record.record import Record
from pytest_pilotscope.record.results import PlanNode, QueryDecision, QueryReport, QueryRun, RunEnd, SubplanEstimate, TrainingReport
from tests.record.building import record_of
from tests.statistics.test_ranking import record_of_sides

HOSTILE = "<script>alert('&')</script>\"'"
"""A text that a page must show unchanged."""

USERS = PlanNode(operation="Seq Scan", relation="users", alias="u", rows=393, cost=10.05)
PLAN = PlanNode(
    operation="Aggregate",
    rows=1,
    cost=569.54,
    children=(
        PlanNode(
            operation="Hash Join",
            conditions=("c.userid = u.id",),
            rows=175,
            cost=131.35,
            children=(
                PlanNode(
                    operation="Seq Scan",
                    relation="comments",
                    alias="c",
                    conditions=("text <> '</td><script>x</script>'",),
                    rows=1706,
                    cost=38.14,
                ),
                PlanNode(operation="Hash", rows=393, cost=10.05, children=(USERS,)),
            ),
        ),
    ),
)
INNER = PlanNode(
    operation="Index Scan",
    relation="comments",
    alias="c",
    index="idx_comments_userid",
    conditions=("userid = u.id",),
    rows=3,
    cost=0.51,
)
OTHER_PLAN = PlanNode(
    operation="Aggregate",
    rows=1,
    cost=371.27,
    children=(PlanNode(operation="Nested Loop", rows=200, cost=243.16, children=(USERS, INNER)),),
)


def comparison() -> Record:
    """
    Return twenty queries on three sides: `fast` has training, estimates and other plans; `slow` is steered only in part on q1.

    q2 timed out on `slow`, and q3 failed there, with a message that is HTML.
    """
    record = record_of_sides(fast=0.5, slow=2.0)
    runs = tuple(_disturbed(record))
    queries = {**record.header.queries, "q4": f"SELECT count(*) FROM c, u WHERE c.text <> {HOSTILE!r}"}
    header = replace(record.header, queries=queries, settings={"work_mem": "64MB"}, server={"version": "18.4", "provider": "embedded"})
    training = TrainingReport(
        side="fast",
        duration_s=12.0,
        scalars={
            "validation_queries": 40,
            "validation_top1_accuracy": 0.75,
            "validation_regret": 0.08,
            "validation_own_regret": 0.2,
            "knob_importance_work_mem": 0.7,
            "knob_importance_geqo": 0.3,
            "knob_importance_jit": 0.0,
        },
        metrics={"train_loss": (300.0, 3.0, 1.5, float("inf")), "validation_$q_error": (2.0, 1.5), "one": (1.0,)},
    )
    end = RunEnd(status="FAILED", finished_at="2025-01-01T00:10:00+00:00", failures={"slow": HOSTILE})
    decision = QueryDecision(query_id="q1", side="fast", facts={"looked": True, "factor": 0.1, "join_size": None, "how": HOSTILE})
    return replace(record, header=header, runs=runs, reports=tuple(_reports()), decisions=(decision,), training=(training,), end=end)


def minimal() -> Record:
    """Return an interrupted run of one query in one round, without plans, training or estimates."""
    return replace(record_of({"baseline": {"only": [1.0]}, "mscn": {"only": [2.0]}}), end=None)


def large() -> Record:
    """Return 146 queries on three sides, with plans of eleven nodes that both sides change in half of the queries."""
    times = {f"q{i:03}": [20.0 + i, 20.1 + i, 19.9 + i] for i in range(146)}
    record = record_of(dict.fromkeys(("baseline", "oracle", "mscn"), times), algorithm="compare")
    sql = " AND ".join(f"t{i}.a_column = t{i + 1}.id AND t{i}.a_number >= 1000" for i in range(5))
    reports = tuple(
        QueryReport(query_id=name, side=side, plan=_deep(5, method), plan_shape=method, steered_ratio=None if side == "baseline" else 1.0)
        for number, name in enumerate(times)
        for side, changed in (("baseline", ""), ("oracle", "Hash"), ("mscn", "Merge"))
        for method in [changed if number % 2 else ""]
    )
    return replace(
        record, header=replace(record.header, queries=dict.fromkeys(times, f"SELECT count(*) FROM t WHERE {sql}")), reports=reports
    )


def _deep(joins: int, method: str) -> PlanNode:
    """Return a plan of so many joins; `method` is that of the joins, except for the last one."""
    conditions = ("(a_number >= 1000) AND (another_number <= 2000)",)
    scan = PlanNode(
        operation="Seq Scan",
        relation=f"table_{joins}",
        alias=f"t{joins}",
        conditions=conditions,
        rows=1234,
        cost=123.4,
        actual_rows=99,
        loops=1,
    )
    if not joins:
        return scan
    name = f"{method} Join".strip() if joins > 1 else "Nested Loop"
    children = (_deep(joins - 1, method), scan)
    condition = (f"t{joins}.id = t{joins - 1}.a_column",)
    return PlanNode(operation=name, conditions=condition, rows=12345, cost=1234.5, actual_rows=98765, loops=1, children=children)


def _disturbed(record: Record) -> list[QueryRun]:
    runs = []
    for run in record.runs:
        if (run.side, run.query_id) == ("slow", "q2"):
            runs.append(replace(run, timed_out=True))
        elif (run.side, run.query_id) == ("slow", "q3"):
            runs.append(replace(run, error=HOSTILE))
        else:
            runs.append(run)
    return runs


def _reports() -> list[QueryReport]:
    reports = []
    for i in range(20):
        estimates = tuple(
            SubplanEstimate(aliases=aliases, estimated=estimated, true=350.0 + i)
            for aliases, estimated in ((("c", "u"), 175.0), (("c",), 17060.0), (("u",), 393.0))
        )
        reports += [
            QueryReport(query_id=f"q{i}", side="baseline", plan=PLAN, plan_shape="a", plan_cost=569.54),
            QueryReport(
                query_id=f"q{i}",
                side="fast",
                plan=OTHER_PLAN if i % 2 else PLAN,
                plan_shape="b" if i % 2 else "a",
                estimates=estimates,
                p_error=1.5,
                steered_ratio=1.0,
            ),
        ]
    reason = f"Seq Scan c: injected 10 rows, the plan has 20 {HOSTILE}"
    return [*reports, QueryReport(query_id="q1", side="slow", plan=PLAN, plan_shape="a", steered_ratio=0.5, steering_reasons=(reason,))]
