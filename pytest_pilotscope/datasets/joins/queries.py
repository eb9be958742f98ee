"""The queries of the generated joins: five shapes of 8 to 40 relations, as a list of tables or as a chain of JOIN ... ON."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from pytest_pilotscope.queries.queries import Query, Workload

from .rows import CORE, WORDS, Rows
from .schema import CHILDREN, DETAILS, PLACES, TABLES

SIZES = (8, 10, 13, 18, 26, 40)
"""Relations of the test queries."""

LARGEST_LIST = 13
"""Relations that a star, a snowflake or a clique lists at most: GEQO looks at too many of their sets to count them all."""

LEARNT_SIZES = (8, 9)
"""Relations of training and validation queries."""

TRAINING = 10
"""Training queries of each shape and size."""

Edge = tuple[str, str, str, str]
"""Relation and column, and relation and column that are equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draw:
    """The random draws of one query; all filters fit the rows of `entity`, so no result is empty."""

    rng: random.Random
    rows: Rows
    entity: int

    @property
    def cluster(self) -> int:
        return int(self.rows.cluster[self.entity])

    def children(self) -> list[str]:
        """Return all children in some order, the special ones of the cluster first."""
        special = [name for names in self.rows.special(self.cluster) for name in names]
        others = [name for name in (f"child{number:02}" for number in range(1, CHILDREN + 1)) if name not in special]
        return self.rng.sample(special, len(special)) + self.rng.sample(others, len(others))


def make_workload(dataset: str, rows: Rows, *, seed: int) -> Workload:
    """
    Return 30 test queries (`chain08` ...), 100 for training and 10 for validation, all with a result that is not empty.

    A query lists its tables, so that the planner orders all at once (from 12 relations on by GEQO), or joins with JOIN ... ON, where
    `join_collapse_limit` keeps a part of the written order. The two take turns, but for large queries of other shapes than `PATHS`.
    """

    def made(name: str, sizes: Sequence[int], count: int) -> Iterator[Query]:
        for at, (shape, edges) in enumerate(SHAPES.items()):
            for position, size in enumerate(sizes):
                for number in range(1, count + 1):
                    rng = random.Random(f"{seed}/{name}/{shape}/{size}/{number}")  # noqa: S311 - not for secrets
                    draw = _Draw(rng=rng, rows=rows, entity=CORE * rng.randrange((rows.entities + CORE - 1) // CORE))
                    explicit = (at + position + number) % 2 == 0 or (size > LARGEST_LIST and shape not in PATHS)
                    sql = _sql(draw, edges(draw, size), explicit=explicit)
                    yield Query(id=f"{name}{shape}{size:02}" + (f"-{number}" if name else ""), sql=sql)

    return Workload(
        dataset=dataset,
        train=tuple(made("train-", LEARNT_SIZES, TRAINING)),
        validation=tuple(made("validation-", LEARNT_SIZES, 1)),
        test=tuple(made("", SIZES, 1)),
    )


def _chain(draw: _Draw, size: int) -> list[Edge]:
    """Return a part of the ring of places and routes that has the hot routes of the cluster, as far as it is long enough."""
    start = 2 * int(draw.rows.centre[draw.cluster]) - draw.rng.randrange(size - 6)
    edges = []
    for at in range(start, start + size - 1):
        number = at // 2 % PLACES + 1
        if at % 2 == 0:
            edges.append((f"place{number:02}", "id", f"route{number:02}", "place_id"))
        else:
            edges.append((f"route{number:02}", "next_code", f"place{number % PLACES + 1:02}", "code"))
    return edges


def _cycle(draw: _Draw, size: int) -> list[Edge]:
    """Return a chain whose ends are of the same batch."""
    edges = _chain(draw, size)
    return [*edges, (edges[0][0], "batch", edges[-1][2], "batch")]


def _star(draw: _Draw, size: int) -> list[Edge]:
    keys = [("id", "hub_id"), ("code", "hub_code")]
    return [("hub", own, child, key) for child in draw.children()[: size - 1] for own, key in [draw.rng.choice(keys)]]


def _snowflake(draw: _Draw, size: int) -> list[Edge]:
    """Return branches of a child, its detail and the group of that."""
    edges = []
    for child in draw.children():
        number = child.removeprefix("child")
        if int(number) <= DETAILS:
            edges.append(("hub", "id", child, "hub_id"))
            edges.append((child, "detail_code", f"detail{number}", "code"))
            edges.append((f"detail{number}", "group_code", f"group{number}", "code"))
    return edges[: size - 1]


def _clique(draw: _Draw, size: int) -> list[Edge]:
    """Return children with the same key; the planner derives that every two of them are equal."""
    children, key = draw.children()[:size], draw.rng.choice(("hub_id", "hub_code"))
    return [(draw.rng.choice(children[:at]), key, children[at], key) for at in range(1, size)]


SHAPES: Mapping[str, Callable[[_Draw, int], list[Edge]]] = {
    "chain": _chain,
    "cycle": _cycle,
    "star": _star,
    "snowflake": _snowflake,
    "clique": _clique,
}


PATHS = ("chain", "cycle")


def _sql(draw: _Draw, edges: Sequence[Edge], *, explicit: bool) -> str:
    order = _order(draw.rng, edges)
    filters = [_filter(draw, table) for table in draw.rng.sample(order, 2 + len(order) // 6)]
    if not explicit:
        filters = [_equal(edge) for edge in edges] + filters
    relations = _joined(order, edges) if explicit else ", ".join(order)
    return f"SELECT COUNT(*) FROM {relations} WHERE {' AND '.join(filters)}"  # noqa: S608 - our own names and words


def _joined(order: Sequence[str], edges: Sequence[Edge]) -> str:
    text = order[0]
    for at, table in enumerate(order[1:], 1):
        before = {*order[: at + 1]}
        on = [_equal(edge) for edge in edges if table in (edge[0], edge[2]) and {edge[0], edge[2]} <= before]
        text += f" JOIN {table} ON {' AND '.join(on)}"
    return text


def _equal(edge: Edge) -> str:
    left, key, right, other = edge
    return f"{left}.{key} = {right}.{other}"


def _order(rng: random.Random, edges: Sequence[Edge]) -> list[str]:
    """Return the relations in a random order in which each joins with one before it."""
    order = [rng.choice(edges)[0]]
    while reached := sorted(
        {end for left, _, right, _ in edges for end in (left, right) if (left in order) != (right in order)} - {*order}
    ):
        order.append(rng.choice(reached))
    return order


def _filter(draw: _Draw, table: str) -> str:
    """Return a condition that the entity's first row fulfils, and most rows of its cluster."""
    row = draw.rows.first_row(TABLES[table], draw.entity)
    word = row["label"].split()[0]
    possible = [f"{table}.label LIKE '{word} %'", f"{table}.label LIKE '%{word[1:4]}%'", _size(draw, f"{table}.size", row["size"])]
    if row["kind"] is not None:
        other = draw.rng.choice([one for one in WORDS if one != row["kind"]])
        possible += [f"{table}.kind = '{row['kind']}'", f"{table}.kind IN ('{row['kind']}', '{other}')"]
    if row["born"] is not None:
        possible.append(_born(draw, f"{table}.born", row["born"]))
    return draw.rng.choice(possible)


def _size(draw: _Draw, column: str, value: Any) -> str:
    if value is None:
        return f"{column} IS NULL"
    return f"{column} BETWEEN {value - draw.rng.randrange(500, 1_500)} AND {value + draw.rng.randrange(500, 1_500)}"


def _born(draw: _Draw, column: str, day: date) -> str:
    first, last = day - timedelta(days=draw.rng.randrange(100, 260)), day + timedelta(days=draw.rng.randrange(100, 260))
    return f"{column} >= '{first}' AND {column} < '{last}'"
