"""
The rows of the generated joins.

Each entity belongs to one of 16 clusters of uneven size, and so do its rows in all tables: kinds, words, dates and sizes tell the cluster,
so filters on several relations keep the same rows, where the textbook multiplies their selectivities. References stay within the cluster.

For each cluster three of the tables that multiply are *hot*: they have up to 12 rows of an entity, and the same entities are heavy in all
three. Three others are *thin*: they have the rows of every third entity only. Every other table has one row of each entity. So no join
along references has more than `entities * 12**3` rows, however many relations it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from functools import cached_property
from typing import Any

import numpy as np

from pytest_pilotscope.datasets.stats.draws import BIT, Draws, Ints

from .schema import DETAILS, PLACES, WANDERING, Table

CLUSTERS = 16
MOST_ROWS = 12
"""Rows of an entity in one table at most."""

HOT = 3
"""Tables with several rows of an entity, for each cluster."""

CORE = 3
"""Every third entity has rows in all tables, and no reference of it is NULL."""

FIRST_DAY = date(2000, 1, 1)
WORDS = (
    *("amber", "birch", "cobalt", "dune", "ember", "fjord", "granite", "harbor"),
    *("indigo", "juniper", "kelp", "lagoon", "meadow", "nickel", "onyx", "prairie"),
)
"""A word of each cluster."""

_NOISE = ("north", "south", "east", "west", "upper", "lower", "old", "new")
_BATCHES = 8
"""Batches of a cluster."""

Columns = Mapping[str, list[Any]]


class Rows:
    """The rows of all tables, as a function of the number of entities and the seed."""

    def __init__(self, *, entities: int, seed: int) -> None:
        self.entities = entities
        self._seed = seed
        self._made: dict[str, Columns] = {}
        draws = Draws(seed, "entities")
        self.cluster: Ints = draws.below(1 + draws.below(CLUSTERS, entities), entities)
        self._heavy: Ints = np.minimum(2 + draws.exponential(entities) * 3 // (2 * BIT), MOST_ROWS)
        self._by_cluster = np.argsort(self.cluster, kind="stable")
        self._sizes: Ints = np.bincount(self.cluster, minlength=CLUSTERS)

    def bound(self) -> int:
        """Return the number of rows that no join along references exceeds."""
        bound: int = self.entities * MOST_ROWS**HOT
        return bound

    @cached_property
    def centre(self) -> Ints:
        """The first of the hot routes of each cluster, from 0."""
        return Draws(self._seed, "centre").below(PLACES, CLUSTERS)

    def special(self, cluster: int) -> tuple[list[str], list[str]]:
        """Return the hot and the thin children of a cluster; all have details."""
        chosen = Draws(self._seed, f"children of {cluster}").shuffled(DETAILS)[: 2 * HOT]
        names = [f"child{number + 1:02}" for number in chosen]
        return names[:HOT], names[HOT:]

    def of(self, table: Table) -> Columns:
        """Return the columns of a table, as lists of one length; None is NULL."""
        if table.name not in self._made:
            self._made[table.name] = self._columns(table)
        return self._made[table.name]

    def first_row(self, table: Table, entity: int) -> Mapping[str, Any]:
        """Return the first row of an entity, which refers to the same entity everywhere."""
        at = int(self._counts(table)[:entity].sum())
        return {name: values[at] for name, values in self.of(table).items()}

    def _counts(self, table: Table) -> Ints:
        """Return the number of rows of each entity."""
        counts = np.ones(self.entities, dtype=np.int64)
        if table.multiplies:
            hot, thin = (np.array([table.name in names[at] for names in self._special]) for at in (0, 1))
            counts[hot[self.cluster]] = self._heavy[hot[self.cluster]]
            counts[thin[self.cluster] & (np.arange(self.entities) % CORE != 0)] = 0
        return counts

    @cached_property
    def _special(self) -> list[tuple[list[str], list[str]]]:
        """The hot and the thin tables of each cluster."""
        found = []
        for cluster in range(CLUSTERS):
            hot, thin = self.special(cluster)
            routes = [f"route{(self.centre[cluster] + step) % PLACES + 1:02}" for step in range(2 * HOT)]
            found.append((hot + routes[:HOT], thin + routes[HOT:]))
        return found

    def _columns(self, table: Table) -> Columns:
        counts = self._counts(table)
        entity = np.repeat(np.arange(self.entities), counts)
        later = np.arange(len(entity)) != np.repeat(np.cumsum(counts) - counts, counts)
        draws = Draws(self._seed, table.name)
        columns: dict[str, list[Any]] = {}
        for name in table.keys:
            target = entity
            nulls = np.zeros(len(entity), dtype=np.bool_)
            if name in WANDERING:
                target = np.where(later, self._alike(entity, draws), entity)
                nulls = (draws.below(10, len(entity)) == 0) & (entity % CORE != 0)
            texts = target.tolist() if name.endswith("id") else [f"{WORDS[one % CLUSTERS][:3].upper()}-{one:06}" for one in target]
            columns[name] = _with_nulls(texts, nulls)
        return {**columns, **self._filtered(entity, draws)}

    def _alike(self, entity: Ints, draws: Draws) -> Ints:
        """Return another entity of the same cluster for each."""
        cluster = self.cluster[entity]
        starts = np.cumsum(self._sizes) - self._sizes
        alike: Ints = self._by_cluster[starts[cluster] + draws.below(self._sizes[cluster], len(entity))]
        return alike

    def _filtered(self, entity: Ints, draws: Draws) -> Columns:
        """Return the columns that queries filter: each tells the cluster, most of the time."""
        count = len(entity)
        cluster = self.cluster[entity]
        told = np.where(draws.below(10, count) == 0, draws.below(CLUSTERS, count), cluster)
        days, noise = cluster * 200 + draws.below(260, count), draws.below(len(_NOISE), count)
        without_size = draws.below(10, count) < np.where(cluster % 4 == 3, 9, 1)
        return {
            "kind": _with_nulls([WORDS[one] for one in told], draws.below(20, count) == 0),
            "label": [f"{WORDS[one]} {_NOISE[two]} {three}" for one, two, three in zip(told, noise, entity, strict=True)],
            "born": _with_nulls([FIRST_DAY + timedelta(days=int(one)) for one in days], draws.below(30, count) == 0),
            "size": _with_nulls((cluster * 1_000 + draws.below(1_500, count)).tolist(), without_size),
            "batch": [f"{WORDS[one]}/{two}" for one, two in zip(cluster, entity % _BATCHES, strict=True)],
        }


def _with_nulls(values: list[Any], nulls: Any) -> list[Any]:
    return [None if null else value for value, null in zip(values, nulls, strict=True)]
