"""The exact cardinality of every subplan of many queries: read from the cache, counted in memory, or counted by PostgreSQL."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from pytest_pilotscope.errors import LabelError, QueryTimeout, StatementFailed, UnsupportedQuery, counted
from pytest_pilotscope.labels import compiled
from pytest_pilotscope.labels.columnstore import ColumnStore
from pytest_pilotscope.labels.filtered import table_of
from pytest_pilotscope.labels.labelcache import Label, LabelCache
from pytest_pilotscope.labels.memory import DEFAULT_BYTES, Memory
from pytest_pilotscope.labels.source import RowSource, SessionSource
from pytest_pilotscope.labels.task import Counter, Task, needs
from pytest_pilotscope.labels.workers import count_all
from pytest_pilotscope.labels.worklist import Progress, Question, WorkList
from pytest_pilotscope.places.cacheentries import locked
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import Schema, Subplan
from pytest_pilotscope.queries.meaning import Statement
from pytest_pilotscope.queries.queries import Query

if TYPE_CHECKING:
    from pytest_pilotscope.provision.pool import Worker, WorkerPool

OpenPool: TypeAlias = "Callable[[], AbstractContextManager[WorkerPool | None]]"

logger = logging.getLogger(__name__)

_PATIENCE_S = 600.0  # one set may take minutes to count, and one table to read

_WORTH_A_PROCESS = 2_000_000_000  # rows, which take some three seconds to read; starting a process takes one


QUERY_LIMITS = 10
"""PostgreSQL counts the sets of a query for at most so many times the limit of one of them."""

UNFINISHED = "counting it takes more than {} ms, measured or by PostgreSQL's estimate, or all sets of the query take more than {} ms"

Answered: TypeAlias = "tuple[int, int | str | None]"
"""The place of a set among those of its query, and its count: None if it did not finish, a text if it failed."""


class Labels(Mapping[str, Mapping[Subplan, Label]]):
    """
    Query id -> subplan -> label, for every query that has subplans, by the planner's keys of them.

    `unsupported` has the reason for each query without subplans: PostgreSQL does not plan it, or it has no relations. `reasons` has for
    each query the subplans without a label: no SQL counts them, or counting them failed. `statements` are the planner's reports.
    """

    def __init__(
        self,
        labels: Mapping[str, Mapping[Subplan, Label]],
        unsupported: Mapping[str, str],
        reasons: Mapping[str, Mapping[Subplan, str]] = MappingProxyType({}),
        statements: Mapping[str, Statement] = MappingProxyType({}),
    ) -> None:
        self._labels = labels
        self.unsupported = MappingProxyType(dict(unsupported))
        self.reasons = MappingProxyType(dict(reasons))
        self.statements = MappingProxyType(dict(statements))

    def __getitem__(self, query_id: str) -> Mapping[Subplan, Label]:
        return self._labels[query_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)

    def rows(self, query_id: str) -> dict[Subplan, int]:
        """Return the true rows of the subplans of a query that were counted."""
        return {subplan: label.rows for subplan, label in self.get(query_id, {}).items() if label.rows is not None}

    def unknown(self, query_id: str) -> dict[Subplan, str]:
        """Return why the other subplans of a query were not counted."""
        unfinished = {
            subplan: UNFINISHED.format(label.timeout_ms, QUERY_LIMITS * label.timeout_ms)
            for subplan, label in self.get(query_id, {}).items()
            if label.rows is None
        }
        return {**self.reasons.get(query_id, {}), **unfinished}

    @property
    def unfinished(self) -> int:
        """Number of subplans that PostgreSQL did not finish counting."""
        return sum(not label.finished for labels in self.values() for label in labels.values())


def cardinalities(
    database: Session | RowSource,
    queries: Sequence[Query],
    *,
    schema: Schema,
    fingerprint: str,
    cache_dir: Path,
    timeout_ms: int = 60_000,
    workers: int = 1,
    memory_bytes: int = DEFAULT_BYTES,
    progress: Progress | None = None,
    known_only: bool = False,
    pool: OpenPool = nullcontext,
) -> Labels:
    """
    Return the exact cardinality of every subplan of every query, as the planner means it: every query is planned once.

    Inner joins by equality of columns are counted in memory, in `workers` processes when there is enough to do. Everything else is counted
    by PostgreSQL, each subplan for at most `timeout_ms` (0: no limit); one that did not finish has a label without rows and is tried again
    when asked for with a larger limit. After one that did not, the sets of the same query that cost more by the planner's estimate are not
    tried, and what is left of the query after ten times this limit is not, either. `timeout_ms` limits planning, too.

    What PostgreSQL counts is counted by the workers of `pool()`, where it gives some, each on a server of its own.

    With `known_only` nothing is counted: queries whose labels are not all in the cache are left out.

    Labels and columns are kept in `cache_dir` for the data with this `fingerprint`, and written as they are computed: after
    a kill, the next call goes on. Of two processes at once one counts, and the other waits for it, or takes over.
    LabelError when the folder holds labels of other data, or the table rows changed.
    """
    source: RowSource = SessionSource(database) if isinstance(database, Session) else database
    statements, unsupported = _plan_all(source, queries, timeout_ms)
    settings = source.settings()
    context = json.dumps(settings, sort_keys=True)
    with LabelCache(cache_dir, fingerprint) as cache, nullcontext() if known_only else _alone(cache_dir, timeout_ms):
        work = WorkList(dict(statements.values()), context, cache, timeout_ms=timeout_ms, progress=progress)
        if not known_only:
            try:
                store = ColumnStore(cache_dir / "columns", context, source)
                _count_in_memory(work, store, context, schema, workers, Memory(memory_bytes))
                _count_by_database(work, source, settings, timeout_ms, pool)
            finally:
                work.flush()
        found = {query_id: sql for query_id, (sql, _) in statements.items() if not known_only or work.knows(sql)}
        labels = {query_id: work.labels(sql) for query_id, sql in found.items()}
        reasons = {query_id: of_query for query_id, sql in found.items() if (of_query := work.reasons(sql))}
        if not known_only:
            _warn(labels, reasons)
        return Labels(labels, unsupported, reasons, {query_id: statements[query_id][1] for query_id in found})


def _alone(folder: Path, timeout_ms: int) -> AbstractContextManager[int]:
    """Wait until no other process counts labels of this folder, or until that one has written nothing for long."""

    def is_stuck() -> bool:
        written = max((_written_at(path) for path in folder.rglob("*")), default=0.0)
        return time.time() - written > max(_PATIENCE_S, 2 * timeout_ms / 1000)

    return locked(folder / "counting.lock", f"counts labels in {folder}", logger, is_stuck=is_stuck)


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # removed meanwhile
        return 0.0


def _warn(labels: Mapping[str, Mapping[Subplan, Label]], reasons: Mapping[str, Mapping[Subplan, str]]) -> None:
    for query_id, of_query in reasons.items():
        subplan, reason = next(iter(of_query.items()))
        counts = len(of_query), len(of_query) + len(labels[query_id])
        logger.warning("query %s: %d of %d subplans have no label; {%s}: %s", query_id, *counts, " ".join(sorted(subplan)), reason)


def _plan_all(source: RowSource, queries: Sequence[Query], timeout_ms: int) -> tuple[dict[str, tuple[str, Statement]], dict[str, str]]:
    """Return the text and the meaning of each query by its id, and the reason for those that PostgreSQL does not plan."""
    statements: dict[str, tuple[str, Statement]] = {}
    unsupported: dict[str, str] = {}
    for query in queries:
        if query.id in statements or query.id in unsupported:
            raise LabelError(f"two queries have the id {query.id!r}: their labels could not be told apart; give one of them another id")
        try:
            statement = source.statement(query.sql, timeout_ms)
        except QueryTimeout:
            unsupported[query.id] = f"planning it takes more than {timeout_ms} ms"
        except UnsupportedQuery as error:
            unsupported[query.id] = error.reason
        except StatementFailed as error:
            unsupported[query.id] = _reason(error)
        else:
            if statement.levels:
                statements[query.id] = (query.sql, statement)
                continue
            unsupported[query.id] = "it has no relations"
        logger.warning("query %s has no labels: %s", query.id, unsupported[query.id])
    return statements, unsupported


def _count_in_memory(work: WorkList, store: ColumnStore, context: str, schema: Schema, workers: int, memory: Memory) -> None:
    tasks = [task.settled(schema) for task in work.tasks()]
    failed = store.fetch(needs(tasks))
    tasks = [task for task in (task.without(failed) for task in tasks) if task.masks]
    too_large = 0
    for task, rows in _counted(tasks, store, context, workers, memory) if tasks else ():
        too_large += rows.count(None)
        work.add_counted(task, rows)
    if too_large:
        sets = counted(too_large, "set of relations takes", "sets of relations take")
        logger.warning(
            "%s more memory than --label-memory (%d MB) or too many steps: counted by PostgreSQL", sets, memory.total_bytes >> 20
        )


def _counted(
    tasks: Sequence[Task], store: ColumnStore, context: str, workers: int, memory: Memory
) -> Iterator[tuple[Task, list[int | None]]]:
    classes = [members for task in tasks for members in task.classes]
    reads = sum(len(task.masks) * max(store.rows(table_of(relation)) for relation in task.relations) for task in tasks)
    processes = min(workers, len(tasks), 1 + reads // _WORTH_A_PROCESS)
    logger.debug("%d query levels to count in %d processes", len(tasks), processes)
    compiled.function()  # here, so that a reason is logged once, whatever the number of processes
    if processes > 1:
        yield from count_all(tasks, processes=processes, folder=store.folder, context=context, classes=classes, memory=memory)
        return
    with closing(Counter(store.folder, context, classes, memory)) as counter:
        for task in tasks:
            yield task, counter.count(task.query, task.masks, task.empty)


def _count_by_database(work: WorkList, source: RowSource, settings: Mapping[str, str], timeout_ms: int, open_pool: OpenPool) -> None:
    asked = work.questions()
    if not asked:
        return
    with open_pool() as pool:
        for questions, answers in _answered(pool, source, settings, asked, timeout_ms):
            for place, answer in answers:
                work.add_answer(questions[place], answer)


def _answered(
    pool: WorkerPool | None, source: RowSource, settings: Mapping[str, str], asked: Sequence[Sequence[Question]], timeout_ms: int
) -> Iterator[tuple[Sequence[Question], Iterable[Answered]]]:
    if pool is None:
        yield from ((questions, _answers(source, [question.sql for question in questions], timeout_ms)) for questions in asked)
        return
    for number, questions in enumerate(asked):
        pool.submit(str(number), _answer_there, ([question.sql for question in questions], timeout_ms, settings))
    for _ in asked:
        key, answers = pool.next()
        yield asked[int(key)], answers


def _answers(source: RowSource, statements: Sequence[str], timeout_ms: int) -> Iterator[Answered]:
    """
    Yield the place of each statement of a query, and its count: None if there is none in time, a text if it failed.

    A product of two large tables is part of hundreds of sets of a query of ten relations. So when one set did not finish, or they took as
    long as one may, those that the planner expects to be cheapest come first, until one does not finish or they took ten times as long.
    """
    limit_s, started_s = timeout_ms / 1e3 or math.inf, time.monotonic()
    left = list(range(len(statements)))
    in_time = True
    while left and in_time and time.monotonic() < started_s + limit_s:
        yield left[0], (answer := _answer(source, statements[left.pop(0)], timeout_ms))
        in_time = answer is not None
    costs = {place: _cost(source, statements[place], timeout_ms) for place in left}
    in_time = True
    for place in sorted(left, key=costs.__getitem__):
        in_time = in_time and time.monotonic() < started_s + QUERY_LIMITS * limit_s
        answer = _answer(source, statements[place], timeout_ms) if in_time else None
        in_time = in_time and answer is not None
        yield place, answer


def _answer(source: RowSource, sql: str, timeout_ms: int) -> int | str | None:
    try:
        return source.count(sql, timeout_ms)
    except StatementFailed as error:
        return _reason(error)


def _cost(source: RowSource, sql: str, timeout_ms: int) -> float:
    try:
        return source.count_cost(sql, timeout_ms)
    except StatementFailed:
        return 0.0  # counting it tells the reason


def _answer_there(place: Worker, task: tuple[Sequence[str], int, Mapping[str, str]]) -> list[Answered]:
    statements, timeout_ms, settings = task
    with place.database.session() as session:
        source = SessionSource(session)
        source.adopt(settings)
        return list(_answers(source, statements, timeout_ms))


def _reason(error: StatementFailed) -> str:
    """Return why a statement failed; raise the error again if the connection is lost."""
    if not error.sqlstate:
        raise error
    return error.reason
