"""Made-up plans, times and collected queries, for tests of lero that need no server."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from pytest_pilotscope.algorithms.lero.candidates import Attempt, Slot
from pytest_pilotscope.algorithms.lero.collected import CollectedQuery
from pytest_pilotscope.algorithms.plans.timed import sql_key
from pytest_pilotscope.algorithms.plans.timing import Outcome
from pytest_pilotscope.postgres.planning import RawPlan

TABLES = ("comments", "posts", "users", "votes")
SUBPLANS = {
    frozenset({"u"}): 100.0,
    frozenset({"p"}): 1000.0,
    frozenset({"c"}): 5000.0,
    frozenset({"u", "p"}): 300.0,
    frozenset({"p", "c"}): 7000.0,
    frozenset({"u", "c"}): 900.0,
    frozenset({"u", "p", "c"}): 2500.0,
}
OF_ALIAS = {"u": "users", "p": "posts", "c": "comments"}


def node(name: str, *children: RawPlan, rows: float = 1.0, width: int = 8, **more: Any) -> RawPlan:
    """One node as EXPLAIN's JSON has it; the names of `more` with blanks for underscores."""
    raw: RawPlan = {"Node Type": name, "Parallel Aware": False, "Plan Rows": rows, "Plan Width": width, "Total Cost": rows}
    raw |= {key.replace("_", " ").title(): value for key, value in more.items()}
    if children:
        raw["Plans"] = list(children)
    return raw


def scan(alias: str, name: str = "Seq Scan", **more: Any) -> RawPlan:
    """A scan of a relation with PostgreSQL's own rows."""
    return node(name, rows=SUBPLANS[frozenset({alias})], relation_name=OF_ALIAS[alias], alias=alias, **more)


def join(name: str, outer: RawPlan, inner: RawPlan, *, rows: float) -> RawPlan:
    """A join; a hash join hashes its inner side."""
    if name == "Hash Join":
        inner = node("Hash", inner, rows=inner["Plan Rows"])
    return node(name, outer, inner, rows=rows, join_type="Inner")


def plans() -> list[RawPlan]:
    """Four plans of the join of u, p and c under an aggregate; in each the join of two relations has been given 3 rows."""
    made = []
    for first, second, third in (("u", "p", "c"), ("p", "c", "u")):
        for name in ("Hash Join", "Nested Loop"):
            below = join(name, scan(first), scan(second), rows=3.0)
            made.append(node("Aggregate", join("Hash Join", below, scan(third), rows=2500.0), strategy="Plain"))
    return made


def random_plans(count: int, *, seed: int = 0) -> list[RawPlan]:
    """Distinct left-deep joins of u, p and c with random operators and widths."""
    drawn = Random(seed)  # noqa: S311  # test data
    made = []
    for _ in range(count):
        aliases = drawn.sample(sorted(OF_ALIAS), 3)
        scans = [scan(alias, drawn.choice(("Seq Scan", "Index Scan")), plan_width=drawn.randrange(4, 100)) for alias in aliases]
        below = join(drawn.choice(("Hash Join", "Nested Loop", "Merge Join")), scans[0], scans[1], rows=5.0)
        made.append(join(drawn.choice(("Hash Join", "Nested Loop")), below, scans[2], rows=2500.0))
    return made


def outcome(*times_ms: float, more_than_ms: float | None = None) -> Outcome:
    """Times of a plan, or the limit that cut it off."""
    return Outcome(warm_up_ms=times_ms[0] if times_ms else None, times_ms=times_ms, censored_ms=more_than_ms)


def collected_query(
    outcomes: Sequence[Outcome], *, name: str = "t1", signature: str = "c.postid=p.id", look_ms: float = 1.0, call_ms: float = 1.0
) -> CollectedQuery:
    """A query whose plans after the first were found by one slot each: factors 10, 100, 1000, ... for joins of two."""
    slots = [Slot(10.0**number, 2) for number in range(1, len(outcomes))]
    return CollectedQuery(
        query_id=name,
        sql_key=sql_key(name),
        signature=signature,
        subplans=SUBPLANS,
        look_ms=look_ms,
        attempts=tuple(Attempt(slot=slot, plan=plan, elapsed_ms=call_ms) for plan, slot in enumerate(slots, start=1)),
        plans=tuple(random_plans(len(outcomes), seed=len(name))),
        slots=(None, *slots),
        outcomes=tuple(outcomes),
    )
