"""Which subplans have a label, which are still to be counted, and how far that is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from pytest_pilotscope.core.joins import JoinQuery, Subplan
from pytest_pilotscope.labels.cache import Label, LabelCache
from pytest_pilotscope.labels.canonical import Canonical
from pytest_pilotscope.labels.task import Task

Progress: TypeAlias = Callable[[int, int, float | None], None]
"""Called with the distinct subplans done, all of them, and the seconds left (None: not known yet)."""

_WRITE_EVERY_S = 0.2  # what a kill can cost; a transaction per query would take longer than counting


class Book:
    """Keeps the labels of some queries by canonical name, and writes new ones to the cache several times a second."""

    def __init__(self, queries: Sequence[JoinQuery], cache: LabelCache, *, timeout_ms: int, progress: Progress | None) -> None:
        self._queries = list({query.sql: query for query in queries}.values())
        self._names = {query.sql: _names(query) for query in self._queries}
        self.given_up: dict[str, str] = {}
        """The text of each query that cannot be counted, with the reason."""
        self._cache = cache
        self._timeout_ms = timeout_ms
        self._progress = progress
        distinct = {name for names in self._names.values() for name in names.values()}
        self._total = len(distinct)
        self._labels = {name: label for name, label in cache.look_up(distinct).items() if label.answers(timeout_ms)}
        self._found = len(self._labels)
        self._started_s = self._written_s = time.monotonic()
        self._unwritten: dict[bytes, Label] = {}
        self._report()

    def tasks_in_memory(self) -> list[Task]:
        """Return what is without a label and joined by equalities only; each subplan once."""
        return self._tasks(lambda query, mask: query.equalities_only(mask))

    def tasks_for_database(self) -> list[Task]:
        """Return all that is without a label."""
        return self._tasks(lambda query, mask: True)

    def enter(self, task: Task, counted: Iterable[int | None]) -> None:
        """Keep what was counted in memory; None was too much for it and stays to be counted."""
        names = self._names[task.query.sql]
        rows_of = {names[mask]: rows for mask, rows in zip(task.masks, counted, strict=True) if rows is not None}
        self._keep({name: Label(rows=rows, source="memory") for name, rows in rows_of.items()})

    def enter_from_database(self, query: JoinQuery, mask: int, rows: int | None) -> None:
        """Keep what PostgreSQL counted; None did not finish."""
        self._keep({self._names[query.sql][mask]: Label(rows=rows, source="postgres", timeout_ms=self._timeout_ms)})

    def give_up(self, query: JoinQuery, reason: str) -> None:
        """Ask for no more of a query's subplans than other queries have, too."""
        self.given_up[query.sql] = reason

    def knows(self, query: JoinQuery) -> bool:
        """Tell whether every subplan of a query has a label."""
        return all(name in self._labels for name in self._names[query.sql].values())

    def labels(self, query: JoinQuery) -> Mapping[Subplan, Label]:
        """Return the labels of a query, in the order of its subplans."""
        names = self._names[query.sql]
        return {subplan: self._labels[names[mask]] for subplan, mask in zip(query.subplans(), query.masks, strict=True)}

    def _tasks(self, wanted: Callable[[JoinQuery, int], bool]) -> list[Task]:
        claimed: set[bytes] = set()
        tasks = []
        for query in (query for query in self._queries if query.sql not in self.given_up):
            names = self._names[query.sql]
            unknown = {mask: name for mask, name in names.items() if name not in self._labels and name not in claimed}
            masks = tuple(mask for mask in unknown if wanted(query, mask))
            claimed.update(unknown[mask] for mask in masks)
            empty = tuple(mask for mask, name in names.items() if name in self._labels and self._labels[name].rows == 0)
            if masks:
                tasks.append(Task(query=query, masks=masks, empty=empty))
        return tasks

    def flush(self) -> None:
        """Write what was counted since the last time."""
        self._cache.store(self._unwritten)
        self._unwritten.clear()
        self._written_s = time.monotonic()

    def _keep(self, labels: Mapping[bytes, Label]) -> None:
        self._labels.update(labels)
        self._unwritten.update(labels)
        if time.monotonic() - self._written_s > _WRITE_EVERY_S:
            self.flush()
        self._report()

    def _report(self) -> None:
        if self._progress is None:
            return
        done = len(self._labels)
        new = done - self._found
        left_s = (time.monotonic() - self._started_s) / new * (self._total - done) if new else None
        self._progress(done, self._total, 0.0 if done == self._total else left_s)


def _names(query: JoinQuery) -> dict[int, bytes]:
    canonical = Canonical(query)
    return {mask: canonical.name(mask) for mask in query.masks}
