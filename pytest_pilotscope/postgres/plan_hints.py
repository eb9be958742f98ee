"""Read the join order and the methods of a plan, and compare them with hints."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pytest_pilotscope.postgres.adherence import Adherence, Tally
from pytest_pilotscope.postgres.explain import Plan
from pytest_pilotscope.postgres.scans import RelationNode, is_named, level_relations, relation_nodes, stems
from pytest_pilotscope.postgres.subplans import alias_text, key_text

JOIN_METHODS = {"Nested Loop": "nestloop", "Merge Join": "mergejoin", "Hash Join": "hashjoin"}
SCAN_METHODS = {
    "Seq Scan": "seqscan",
    "Index Scan": "indexscan",
    "Index Only Scan": "indexonlyscan",
    "Bitmap Heap Scan": "bitmapscan",
    "Tid Scan": "tidscan",
    "Tid Range Scan": "tidscan",
}
_METHODS = JOIN_METHODS | SCAN_METHODS
_ALIAS = re.compile(r'"(?:[^"]|"")+"|[^\s",:|()]+')
_TOKEN = re.compile(rf"[()]|{_ALIAS.pattern}")
_UNUSED = re.compile(r"pilotscope\.join_order: tree (\d+) of \d+ was not used")
_LEVEL = re.compile(r"\s*\d+\s*:")


def hints_of(plan: Plan) -> tuple[str | None, dict[str, str]]:
    """Return the hints for a plan's join order and methods: a tree with the outer side first, and methods by aliases."""
    methods: dict[str, str] = {}
    tree = _tree(plan, methods)
    return (tree if tree is not None and tree.startswith("(") else None), methods


def _tree(node: Plan, methods: dict[str, str]) -> str | None:
    """Describe the joins of a subtree, collecting its methods."""
    if node.alias is not None:
        if node.node_type in SCAN_METHODS:
            methods[alias_text(node.alias)] = SCAN_METHODS[node.node_type]
        return alias_text(node.alias)
    sides = [tree for child in node.children if (tree := _tree(child, methods)) is not None]
    if node.is_join and len(sides) == 2:
        if node.node_type in JOIN_METHODS:
            methods[key_text(node.aliases)] = JOIN_METHODS[node.node_type]
        return f"({sides[0]} {sides[1]})"
    return sides[0] if len(sides) == 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hinted:
    """A part of the hints: a join of a tree, with its outer side unless it is a group, or the method of a join or a scan."""

    relations: frozenset[str]
    leveled: bool
    outer: frozenset[str] | None = None
    method: str | None = None

    def __str__(self) -> str:
        return f"{self.method or 'join'} of {' '.join(sorted(self.relations))}"

    def found(self, nodes: Iterable[RelationNode], aliases: Collection[str]) -> list[RelationNode]:
        """Return the joins of exactly these relations, or the scans of the one."""
        alike = [node for node in nodes if is_named(node.relations, self.relations, aliases)]
        return [node for node in alike if (node.plan.is_join if len(self.relations) > 1 else node.plan.alias is not None)]

    def problem(self, node: RelationNode, aliases: Collection[str]) -> str | None:
        """Return the way in which a node does not follow the hint."""
        if self.method is not None and _METHODS.get(node.plan.node_type) != self.method:
            return f"{node}: {self.method} was decided"
        outer = next((child for child in node.plan.children if child.relationship == "Outer"), None)
        if self.outer is not None and outer is not None and not is_named(level_relations(outer), self.outer, aliases):
            return f"{node}: {' '.join(sorted(self.outer))} was decided to be the outer side"
        return None


def verify_hints(
    plan: Plan,
    join_order: str | None,
    methods: Mapping[str, str] | Mapping[frozenset[str], str],
    warnings: Iterable[str] = (),
    aliases: Collection[str] = (),
) -> Adherence:
    """
    Compare the joins and scans of `plan` with hints that the library accepted: each join of a tree, and each method.

    `aliases` are those of the statement, as far as they are known.

    A tree that the library did not use, by its `warnings`, is left out: the plan may have some of its joins by chance.

    A hint for a query level is followed if one node of these aliases follows it, any other only if all do: EXPLAIN does not say which level
    a node is of. It names no subquery that needs no node of its own; hints with such a relation are explained.
    """
    tally, nodes = Tally(), relation_nodes(plan)
    named = set(stems(plan.aliases))
    unused = {int(number[1]) for warning in warnings if (number := _UNUSED.match(warning))}
    for hinted in (*_joins(join_order or "", unused), *_methods(methods)):
        found = hinted.found(nodes, aliases)
        problems = [problem for node in found if (problem := hinted.problem(node, aliases)) is not None]
        if not found and (unnamed := sorted(alias for alias in hinted.relations if not named & set(stems([alias])))):
            tally.explained.append(f"{hinted}: EXPLAIN does not name {' '.join(unnamed)}")
        elif not found:
            tally.reasons.append(f"{hinted}: the plan has no {'join of exactly these' if len(hinted.relations) > 1 else 'scan of it'}")
        elif problems and not (hinted.leveled and len(problems) < len(found)):
            tally.reasons.append(problems[0])
        else:
            tally.carried += 1
    return tally.adherence()


def _joins(text: str, unused: set[int]) -> Iterator[_Hinted]:
    """Yield the joins of trees that the library read, without those of `unused` trees (1 is the first)."""
    stack: list[list[frozenset[str]]] = []
    leveled, number = False, 1
    for token in _TOKEN.finditer(text):
        if token[0] == "(":
            stack.append([])
        elif token[0] == ")":
            sides = stack.pop()
            relations = frozenset().union(*sides)
            if number not in unused:
                yield _Hinted(relations=relations, leveled=leveled, outer=sides[0] if len(sides) == 2 else None)
            if stack:
                stack[-1].append(relations)
            else:
                leveled, number = False, number + 1
        elif stack:
            stack[-1].append(frozenset({_alias(token[0])}))
        else:
            leveled = True  # "2:" in front of a tree


def _methods(methods: Mapping[str, str] | Mapping[frozenset[str], str]) -> Iterator[_Hinted]:
    for key, method in methods.items():
        text = key if isinstance(key, str) else key_text(key)
        level = _LEVEL.match(text)
        relations = frozenset(_alias(token[0]) for token in _ALIAS.finditer(text, level.end() if level else 0))
        yield _Hinted(relations=relations, leveled=level is not None, method=method)


def _alias(text: str) -> str:
    return text[1:-1].replace('""', '"') if text.startswith('"') else text
