"""
Read a statement as PostgreSQL understands it: its query tree, with names resolved and views expanded.

PostgreSQL prints the tree for a session that asks for it (`debug_print_rewritten`); nothing is planned or run, and a session that may not
write can ask, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import StatementFailed
from pytest_pilotscope.queries.statements import single

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|[(){}]|(?:\\.|[^\s(){}\\])+', re.DOTALL)
_TITLE = "rewritten parse tree:"
ASKED = "PREPARE pilotscope_asked AS "
"""The text before a statement whose tree is asked for; places in the tree count from its beginning."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One node of a query tree: its type (`VAR`) and its fields by name (`varno`): texts, nodes, or lists of these; None for `<>`."""

    type: str
    fields: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.fields.get(name)

    def number(self, name: str) -> int:
        """Return a field that is a number; 0 without it."""
        return int(self.fields.get(name) or 0)

    def flag(self, name: str) -> bool:
        """Return a field that is true or false; False without it."""
        return self.fields.get(name) == "true"

    def nodes(self, name: str) -> list[Node]:
        """Return the nodes of a field that is a list."""
        return [one for one in self.fields.get(name) or () if isinstance(one, Node)]

    def children(self) -> Iterator[Node]:
        """Yield the nodes in its fields, also those in lists."""
        for value in self.fields.values():
            yield from _nodes_in(value)


def query_tree(session: Session, sql: str) -> Node | None:
    """Return the tree of a query; None for a statement that has none because it is no query."""
    with session.rolled_back():
        session.execute("SET LOCAL client_min_messages = log; SET LOCAL debug_pretty_print = off; SET LOCAL debug_print_rewritten = on")
        session.take_notices()
        with suppress(StatementFailed):
            session.execute(f"{ASKED}{single(sql)}\n; DEALLOCATE pilotscope_asked")
        printed = [notice for notice in session.take_notices() if _TITLE in notice and "{QUERY" in notice]
    roots = [root for notice in printed for root in _nodes_in(_value(iter(_TOKEN.findall(notice.partition(_TITLE)[2]))))]
    return next((root for root in roots if root.type == "QUERY" and root["targetList"]), None)


def _nodes_in(value: Any) -> Iterator[Node]:
    if isinstance(value, Node):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _nodes_in(one)


def _value(tokens: Iterator[str]) -> list[Any]:
    """Return the values up to the end of the list that `tokens` is in."""
    found: list[Any] = []
    for word in tokens:
        if word == ")":
            break
        found.append(_one(word, tokens))
    return found


def _one(word: str, tokens: Iterator[str]) -> Any:
    if word == "(":
        return _value(tokens)
    if word == "{":
        return _node(tokens)
    return None if word == "<>" else word


def _node(tokens: Iterator[str]) -> Node:
    """Read a node after its brace. The value of a field has one part, except the bytes of a constant."""
    kind = next(tokens)
    fields: dict[str, list[Any]] = {}
    name = ""
    for word in tokens:
        if word == "}":
            break
        if word.startswith(":"):
            name = word[1:]
            fields[name] = []
        else:
            fields.setdefault(name, []).append(_one(word, tokens))
    return Node(kind, {name: values[0] if len(values) == 1 else values for name, values in fields.items()})
