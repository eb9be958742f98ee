"""
The cost of keeping indexes up to date for the scripts of `--writes`, in the units of the planner, which charges nothing for it.

Scripts run in a database of ours, and PostgreSQL counts the rows that they insert and update. Each new row needs an entry in every index
of its table. So does a new version of a row, unless it is heap-only (src/backend/access/heap/README.HOT): its page has room, and no index
has a column that the statement changes. One index on such a column brings entries in all the others, too.

An entry costs what the planner charges for finding its place (`btcostestimate` and `genericcostestimate` in
src/backend/utils/adt/selfuncs.c): the descent, a page of the leaf level, and an entry in it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, TypeVar

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from pytest_pilotscope.algorithms.index.advisor import StartingPoint
from pytest_pilotscope.algorithms.index.extend import Configuration
from pytest_pilotscope.postgres.indexes import Index
from pytest_pilotscope.postgres.writing import script_scale
from pytest_pilotscope.queries.scripts import CONTROLS, ScriptRun, Writes, first_word

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.index.costs import WhatIf
    from pytest_pilotscope.postgres.session import Session

K = TypeVar("K")

RUNS = 200
"""Runs of scripts whose rows are counted."""

_PAGE_BYTES, _FANOUT = 8192, 256
_CPU_PER_PAGE = 50.0
"""DEFAULT_PAGE_CPU_MULTIPLIER of selfuncs.c: operators that the visit of a page of an index costs."""

_COUNTS = """
    SELECT t.relname::text, sum(s.n_tup_ins)::int, sum(s.n_tup_upd - s.n_tup_hot_upd)::int, sum(s.n_tup_hot_upd)::int
    FROM pg_stat_xact_user_tables AS s JOIN pg_class AS t ON t.oid = coalesce(pg_partition_root(s.relid), s.relid)
    GROUP BY t.relname
"""
_CONSTANTS = """
    SELECT current_setting('cpu_operator_cost')::float8, current_setting('cpu_index_tuple_cost')::float8,
           current_setting('random_page_cost')::float8
"""
_ROWS = "SELECT relname::text, reltuples::float8 FROM pg_class WHERE relkind IN ('r', 'm', 'p') AND pg_table_is_visible(oid)"

Columns = frozenset[str] | None
"""The columns that a statement changes; None if they are not known, and all may change."""


_Rows = tuple[int, int, int]
"""Rows that were inserted, and updated with entries and without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """
    The rows that a run of a script inserts, by table, and updates, by table and changed columns: those that need entries in all indexes of
    the table, and those that are `heap_only` with the indexes that are kept. All are means.
    """

    inserted: Mapping[str, float]
    updated: Mapping[tuple[str, Columns], float]
    heap_only: Mapping[tuple[str, Columns], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """The cost of the entries that chosen indexes bring to a workload with `per_query` runs of scripts for each query."""

    written: Written
    per_query: float
    kept: Mapping[Index, int]
    table_rows: Mapping[str, float]
    operator_cost: float
    entry_cost: float
    page_cost: float
    what_if: WhatIf
    _costs: dict[Index, float] = field(default_factory=dict)

    def cost(self, configuration: Configuration) -> float:
        """Return what these indexes add for each query, in optimizer units."""
        return self.per_query * sum(number * self._cost(index) for index, number in self.entries(configuration).items())

    def entries(self, configuration: Configuration) -> dict[Index, float]:
        """Return the entries that a run of a script makes in each index only because these indexes exist."""
        found: dict[Index, float] = defaultdict(float)
        for index in configuration:
            if index.table in self.written.inserted:
                found[index] += self.written.inserted[index.table]
        for (table, _), number in self.written.updated.items():
            for index in configuration:
                if index.table == table:
                    found[index] += number
        for (table, columns), number in self.written.heap_only.items():
            if any(index.table == table and (columns is None or columns.intersection(index.columns)) for index in configuration):
                for index in (*configuration, *self.kept):
                    if index.table == table:
                        found[index] += number
        return dict(found)

    def _cost(self, index: Index) -> float:
        """Return the cost of an entry: a descent by comparisons and by pages, a leaf page, and the entry in it."""
        if index not in self._costs:
            size_bytes = self.kept.get(index) or self.what_if.size_bytes(index)
            height = math.ceil(math.log(max(size_bytes / _PAGE_BYTES, 1), _FANOUT))
            comparisons = math.ceil(math.log2(max(self.table_rows.get(index.table, 1.0), 1)))
            descent = (comparisons + (height + 1) * _CPU_PER_PAGE) * self.operator_cost
            self._costs[index] = descent + self.entry_cost + self.page_cost
        return self._costs[index]


def maintenance_of(session: Session, writes: Writes, start: StartingPoint, what_if: WhatIf, written: Written) -> Maintenance:
    """Return the cost of maintenance in the database of a session, on top of the kept indexes."""
    ((operator_cost, entry_cost, page_cost),) = session.execute(_CONSTANTS)
    return Maintenance(
        written=written,
        per_query=writes.per_query,
        kept={existing.index: existing.size_bytes for existing in start.kept if existing.index is not None},
        table_rows=dict(session.execute(_ROWS)),
        operator_cost=operator_cost,
        entry_cost=entry_cost,
        page_cost=page_cost,
        what_if=what_if,
    )


def count_written(session: Session, writes: Writes, seed: int) -> Written:
    """Run scripts in transactions that are rolled back, and count their rows. The database must be one that is dropped afterwards."""
    inserted: dict[str, float] = defaultdict(float)
    updated: dict[tuple[str, Columns], float] = defaultdict(float)
    heap_only: dict[tuple[str, Columns], float] = defaultdict(float)
    drawn = writes.draw(RUNS, Random(seed), {"scale": script_scale(session), "client_id": 0})  # noqa: S311  # no secret
    for run in drawn:
        with session.rolled_back():
            for table, columns, (new, with_entries, without) in _rows_of(session, run):
                inserted[table] += new / RUNS
                updated[table, columns] += with_entries / RUNS
                heap_only[table, columns] += without / RUNS
    return Written(inserted=_present(inserted), updated=_present(updated), heap_only=_present(heap_only))


def _present(rows: Mapping[K, float]) -> dict[K, float]:
    return {key: number for key, number in rows.items() if number}


def _rows_of(session: Session, run: ScriptRun) -> Iterator[tuple[str, Columns, _Rows]]:
    """Yield the rows that each statement of a script writes, by table, with the columns that it changes."""
    before = _counts(session)  # PostgreSQL may still have some of the transactions before
    for sql in run.statements:
        if first_word(sql) in CONTROLS:
            continue
        session.execute(sql)
        changed = changed_columns(sql)
        after = _counts(session)
        for table, now in after.items():
            then = before.get(table, (0, 0, 0))
            yield table, changed.get(table), (now[0] - then[0], now[1] - then[1], now[2] - then[2])
        before = after


def _counts(session: Session) -> dict[str, _Rows]:
    return {table: (new, with_entries, without) for table, new, with_entries, without in session.execute(_COUNTS)}


def changed_columns(sql: str) -> Mapping[str, frozenset[str]]:
    """Return table -> the columns that a statement sets in existing rows, as far as it can be read."""
    try:
        tree = sqlglot.parse_one(sql, dialect="postgres")
    except (SqlglotError, RecursionError):
        return {}
    found: dict[str, frozenset[str]] = {}
    for node in tree.find_all(exp.Update, exp.OnConflict):
        holder = node.find_ancestor(exp.Merge, exp.Insert) if isinstance(node, exp.OnConflict) or node.this is None else node
        target = holder.this.find(exp.Table) if holder is not None else None
        columns = frozenset(_set_columns(node.expressions))
        if target is not None and columns:
            name = _name(target.this)
            found[name] = found.get(name, frozenset()) | columns
    return found


def _set_columns(assignments: Iterable[exp.Expression]) -> Iterator[str]:
    for assignment in assignments:
        if isinstance(assignment, exp.EQ):
            yield from (_name(column.this) for column in assignment.this.find_all(exp.Column))


def _name(identifier: exp.Expression) -> str:
    return identifier.name if identifier.args.get("quoted") else identifier.name.lower()
