"""Predicates drawn from the data's own quantiles, in the frequencies and with the selectivities of STATS-CEB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .draws import Draws
from .join_templates import ALIASES, figures
from .tables import Table

MILLION = 1_000_000
TEST, TRAIN = 0, 1  # which of the two figures of STATS-CEB a split follows
_HALVINGS = 4  # how often a strict draw narrows a range


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicate:
    """`alias.column operator value`, with operator one of =, <=, >=."""

    alias: str
    column: str
    operator: str
    value: int

    @property
    def sql(self) -> str:
        """The predicate as SQL."""
        return f"{self.alias}.{self.column} {self.operator} {self.value}"

    def holds(self, table: Table) -> NDArray[np.bool_]:
        """Return a mask over the rows of the table; NULL fails."""
        column = table[self.column]
        compared: NDArray[np.bool_]
        if self.operator == "=":
            compared = column.values == self.value
        elif self.operator == "<=":
            compared = column.values <= self.value
        else:
            compared = column.values >= self.value
        return compared if column.nulls is None else compared & ~column.nulls


class PredicateSource:
    """A source of predicates on generated tables; it keeps sorted columns, so that a quantile is one look-up."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables
        self._sorted: dict[tuple[str, str], NDArray[np.int32]] = {}
        self._columns: dict[str, list[str]] = {}
        for name in figures()["predicates"]:
            table, column = name.split(".")
            self._columns.setdefault(table, []).append(column)

    def draw(self, draws: Draws, aliases: Sequence[str], split: int, strictness: int) -> list[Predicate]:
        """
        Draw predicates on some of the relations, at least one in all.

        `strictness` 0 follows STATS-CEB; each step up filters more relations and keeps a smaller share of each range.
        """
        while True:
            predicates: list[Predicate] = []
            for alias in aliases:
                table = ALIASES[alias]
                habits = figures()["tables"][table]
                usual = habits["filtered_per_mille"][split]
                if usual and _chance(draws) < usual * 1000 + strictness * 100_000 * (table != "users"):
                    predicates += self._on_relation(draws, alias, table, habits["more_per_mille"][split] * 1000, split, strictness)
            if predicates:
                return predicates

    def always_holds(self, predicate: Predicate) -> bool:
        """Tell whether every row passes: the bound is at the very end of a column without NULLs."""
        table = ALIASES[predicate.alias]
        values = self._values(table, predicate.column)
        if predicate.operator == "=" or len(values) < self._tables[table].rows:
            return False
        return bool(values[0] >= predicate.value if predicate.operator == ">=" else values[-1] <= predicate.value)

    def _on_relation(self, draws: Draws, alias: str, table: str, more: int, split: int, strictness: int) -> list[Predicate]:
        columns = self._columns[table]
        frequency = [sum(row[split] for row in figures()["predicates"][f"{table}.{column}"].values()) for column in columns]
        first = _weighted(draws, frequency)
        chosen = [first] + [i for i in range(len(columns)) if i != first and frequency[i] and _chance(draws) < more]
        predicates = []
        for i in sorted(chosen):
            predicates += self._on_column(draws, alias, table, columns[i], split, strictness)
        return predicates

    def _on_column(self, draws: Draws, alias: str, table: str, column: str, split: int, strictness: int) -> list[Predicate]:
        kinds = figures()["predicates"][f"{table}.{column}"]
        kind = list(kinds)[_weighted(draws, [row[split] for row in kinds.values()])]
        values = self._values(table, column)
        if kind == "eq":
            return [Predicate(alias=alias, column=column, operator="=", value=int(values[draws.one_below(len(values))]))]
        kept = _selectivity(draws, kinds[kind][2:])
        if strictness and table != "users":  # heavy users make the joins hard: keep them
            kept = kept * (MILLION - draws.one_below(min(strictness, _HALVINGS) * MILLION // (_HALVINGS + 1))) // MILLION
        cut = MILLION - kept
        low = {"le": 0, "ge": cut, "both": cut * draws.one_below(1000) // 1000}[kind]
        predicates = []
        if kind != "le":
            predicates.append(Predicate(alias=alias, column=column, operator=">=", value=_quantile(values, low)))
        if kind != "ge":
            predicates.append(Predicate(alias=alias, column=column, operator="<=", value=_quantile(values, low + kept)))
        return predicates

    def _values(self, table: str, column: str) -> NDArray[np.int32]:
        if (table, column) not in self._sorted:
            data = self._tables[table][column]
            self._sorted[table, column] = np.sort(data.values[data.present()])
        return self._sorted[table, column]


def _chance(draws: Draws) -> int:
    return draws.one_below(MILLION)


def _weighted(draws: Draws, weights: Sequence[int]) -> int:
    """Draw an index, in proportion to the weights."""
    dice = draws.one_below(sum(weights))
    for index, weight in enumerate(weights):
        dice -= weight
        if dice < 0:
            return index
    raise AssertionError("the dice are below the sum of the weights")


def _selectivity(draws: Draws, known: Sequence[int]) -> int:
    """Draw a share of the non-null rows in millionths, from its 10 %, 50 % and 90 % quantiles; beyond them the tails go on."""
    p10, p50, p90 = known
    points = (max(20_000, p10 - 3 * (p50 - p10)), p10, p50, p90, MILLION)
    shares = (0, 100_000, 500_000, 900_000, MILLION)
    dice = _chance(draws)
    right = next(i for i, share in enumerate(shares) if dice < share)
    left = right - 1
    return points[left] + (points[right] - points[left]) * (dice - shares[left]) // (shares[right] - shares[left])


def _quantile(values: NDArray[np.int32], position: int) -> int:
    """Return the smallest value with at least this share (in millionths) of all values at or below it."""
    return int(values[min(max(-(-len(values) * position // MILLION) - 1, 0), len(values) - 1)])
