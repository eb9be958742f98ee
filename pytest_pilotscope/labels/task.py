"""What is to be counted for one query, and the counting of it in this process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_pilotscope.core.joins import JoinQuery, Schema
from pytest_pilotscope.labels.columns import ColumnStore
from pytest_pilotscope.labels.counting import QueryCounter, Vectors
from pytest_pilotscope.labels.cyclic import TooLarge
from pytest_pilotscope.labels.domains import Domains, KeyColumn
from pytest_pilotscope.labels.filtered import Filters

_FILTERS_BYTES = 512 * 1024**2
_VECTORS_BYTES = 1024**3


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """
    Subplans of one query that have no label yet, as bit masks, fewer relations first; `empty` are those known to have no rows.
    """

    query: JoinQuery
    masks: tuple[int, ...]
    empty: tuple[int, ...] = ()


@dataclass(slots=True)
class Counter:
    """
    Counts in memory what has equalities only; everything it needs must be in the folder.

    It is one of `processes` that share the memory for filtered relations and intermediate counts, 1.5 GB in all.
    """

    folder: Path
    schema: Schema
    classes: Sequence[Sequence[KeyColumn]]
    processes: int = 1
    _filters: Filters = field(init=False)
    _vectors: Vectors = field(init=False)

    def __post_init__(self) -> None:
        store = ColumnStore(self.folder, self.schema)
        self._filters = Filters(store, Domains(self.classes, store), _FILTERS_BYTES // self.processes)
        self._vectors = Vectors(self._filters, _VECTORS_BYTES // self.processes)

    def count(self, task: Task) -> list[int | None]:
        """Count the masks of a task, in their order; None for a cycle that is too much to count in memory."""
        counter = QueryCounter(task.query, self._filters, self._vectors)
        for mask in task.empty:
            counter.note_empty(mask)
        return [_count(counter, mask) for mask in task.masks]


def key_columns(queries: Iterable[JoinQuery]) -> list[list[KeyColumn]]:
    """Return the columns of each equivalence class of some queries, by table."""
    return [[(query.relations[ref.alias].table, ref.column) for ref in members] for query in queries for members in query.classes]


def _count(counter: QueryCounter, mask: int) -> int | None:
    try:
        return counter.count(mask)
    except TooLarge:
        return None
