"""Upper bounds of the rows that pass a filter: exact counts of the most frequent values of a column, and of ranges of its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.table_samples import TableSample
from pytest_pilotscope.algorithms.three_valued import truth
from pytest_pilotscope.queries.joins import Relation
from pytest_pilotscope.queries.predicates import And, Comparison, Condition, InList, IsNull, Or, condition_columns


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnCounts:
    """
    Exact counts of the rows of a column.

    `values` are NULL and the most frequent values, with `value_rows`, and no other value has more than `most_other` rows (0: there is no
    other). `lows` and `highs` are the ends of ranges that hold all values together, with `range_rows`; there are none where only PostgreSQL
    knows the order of the values.
    """

    rows: int
    values: TableSample
    value_rows: npt.NDArray[np.int64]
    most_other: int
    lows: TableSample
    highs: TableSample
    range_rows: npt.NDArray[np.int64]

    def at_most(self, condition: Condition) -> float:
        """Return the most rows for which a condition on this column alone can be true; `rows` where nothing is known."""
        if isinstance(condition, InList):
            return min(sum(self._equal(Comparison(condition.column, "=", value)) for value in condition.values), self.rows)
        if isinstance(condition, Comparison) and condition.operator == "=":
            return self._equal(condition)
        passing = truth(condition, self.values.column)
        known = float(self.rows)
        if passing is not None and (not self.most_other or isinstance(condition, IsNull)):
            known = float(self.value_rows[passing].sum())
        if isinstance(condition, Comparison) and condition.operator != "<>":
            ends = self.lows if condition.operator in ("<", "<=") else self.highs
            touched = truth(condition, ends.column)
            if touched is not None and len(self.range_rows):
                known = min(known, float(self.range_rows[touched].sum()))
        return known

    def _equal(self, condition: Comparison) -> float:
        """Return the rows of a value, or of the most frequent one of the other values."""
        passing = truth(condition, self.values.column)
        if passing is None:
            return float(max(self.most_other, self.value_rows.max(initial=0)))
        return float(self.value_rows[passing].sum()) if passing.any() else float(self.most_other)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterBound:
    """The most rows of relations; `columns` are the counts by table and column, `table_rows` the rows of the tables."""

    table_rows: Mapping[str, int]
    columns: Mapping[tuple[str, str], ColumnCounts]

    def rows(self, relation: Relation) -> float:
        """Return the most rows of a relation after its filters."""
        all_rows = float(self.table_rows[relation.table])
        return min((self._at_most(relation.table, predicate.condition) for predicate in relation.predicates), default=all_rows)

    def _at_most(self, table: str, condition: Condition) -> float:
        columns = set(condition_columns(condition))
        counts = self.columns.get((table, next(iter(columns)))) if len(columns) == 1 else None
        found = float(self.table_rows[table]) if counts is None else counts.at_most(condition)
        if isinstance(condition, And):
            found = min(found, *(self._at_most(table, child) for child in condition.children))
        if isinstance(condition, Or):
            found = min(found, sum(self._at_most(table, child) for child in condition.children))
        return found
