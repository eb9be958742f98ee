"""Hints of pg_hint_plan that fix a plan: the order and the methods of its joins, the methods of its scans, and the rows of its joins."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pytest_pilotscope.queries.predicates import quote_text
from pytest_pilotscope.record.results import PlanNode

MEMOIZE_SINCE = 140000
"""The first version_num of PostgreSQL whose pg_hint_plan knows Memoize; an unknown hint makes it ignore those that follow."""

_JOIN = re.compile(r"(?:Parallel )?(?:(Nested Loop)(?: [A-Z].* Join)?|(Merge|Hash)(?: [A-Z].*)? Join)")
_JOINS = {"Nested Loop": "NestLoop", "Merge": "MergeJoin", "Hash": "HashJoin"}
_SCANS = {
    "Seq Scan": "SeqScan",
    "Index Scan": "IndexScan",
    "Index Only Scan": "IndexOnlyScan",
    "Bitmap Heap Scan": "BitmapScan",
    "Tid Scan": "TidScan",
    "Tid Range Scan": "TidRangeScan",
}
_WITHIN_A_LEVEL = frozenset({"Sort", "Incremental Sort", "Materialize", "Memoize", "Hash", "Gather", "Gather Merge"})
"""Nodes below a join that do not begin another level of the query."""

_EXECUTED = (
    "effective_io_concurrency",
    "hash_mem_multiplier",
    "io_combine_limit",
    "maintenance_io_concurrency",
    "max_parallel_workers",
    "parallel_leader_participation",
    "temp_buffers",
    "work_mem",
)
"""The settings a decision may have that PostgreSQL reads again while it executes a plan."""

_BARE = re.compile(r"[a-z_][a-z0-9_]*")


class NoHints(Exception):
    """No hints can fix a plan; the message is the reason."""


def settings_hints(settings: Mapping[str, str]) -> tuple[str, ...]:
    """Return the hints that plan a statement with these settings; pg_hint_plan puts them back when it is planned."""
    return tuple(f"Set({name} {_quoted(value)})" for name, value in settings.items())


def executed_settings(settings: Mapping[str, str]) -> str:
    """Return the statement that sets those of these settings that `Set` does not bring to the execution; empty if there are none."""
    return " ".join(f"SET LOCAL {name} = {quote_text(value)};" for name, value in settings.items() if name in _EXECUTED)


def hints_of(plan: PlanNode, sql: str, *, version_num: int) -> tuple[str, ...]:
    """
    Return the hints that make PostgreSQL choose this plan for a statement.

    Raise `NoHints` if pg_hint_plan has no name for a relation of the plan, or if the plan does not show which relations a subquery has.
    """
    found = _Hints(memoize=version_num >= MEMOIZE_SINCE)
    found.level(plan)
    names = _names(sql)
    for alias in found.aliases:
        if names[alias] != 1:
            known = "names several relations" if names[alias] else "is not in the statement"
            raise NoHints(f"the alias {alias} {known}, and hints go by alias")
    hints = (*found.orders, *found.joins, *found.scans, *found.rows)
    if any("*/" in hint or "/*" in hint for hint in hints):
        raise NoHints("a name has the sign of a comment in it")
    return hints


@dataclass(slots=True, kw_only=True)
class _Hints:
    """The hints found so far, by kind, and the aliases in them."""

    memoize: bool
    orders: list[str] = field(default_factory=list)
    joins: list[str] = field(default_factory=list)
    scans: list[str] = field(default_factory=list)
    rows: list[str] = field(default_factory=list)
    aliases: list[str] = field(default_factory=list)

    def level(self, node: PlanNode) -> None:
        """Read the joins of the query level that this node ends, and the levels below it."""
        if node.alias is None and _JOIN.fullmatch(node.operation) is None:
            for child in node.children:
                self.level(child)
            return
        tree, names = self._tree(node, total=True)
        if len(names) > 1:
            self.orders.append(f"Leading({tree})")

    def _tree(self, node: PlanNode, *, total: bool) -> tuple[str, tuple[str, ...]]:
        """Return the join tree of a node and its relations. Its rows are `total` unless it runs in workers, or once for each row."""
        for child in node.children:
            if child.subplan is not None:
                self.level(child)
        inputs = [child for child in node.children if child.subplan is None]
        if node.alias is not None:
            return self._scan(node, inputs)
        method = _JOIN.fullmatch(node.operation)
        if method is not None and len(inputs) == 2:
            return self._join(node, inputs, next(filter(None, method.groups())), total=total)
        if len(inputs) != 1 or node.operation.removeprefix("Parallel ") not in _WITHIN_A_LEVEL:
            raise NoHints(f"its plan has the node {node.operation} below a join, which hides the names of the relations there")
        return self._tree(inputs[0], total=total and not node.operation.startswith("Gather"))

    def _join(self, node: PlanNode, inputs: list[PlanNode], method: str, *, total: bool) -> tuple[str, tuple[str, ...]]:
        outer, inner = inputs
        outer_tree, outer_names = self._tree(outer, total=total)
        inner_tree, inner_names = self._tree(inner, total=total and method != "Nested Loop")
        names = (*outer_names, *inner_names)
        self.joins.append(f"{_JOINS[method]}({' '.join(names)})")
        if self.memoize and inner.operation == "Memoize":
            self.joins.append(f"Memoize({' '.join(names)})")
        if total:
            self.rows.append(f"Rows({' '.join(names)} #{max(1, round(node.rows))})")
        return f"({outer_tree} {inner_tree})", names

    def _scan(self, node: PlanNode, inputs: list[PlanNode]) -> tuple[str, tuple[str, ...]]:
        alias = str(node.alias)
        self.aliases.append(alias)
        method = _SCANS.get(node.operation.removeprefix("Parallel "))
        if method is not None:
            self.scans.append(f"{method}({' '.join((_quoted(alias), *map(_quoted, dict.fromkeys(_indexes(node)))))})")
        else:
            for child in inputs:  # of a subquery
                self.level(child)
        return _quoted(alias), (_quoted(alias),)


def _indexes(node: PlanNode) -> Iterator[str]:
    """Yield the indexes of a scan: its own, or those of its bitmaps."""
    for _, part in node.nodes():
        if part.index is not None and part.subplan is None:
            yield part.index


def _quoted(name: str) -> str:
    """Return a name as pg_hint_plan reads it, which compares names letter by letter."""
    return name if _BARE.fullmatch(name) else '"' + name.replace('"', '""') + '"'


def _names(sql: str) -> Counter[str]:
    """Count the names of the relations in all FROM clauses of a statement; raise `NoHints` if it cannot be read."""
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        tree = sqlglot.parse_one(sql, read="postgres")
    except (SqlglotError, RecursionError) as error:
        raise NoHints("the statement cannot be read for its aliases") from error
    found: Counter[str] = Counter()
    for item in tree.find_all(exp.Table, exp.Subquery, exp.Lateral, exp.Unnest, exp.Values):
        alias = item.args.get("alias")
        name = alias.this if alias is not None else item.this if isinstance(item, exp.Table) else None
        if isinstance(name, exp.Identifier):
            found[name.this if name.args.get("quoted") else name.this.lower()] += 1
    return found
