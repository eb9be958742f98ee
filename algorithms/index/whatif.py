"""
Two back ends for what-if questions to PostgreSQL.

`hypopg` asks about hypothetical indexes: it builds none, costs and sizes are estimates. `hidden` builds every candidate in a database of
our own and hides from the planner those that a question leaves out: exact, for more disk and time. The record has the name of the back end.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Literal, Protocol

from pytest_pilotscope.algorithms.index.costs import Answer, Question
from pytest_pilotscope.errors import StatementFailed, UsageError, named
from pytest_pilotscope.postgres import hypopg
from pytest_pilotscope.postgres.indexes import (
    TOO_LONG,
    HiddenIndexes,
    Index,
    create_index,
    has_fixed_length,
    index_size_bytes,
    is_partitioned,
)
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import has_extension

if TYPE_CHECKING:
    from pytest_pilotscope.provision.database import Database

BackEnd = Literal["auto", "hypopg", "hidden"]

CONNECTIONS = 2
"""The planner is one process per connection and bounds EXPLAIN: two connections answer nearly twice as fast."""

_BLOCK = 8
"""Questions that a connection takes at a time, at most."""


UNBUILDABLE_BYTES = 1 << 62
"""The size of an index that cannot be built: no budget has room for it."""

_WITH_HYPOPG = (
    "HypoPG (Debian: postgresql-NN-hypopg) can tell: use --index-whatif hypopg with --pg-bindir /usr/lib/postgresql/NN/bin, or on a "
    "server of yours that has it"
)

logger = logging.getLogger(__name__)


class _Refused:
    """Indexes that cannot be built because a value is too long for a btree, and all indexes that have their columns and more."""

    def __init__(self) -> None:
        self._indexes: set[Index] = set()

    def __contains__(self, index: Index) -> bool:
        return any(refused.table == index.table and set(refused.columns) <= set(index.columns) for refused in self._indexes)

    @contextmanager
    def noting(self, index: Index) -> Iterator[None]:
        """Log and remember an index if the block fails for that reason."""
        try:
            yield
        except StatementFailed as error:
            if error.sqlstate != TOO_LONG:
                raise
            logger.warning("no index on %s is considered: %s", index, error.reason)
            self._indexes.add(index)


class _Planner(Protocol):
    """Answers one question at a time on a session of its own."""

    def answer(self, question: Question) -> Answer:
        """Return the cost and the used indexes."""


class _Workers:
    """Planners that answer questions in parallel, a block of neighbours at a time."""

    def __init__(self, planners: Sequence[_Planner]) -> None:
        self._planners = planners
        self._pool = ThreadPoolExecutor(max_workers=len(planners), thread_name_prefix="pilotscope-whatif")

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Return one answer per question; an error of one planner, or Ctrl-C, stops the others after their current question."""
        answers: list[Answer | None] = [None] * len(questions)
        order = iter(range(len(questions)))
        size = min(_BLOCK, -(-len(questions) // len(self._planners)))
        lock, stop = threading.Lock(), threading.Event()

        def work(planner: _Planner) -> None:
            while not stop.is_set():
                with lock:
                    block = list(islice(order, size))
                if not block:
                    return
                for position in block:
                    if stop.is_set():
                        return
                    answers[position] = planner.answer(questions[position])

        running = [self._pool.submit(work, planner) for planner in self._planners[: len(questions)]]
        try:
            for future in running:
                future.result()
        finally:
            stop.set()
            wait(running)
        return [answer for answer in answers if answer is not None]

    def close(self) -> None:
        """End the threads."""
        self._pool.shutdown()


class OpenWhatIf(ABC):
    """A back end with several connections, which `open_what_if` opens and closes; `name` is the one in the record."""

    name = ""

    def __init__(self, sessions: Sequence[hypopg.HypotheticalIndexes] | Sequence[HiddenIndexes], planners: Sequence[_Planner]) -> None:
        self._opened = sessions
        self._refused = _Refused()
        self._workers = _Workers(planners)

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Return one answer per question, in their order."""
        return self._workers.ask(questions)

    @abstractmethod
    def size_bytes(self, index: Index) -> int:
        """Return the storage of an index, `UNBUILDABLE_BYTES` if it cannot be built."""

    def left_out(self, tables: Iterable[str]) -> frozenset[str]:
        """Return those of the tables about whose indexes nothing can be asked, and log them."""
        return frozenset()

    def confirm(self, indexes: Sequence[Index]) -> bool:
        """Tell whether all of these can be built; from now on the others have `UNBUILDABLE_BYTES`."""
        return not any(index in self._refused for index in indexes)

    def close(self) -> None:
        """End the threads, and forget or show the indexes again."""
        self._workers.close()
        for session in self._opened:
            session.close()


class HypotheticalWhatIf(OpenWhatIf):
    """Questions to HypoPG, one set of hypothetical indexes per session."""

    name = "hypopg"

    def __init__(self, sessions: Sequence[Session]) -> None:
        hypopg.install(sessions[0])
        self._builder = sessions[0]
        self._confirmed: set[Index] = set()
        self._sessions = [hypopg.HypotheticalIndexes(session) for session in sessions]
        super().__init__(self._sessions, [_Hypothesizing(session) for session in self._sessions])

    def size_bytes(self, index: Index) -> int:
        """Return HypoPG's estimate."""
        if index not in self._refused:
            with self._refused.noting(index):
                return self._sessions[0].size_bytes(index)
        return UNBUILDABLE_BYTES

    def confirm(self, indexes: Sequence[Index]) -> bool:
        """Build each index with columns of variable length once and roll it back, because HypoPG reads no values."""
        for index in indexes:
            if index not in self._confirmed and not has_fixed_length(self._builder, index):
                with self._refused.noting(index), self._builder.rolled_back():
                    create_index(self._builder, index)
            self._confirmed.add(index)
        return super().confirm(indexes)


class HiddenWhatIf(OpenWhatIf):
    """
    Questions to real indexes that are hidden from the planner; the sessions must be in a database of our own.

    The first question about an index builds it, and it stays until the database is dropped. There are none on partitioned tables.
    """

    name = "hidden"

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._builder = sessions[0]
        self._built: dict[Index, str] = {}
        self._sizes: dict[Index, int] = {}
        hiding = [HiddenIndexes(session) for session in sessions]
        super().__init__(hiding, [_Hiding(session, self._built) for session in hiding])

    def left_out(self, tables: Iterable[str]) -> frozenset[str]:
        """Return the partitioned tables: built indexes cannot be told apart in plans of their partitions."""
        partitioned = sorted(table for table in tables if is_partitioned(self._builder, table))
        if partitioned:
            logger.warning(
                "no index is selected on %s: of a partitioned table, built indexes cannot be told apart in plans; %s",
                named(partitioned),
                _WITH_HYPOPG,
            )
        return frozenset(partitioned)

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Build the indexes that do not exist yet, and return one answer per question, in their order."""
        for index in sorted(frozenset[Index]().union(*(question.indexes for question in questions)) - self._sizes.keys()):
            self.size_bytes(index)
        return super().ask(questions)

    def size_bytes(self, index: Index) -> int:
        """Return the real size; build the index if it does not exist."""
        if index not in self._sizes and index not in self._refused:
            with self._refused.noting(index):
                create_index(self._builder, index)
                self._built[index] = index.name
                self._sizes[index] = index_size_bytes(self._builder, index)
        return self._sizes.get(index, UNBUILDABLE_BYTES)


@dataclass(frozen=True, slots=True)
class _Hypothesizing:
    session: hypopg.HypotheticalIndexes

    def answer(self, question: Question) -> Answer:
        return Answer(*self.session.cost(question.query.sql, question.indexes, matters=question.query.touched_by))


@dataclass(frozen=True, slots=True)
class _Hiding:
    """A session's hidden indexes, and the growing list of the built ones with their names."""

    session: HiddenIndexes
    built: dict[Index, str]

    def answer(self, question: Question) -> Answer:
        return Answer(*self.session.cost(question.query.sql, question.indexes, self.built))


@contextmanager
def open_what_if(database: Database, back_end: BackEnd = "auto", *, connections: int = CONNECTIONS) -> Iterator[OpenWhatIf]:
    """
    Open a back end in `database`, which must be ours to change: HypoPG if it can be used, else built and hidden indexes.

    `back_end` names one of them; UsageError if that one, or with `auto` each of them, is missing.
    """
    with ExitStack() as stack:
        sessions = [stack.enter_context(database.session()) for _ in range(connections)]
        what_if = _choose(sessions, back_end)
        stack.callback(what_if.close)
        yield what_if


def check_what_if(database: Database) -> None:
    """Raise `UsageError` if neither HypoPG nor the library can answer what-if questions in copies of a database."""
    with database.session() as session:
        if not has_extension(session) and (obstacle := hypopg.obstacle(session)):
            raise UsageError(f"{obstacle}, and {hypopg.NO_WHAT_IF}")


def _choose(sessions: Sequence[Session], back_end: BackEnd) -> OpenWhatIf:
    alternative = ""
    if back_end != "hidden":
        obstacle = hypopg.obstacle(sessions[0])
        if obstacle is None:
            return HypotheticalWhatIf(sessions)
        if back_end == "hypopg":
            raise UsageError(
                f"{obstacle}; install it on the server's machine (Debian: postgresql-NN-hypopg) and have a superuser run CREATE EXTENSION "
                "hypopg in the database that is copied, or use --index-whatif hidden"
            )
        alternative = f"{obstacle}, and "
    if not has_extension(sessions[0]):
        raise UsageError(f"{alternative}{hypopg.NO_WHAT_IF}")
    return HiddenWhatIf(sessions)
