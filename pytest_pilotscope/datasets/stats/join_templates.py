"""Join templates: the tables and join columns of a query, without its predicates."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

ALIASES = {
    "b": "badges",
    "c": "comments",
    "p": "posts",
    "ph": "posthistory",
    "pl": "postlinks",
    "t": "tags",
    "u": "users",
    "v": "votes",
}
# The column in which a relation refers to a user or to a post, unless the edge says otherwise.
_USER = {"b": "userid", "c": "userid", "p": "owneruserid", "pLE": "lasteditoruserid", "ph": "userid", "v": "userid"}
_POST = {"c": "postid", "ph": "postid", "pl": "postid", "plR": "relatedpostid", "t": "excerptpostid", "v": "postid"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """An equality of two columns; in a foreign key join the right side is the parent's id."""

    left: str
    left_column: str
    right: str
    right_column: str

    @property
    def sql(self) -> str:
        """The equality as SQL."""
        return f"{self.left}.{self.left_column} = {self.right}.{self.right_column}"

    def sides(self) -> tuple[tuple[str, str, str, str], tuple[str, str, str, str]]:
        """Return both directions: (alias, column, other alias, other column)."""
        there = (self.left, self.left_column, self.right, self.right_column)
        return there, (self.right, self.right_column, self.left, self.left_column)


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A tree of joins; `code` is its short form, `test` and `train` are its numbers of queries in STATS-CEB."""

    code: str
    joins: tuple[Join, ...]
    test: int
    train: int

    @property
    def aliases(self) -> tuple[str, ...]:
        """The relations in the order in which the joins name them."""
        return tuple(dict.fromkeys(alias for join in self.joins for alias in (join.left, join.right)))


def parse_template(code: str) -> tuple[Join, ...]:
    """
    Read edges: `c>p` joins comments with their posts, `pLE>u` posts with their last editors, `b~c@u` badges and comments of one user.

    Raise KeyError for a relation that has no such column.
    """
    return tuple(_join(edge) for edge in code.split())


def _join(edge: str) -> Join:
    if ">" in edge:
        child, parent = edge.split(">")
        columns = _USER if parent == "u" else _POST
        return Join(left=_alias(child), left_column=columns[child], right=parent, right_column="id")
    pair, parent = edge.split("@")
    columns = _USER if parent == "u" else _POST
    left, right = pair.split("~")
    return Join(left=_alias(left), left_column=columns[left], right=_alias(right), right_column=columns[right])


def _alias(name: str) -> str:
    """Return the relation of a name: `pLE` and `plR` are p and pl, joined over another column."""
    return {"pLE": "p", "plR": "pl"}.get(name, name)


@cache
def figures() -> dict[str, Any]:
    """Return `workload.json`: STATS-CEB's counts of each template, table, column and kind of predicate (no query)."""
    text = resources.files(__package__).joinpath("workload.json").read_text(encoding="utf-8")
    read: dict[str, Any] = json.loads(text)
    return read


@cache
def templates() -> tuple[Template, ...]:
    """Return every template, most frequent in the test workload first."""
    return tuple(
        Template(code=code, joins=parse_template(code), test=test, train=train) for code, (test, train) in figures()["templates"].items()
    )
