"""The exact cardinality of every subplan of many queries: from the cache, from memory, or from PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

from pytest_pilotscope.core.joins import JoinQuery, Schema, Subplan, parse
from pytest_pilotscope.core.queries import Query
from pytest_pilotscope.errors import LabelError, StatementFailed, UnsupportedQuery
from pytest_pilotscope.labels.book import Book, Progress
from pytest_pilotscope.labels.cache import Label, LabelCache
from pytest_pilotscope.labels.columns import ColumnStore
from pytest_pilotscope.labels.filtered import needs
from pytest_pilotscope.labels.source import RowSource, SessionSource
from pytest_pilotscope.labels.task import Counter, Task, key_columns
from pytest_pilotscope.labels.workers import count_all
from pytest_pilotscope.postgres.session import Session

if TYPE_CHECKING:
    from pytest_pilotscope.cluster import Crew, Place

OpenCrew: TypeAlias = "Callable[[], AbstractContextManager[Crew | None]]"

logger = logging.getLogger(__name__)

_WORTH_A_PROCESS = 2_000_000_000  # rows read, some three seconds; starting a process takes one


class Labels(Mapping[str, Mapping[Subplan, Label]]):
    """
    Query id -> subplan -> label, for every query that has subplans.

    `unsupported` gives the reason for each query that has none: it has no subplans, or one of them fails on the values of a row.
    """

    def __init__(self, labels: Mapping[str, Mapping[Subplan, Label]], unsupported: Mapping[str, str]) -> None:
        self._labels = labels
        self.unsupported = MappingProxyType(dict(unsupported))

    def __getitem__(self, query_id: str) -> Mapping[Subplan, Label]:
        return self._labels[query_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._labels)

    def __len__(self) -> int:
        return len(self._labels)

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
    progress: Progress | None = None,
    known_only: bool = False,
    crew: OpenCrew = nullcontext,
) -> Labels:
    """
    Return the exact cardinality of every subplan of every query.

    Joins by equality are counted in memory, in `workers` processes when there is enough to do. What has other conditions
    between relations, outer joins, EXISTS or IN over a subquery, or LATERAL is counted by PostgreSQL, each subplan for at most
    `timeout_ms` (0: no limit); one that did not finish has a label without rows and is tried again when asked for with a larger
    limit.

    What PostgreSQL counts is counted by the workers of `crew()`, where it gives some, each on a server of its own.

    With `known_only` nothing is counted: queries whose labels are not all in the cache are left out.

    Labels and columns are kept in `cache_dir` for the data with this `fingerprint`, and written as they are computed: after
    a kill, the next call goes on. LabelError when the folder holds labels of other data, or the table rows changed.
    """
    source: RowSource = SessionSource(database) if isinstance(database, Session) else database
    parsed, unsupported = _parse_all(queries, schema)
    with LabelCache(cache_dir, fingerprint) as cache:
        book = Book(list(parsed.values()), cache, timeout_ms=timeout_ms, progress=progress)
        if known_only:
            return Labels({query_id: book.labels(query) for query_id, query in parsed.items() if book.knows(query)}, unsupported)
        try:
            _count_in_memory(book, cache_dir / "columns", schema, source, workers)
            _count_by_database(book, source, timeout_ms, crew)
        finally:
            book.flush()
        for query_id in [query_id for query_id, query in parsed.items() if query.sql in book.given_up]:
            unsupported[query_id] = book.given_up[parsed.pop(query_id).sql]
            logger.warning("query %s has no labels: %s", query_id, unsupported[query_id])
        return Labels({query_id: book.labels(query) for query_id, query in parsed.items()}, unsupported)


def _count_in_memory(book: Book, folder: Path, schema: Schema, source: RowSource, workers: int) -> None:
    store = ColumnStore(folder, schema, source)
    tasks = _fetch(store, book.tasks_in_memory())
    if not tasks:
        return
    classes = key_columns(task.query for task in tasks)
    reads = sum(len(task.masks) * max(store.rows(relation.table) for relation in task.query.relations.values()) for task in tasks)
    processes = min(workers, len(tasks), 1 + reads // _WORTH_A_PROCESS)
    logger.debug("%d queries to count in %d processes", len(tasks), processes)
    if processes > 1:
        for task, counted in count_all(tasks, processes=processes, folder=folder, schema=schema, classes=classes):
            book.enter(task, counted)
        return
    counter = Counter(folder, schema, classes)
    for task in tasks:
        book.enter(task, counter.count(task))


def _fetch(store: ColumnStore, tasks: Sequence[Task]) -> Sequence[Task]:
    """Read what the queries need, and return those whose filters have a value for every row; the others are left to PostgreSQL."""
    try:
        store.fetch(needs((task.query for task in tasks), store))
    except StatementFailed as error:
        if not error.about_a_row:
            raise
        return [task for task in tasks if _fetch(store, [task])] if len(tasks) > 1 else []
    return tasks


def _count_by_database(book: Book, source: RowSource, timeout_ms: int, open_crew: OpenCrew) -> None:
    tasks = book.tasks_for_database()
    if not tasks:
        return
    with open_crew() as crew:
        while tasks:  # what a query that is given up shares with others is still to be counted
            for task, counted in _counted(crew, source, tasks, timeout_ms):
                for mask, rows in counted:
                    if isinstance(rows, str):
                        book.give_up(task.query, rows)
                    else:
                        book.enter_from_database(task.query, mask, rows)
            tasks = book.tasks_for_database()


def _counted(
    crew: Crew | None, source: RowSource, tasks: Sequence[Task], timeout_ms: int
) -> Iterator[tuple[Task, Iterable[tuple[int, int | str | None]]]]:
    if crew is None:
        yield from ((task, count_by_database(source, task, timeout_ms)) for task in tasks)
        return
    for number, task in enumerate(tasks):
        crew.submit(str(number), _count_there, (task, timeout_ms))
    for _ in tasks:
        key, counted = crew.next()
        yield tasks[int(key)], counted


def count_by_database(source: RowSource, task: Task, timeout_ms: int) -> Iterator[tuple[int, int | str | None]]:
    """
    Count the subplans of a task, one statement for each; None for what did not finish. What contains an empty one can be empty, too.

    A text is the reason why one cannot be counted; it is the last.
    """
    empty = list(task.empty)
    shrinking = all(join.kind == "SEMI" for join in task.query.special_joins)  # others keep rows that match nothing
    for mask in task.masks:
        known_empty = shrinking and any(mask & other == other for other in empty)
        try:
            rows = 0 if known_empty else source.count(task.query.count_sql(task.query.subplan(mask)), timeout_ms)
        except StatementFailed as error:
            if not error.about_a_row:
                raise
            yield mask, f"{error.reason}, where {', '.join(sorted(task.query.subplan(mask)))} is counted on its own"
            return
        yield mask, rows
        if rows == 0:
            empty.append(mask)


def _count_there(place: Place, task: tuple[Task, int]) -> list[tuple[int, int | str | None]]:
    with place.database.session() as session:
        return list(count_by_database(SessionSource(session), *task))


def _parse_all(queries: Sequence[Query], schema: Schema) -> tuple[dict[str, JoinQuery], dict[str, str]]:
    parsed: dict[str, JoinQuery] = {}
    unsupported: dict[str, str] = {}
    for query in queries:
        if query.id in parsed or query.id in unsupported:
            raise LabelError(f"two queries are called {query.id!r}: their labels could not be told apart")
        try:
            parsed[query.id] = parse(query.sql, schema)
        except UnsupportedQuery as error:
            unsupported[query.id] = error.reason
            logger.info("query %s has no labels: %s", query.id, error.reason)
    return parsed, unsupported
