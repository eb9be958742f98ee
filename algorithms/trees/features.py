"""Simple features of a set of relations: the textbook's estimate, how selective its filters are, and the tables and columns it joins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.textbook import Textbook, membership
from pytest_pilotscope.queries.joins import JoinQuery, Schema

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Featurizer:
    """Writes the features of a schema's sets of relations."""

    schema: Schema
    textbook: Textbook
    _tables: dict[str, int] = field(init=False)
    _columns: dict[tuple[str, str], int] = field(init=False)

    def __post_init__(self) -> None:
        columns = [(table, column) for table, types in self.schema.items() for column in types]
        object.__setattr__(self, "_tables", {table: position for position, table in enumerate(self.schema)})
        object.__setattr__(self, "_columns", {column: position for position, column in enumerate(columns)})

    @property
    def width(self) -> int:
        """Features of a set: three of all of it, two for each table, one for each column."""
        return 3 + 2 * len(self._tables) + len(self._columns)

    def features(self, query: JoinQuery, masks: Sequence[int]) -> Floats:
        """
        Return the (S, F) features of sets of relations.

        First the logarithms of the textbook's estimate and of the product of the filtered tables, and the number of relations. Then for
        each table how often the set has it, and the logarithm of the share of rows that its filters keep. Last, for each column how often
        it is joined.
        """
        members = membership(query, masks)
        relations = list(query.relations.values())
        there = np.flatnonzero(members.any(axis=0))
        tables = np.array([self._tables[relations[bit].table] for bit in there])
        filtered = np.log([self.textbook.filtered(relations[bit]) for bit in there])
        whole = np.log([max(self.textbook.table_rows[relations[bit].table], 1) for bit in there])
        used = members[:, there].astype(np.float64)
        of_table = np.eye(len(self._tables))[tables]  # (R, T)
        found = [
            np.log(self.textbook.rows(query, masks))[:, None],
            (used @ filtered)[:, None],
            used.sum(axis=1)[:, None],
            used @ of_table,
            used @ (of_table * (filtered - whole)[:, None]),
            self._joined(query, members),
        ]
        return np.hstack(found).astype(np.float32)

    def _joined(self, query: JoinQuery, members: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        """Return for (S,) sets and (C,) columns how many relations are joined by the column."""
        counts = np.zeros((len(members), len(self._columns)))
        for equal in query.classes:
            positions = [query.aliases.index(ref.alias) for ref in equal]
            there = members[:, positions]
            joined = there & (there.sum(axis=1) > 1)[:, None]
            for ref, column in zip(equal, joined.T, strict=True):
                if column.any():
                    counts[:, self._columns[query.relations[ref.alias].table, ref.column]] += column
        return counts
