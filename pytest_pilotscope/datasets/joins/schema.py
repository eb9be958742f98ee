"""
The tables of the generated joins, in three groups.

- A chain, which queries may close to a cycle: place01 <- route01 -> place02 <- ... -> place20 <- route20. A route leaves a place by number
  and leads to the next one by text.
- A star: hub <- child01 ... child40. Children have the hub's key as a number and as text; without the hub they are a clique.
- A snowflake is the star, whose first 13 children refer to detail01 ... detail13 by text, and those to group01 ... group13.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

PLACES, CHILDREN, DETAILS = 20, 40, 13

WANDERING = ("next_code", "detail_code", "group_code")
"""Columns that may refer to another entity of the cluster than the one of their row."""

_FILTERED = {"kind": "text", "label": "text", "born": "date", "size": "integer", "batch": "text NOT NULL"}
"""The columns of every table that queries filter, and the batch, by which cycles close."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """
    A table, whose rows belong to entities. `keys` is column -> (type, `table.column` that it refers to, "" for a key of its own).

    A table that `multiplies` has several rows of some entities, and none of others; any other table has one row of each.
    """

    name: str
    keys: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    multiplies: bool = False

    @property
    def definition(self) -> str:
        """The columns, for CREATE TABLE."""
        return ", ".join(f"{name} {kind}" for name, kind in {**{name: kind for name, (kind, _) in self.keys.items()}, **_FILTERED}.items())

    def constraints(self) -> Iterator[str]:
        """Yield the statements that add the keys, with an index on each."""
        for column, (_, target) in self.keys.items():
            if target:
                parent, _, key = target.partition(".")
                yield f"ALTER TABLE {self.name} ADD FOREIGN KEY ({column}) REFERENCES {parent} ({key})"
                yield f"CREATE INDEX ON {self.name} ({column})"
            else:
                yield f"ALTER TABLE {self.name} ADD {'PRIMARY KEY' if column == 'id' else 'UNIQUE'} ({column})"


_OWN = {"id": ("integer", ""), "code": ("text", "")}


def _tables() -> Iterator[Table]:
    for number in range(1, PLACES + 1):
        yield Table(name=f"place{number:02}", keys=_OWN)
    for number in range(1, PLACES + 1):
        keys = {"place_id": ("integer", f"place{number:02}.id"), "next_code": ("text", f"place{number % PLACES + 1:02}.code")}
        yield Table(name=f"route{number:02}", keys=keys, multiplies=True)
    yield Table(name="hub", keys=_OWN)
    for kind, target in (("group", None), ("detail", "group")):
        for number in range(1, DETAILS + 1):
            keys = {"code": ("text", "")} | ({f"{target}_code": ("text", f"{target}{number:02}.code")} if target else {})
            yield Table(name=f"{kind}{number:02}", keys=keys)
    for number in range(1, CHILDREN + 1):
        keys = {"hub_id": ("integer", "hub.id"), "hub_code": ("text", "hub.code")}
        if number <= DETAILS:
            keys["detail_code"] = ("text", f"detail{number:02}.code")
        yield Table(name=f"child{number:02}", keys=keys, multiplies=True)


TABLES: Mapping[str, Table] = {table.name: table for table in _tables()}
"""Parents before their children."""
