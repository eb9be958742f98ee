"""The sets of relations of some statements: their labels, those that are still to be counted, and the progress of counting."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pytest_pilotscope.labels.canonical import NamedSet, named_sets
from pytest_pilotscope.labels.labelcache import Label, LabelCache
from pytest_pilotscope.labels.task import Task
from pytest_pilotscope.queries.joins import Subplan
from pytest_pilotscope.queries.meaning import NoCount, Statement

Progress: TypeAlias = Callable[[int, int, float | None], None]
"""Called with the distinct subplans done, all of them, and the seconds left (None: not known yet)."""

_WRITE_EVERY_S = 0.2  # a kill costs at most the labels of this time; a transaction per query would take longer than counting


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A set that PostgreSQL counts, by its canonical name."""

    name: bytes
    sql: str


class WorkList:
    """
    Labels of some statements by canonical name; new ones are written to the cache several times a second.

    A set that cannot be counted has a reason instead. A count that depends on more than the data is not written.
    """

    def __init__(
        self, statements: Mapping[str, Statement], context: str, cache: LabelCache, *, timeout_ms: int, progress: Progress | None
    ) -> None:
        self._sets: dict[str, list[NamedSet]] = {}
        self._never: dict[str, dict[Subplan, str]] = {}
        for sql, statement in statements.items():
            found = list(named_sets(statement, context))
            self._sets[sql] = [one for one in found if isinstance(one, NamedSet)]
            self._never[sql] = dict(one for one in found if not isinstance(one, NamedSet))
        self._reasons: dict[bytes, str] = {}
        self._cache = cache
        self._timeout_ms = timeout_ms
        self._progress = progress
        distinct = {one.name: one.lasting for sets in self._sets.values() for one in sets}
        self._transient = {name for name, lasting in distinct.items() if not lasting}
        self._total = len(distinct)
        known = cache.look_up(distinct.keys() - self._transient)
        self._labels = {name: label for name, label in known.items() if label.answers(timeout_ms)}
        self._found = len(self._labels)
        self._started_s = self._written_s = time.monotonic()
        self._unwritten: dict[bytes, Label] = {}
        self._report()

    def tasks(self) -> list[Task]:
        """Return the sets without a label that can be counted in memory, each set once."""
        claimed: set[bytes] = set()
        tasks = []
        for sets in self._sets.values():
            levels: dict[int, list[NamedSet]] = {}
            for one in sets:
                if one.sql is None:
                    levels.setdefault(one.level.id, []).append(one)
            for of_level in levels.values():
                unknown = [one for one in of_level if one.name not in self._labels and one.name not in claimed]
                claimed.update(one.name for one in unknown)
                if unknown:
                    tasks.append(self._task(of_level, unknown))
        return tasks

    def questions(self) -> list[list[Question]]:
        """Return the SQL of all other sets without a label, each set once, by statement."""
        claimed: set[bytes] = set()
        return [asked for sets in self._sets.values() if (asked := self._questions(sets, claimed))]

    def add_counted(self, task: Task, counted: Iterable[int | None]) -> None:
        """Keep the counts of a task; a set whose count is None was too large for memory and is still to be counted."""
        found = zip(task.names, counted, strict=True)
        self._keep({name: Label(rows=rows, source="memory") for name, rows in found if rows is not None})

    def add_answer(self, question: Question, answer: int | str | None) -> None:
        """Keep PostgreSQL's count of a set: None if it did not finish in time, a text if it failed, with the reason."""
        if isinstance(answer, str):
            self._reasons[question.name] = answer
            self._report()
            return
        self._keep({question.name: Label(rows=answer, source="postgres", timeout_ms=self._timeout_ms)})

    def knows(self, sql: str) -> bool:
        """Tell whether every set of a statement that can be counted has a label."""
        return all(one.name in self._labels for one in self._sets[sql])

    def labels(self, sql: str) -> Mapping[Subplan, Label]:
        """Return the labels of a statement, in the order of its subplans."""
        return {one.subplan: self._labels[one.name] for one in self._sets[sql] if one.name in self._labels}

    def reasons(self, sql: str) -> Mapping[Subplan, str]:
        """Return why subplans of a statement have no label."""
        return self._never[sql] | {one.subplan: self._reasons[one.name] for one in self._sets[sql] if one.name in self._reasons}

    def flush(self) -> None:
        """Write the labels that were counted since the last time."""
        self._cache.store(self._unwritten)
        self._unwritten.clear()
        self._written_s = time.monotonic()

    def _task(self, of_level: Iterable[NamedSet], unknown: list[NamedSet]) -> Task:
        empty = (one.mask for one in of_level if one.name in self._labels and self._labels[one.name].rows == 0)
        ordered = sorted(unknown, key=lambda one: one.mask.bit_count())
        masks, names = zip(*((one.mask, one.name) for one in ordered), strict=True)
        return Task(query=ordered[0].level.query, masks=masks, names=names, empty=tuple(empty))

    def _questions(self, sets: Iterable[NamedSet], claimed: set[bytes]) -> list[Question]:
        asked = []
        for one in sets:
            if one.name in self._labels or one.name in self._reasons or one.name in claimed:
                continue
            try:
                sql = one.sql or one.level.count_sql(one.mask).sql
            except NoCount as error:
                self._reasons[one.name] = str(error)
            else:
                claimed.add(one.name)
                asked.append(Question(name=one.name, sql=sql))
        return asked

    def _keep(self, labels: Mapping[bytes, Label]) -> None:
        self._labels.update(labels)
        self._unwritten.update((name, label) for name, label in labels.items() if name not in self._transient)
        if time.monotonic() - self._written_s > _WRITE_EVERY_S:
            self.flush()
        self._report()

    def _report(self) -> None:
        if self._progress is None:
            return
        done = len(self._labels) + len(self._reasons)
        new = done - self._found
        left_s = (time.monotonic() - self._started_s) / new * (self._total - done) if new else None
        self._progress(done, self._total, 0.0 if done == self._total else left_s)
