"""Conditions sampled from column statistics, such that a given row fulfils them."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from pytest_pilotscope.queries.plaintokens import RESERVED
from pytest_pilotscope.queries.predicates import quote_identifier, quote_text

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

NUMBERS = ("smallint", "integer", "bigint", "numeric", "real", "double precision")
TIMES = ("date", "timestamp without time zone", "timestamp with time zone")
TEXTS = ("text", "character varying", "character")

ALL_KINDS = frozenset({"=", "<=", ">=", "Between", "InList", "Like", "NotLike", "IsNull", "NotIsNull", "Or"})
"""The kinds to sample if the workload has no conditions."""

_FEW = 200
"""A column with at most so many distinct values is compared by `=` and IN, even if the value is not a most common one."""

_PLAIN_NAME = re.compile("[a-z_][a-z0-9_]*")
_WORD = re.compile(r"[A-Za-z]{3,}")
_LIST = 5
_STATISTICS = """
    SELECT tablename, attname, n_distinct, most_common_vals::text::text[], histogram_bounds::text::text[], null_frac
    FROM pg_stats WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStatistics:
    """
    The planner's statistics of a column: its type, most common values and bounds of its histogram as text, in PostgreSQL's order.

    `few` tells whether it has few distinct values, `unique` whether all are different, `nulls` whether it has any NULL.
    """

    type: str
    common: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()
    few: bool = False
    unique: bool = False
    nulls: bool = False


def read_statistics(session: Session, types: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], ColumnStatistics]:
    """Return the statistics of columns (table, column) whose types are given; a column that was never analyzed has empty ones."""
    found = {column: ColumnStatistics(type=_bare(kind)) for column, kind in types.items()}
    for table, column, distinct, common, bounds, nulls in session.execute(_STATISTICS):
        if (table, column) in types:
            found[table, column] = ColumnStatistics(
                type=_bare(types[table, column]),
                common=tuple(common or ()),
                bounds=tuple(bounds or ()),
                few=0 < distinct <= _FEW,
                unique=distinct == -1,
                nulls=nulls > 0,
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionSampler:
    """A sampler of conditions of the given `kinds` (`ALL_KINDS` if there are none)."""

    rng: random.Random
    kinds: frozenset[str]

    def condition(self, alias: str, column: str, value: str | None, statistics: ColumnStatistics) -> str | None:
        """Return SQL that holds for a row with this value (as text), or None if no kind of condition fits it."""
        made = [make for kind, make in self._makers(value, statistics) if kind in self._wanted]
        text = self.rng.choice(made)() if made else None
        return text.format(c=f"{alias}.{name_sql(column)}") if text else None

    @property
    def _wanted(self) -> frozenset[str]:
        ranges = {">": ">=", "<": "<="}
        wanted = {ranges.get(kind, kind) for kind in self.kinds} & ALL_KINDS
        return frozenset(wanted) or ALL_KINDS

    def _makers(self, value: str | None, statistics: ColumnStatistics) -> Iterator[tuple[str, Callable[[], str | None]]]:
        if value is None:
            yield "IsNull", lambda: "{c} IS NULL"
        if value is None or (statistics.unique and statistics.type in NUMBERS):  # a number of its own for each row is an id
            return
        if statistics.nulls:
            yield "NotIsNull", lambda: "{c} IS NOT NULL"
        if statistics.few or value in statistics.common:
            yield "=", lambda: f"{{c}} = {self._constant(value, statistics)}"
            yield "InList", lambda: self._in_list(value, statistics)
        if statistics.type in NUMBERS or statistics.type in TIMES:
            yield from self._ranges(value, statistics)
        if statistics.type in TEXTS:
            yield from self._patterns(value, statistics)

    def _ranges(self, value: str, statistics: ColumnStatistics) -> Iterator[tuple[str, Callable[[], str | None]]]:
        order = _order(statistics)
        known = sorted({*statistics.common, *statistics.bounds, value}, key=order)
        below = [self._constant(bound, statistics) for bound in known if order(bound) <= order(value)]
        above = [self._constant(bound, statistics) for bound in known if order(bound) >= order(value)]
        yield "<=", lambda: f"{{c}} <= {self.rng.choice(above)}"
        yield ">=", lambda: f"{{c}} >= {self.rng.choice(below)}"
        yield "Between", lambda: f"{{c}} BETWEEN {self.rng.choice(below)} AND {self.rng.choice(above)}"

    def _patterns(self, value: str, statistics: ColumnStatistics) -> Iterator[tuple[str, Callable[[], str | None]]]:
        words = _WORD.findall(value)
        if not words:
            return
        other = [word for text in statistics.common for word in _WORD.findall(text) if word not in value]
        begins = _WORD.match(value)
        yield "Like", lambda: f"{{c}} LIKE {_literal('%' + self.rng.choice(words) + '%')}"
        if begins is not None:
            yield "Like", lambda: f"{{c}} LIKE {_literal(begins.group()[: self.rng.randint(1, 4)] + '%')}"
        if other:
            word, unlike = self.rng.choice(words), self.rng.choice(other)
            yield "NotLike", lambda: f"{{c}} NOT LIKE {_literal('%' + unlike + '%')}"
            yield "Or", lambda: f"({{c}} LIKE {_literal('%' + word + '%')} OR {{c}} LIKE {_literal('%' + unlike + '%')})"

    def _in_list(self, value: str, statistics: ColumnStatistics) -> str:
        others = [other for other in statistics.common if other != value]
        chosen = self.rng.sample(others, min(len(others), self.rng.randint(1, _LIST)))
        values = sorted([value, *chosen])
        return f"{{c}} IN ({', '.join(self._constant(one, statistics) for one in values)})"

    @staticmethod
    def _constant(value: str, statistics: ColumnStatistics) -> str:
        if statistics.type in NUMBERS:
            return value if _is_number(value) else _literal(value)
        if statistics.type in TIMES:
            return f"{_literal(value)}::{statistics.type}"
        return _literal(value)


def _literal(text: str) -> str:
    """Return a literal, safe within `str.format`."""
    return quote_text(text).replace("{", "{{").replace("}", "}}")


def _order(statistics: ColumnStatistics) -> Callable[[str], tuple[Decimal, str]]:
    """Return the sort key of PostgreSQL's order; ISO dates and times of one time zone are in the order of their texts."""
    return _number if statistics.type in NUMBERS else (lambda text: (Decimal(0), text))


def _number(text: str) -> tuple[Decimal, str]:
    """Return the sort key of a number: NaN, which Python does not compare, is above all others."""
    value = Decimal(text)
    return (Decimal("Infinity"), "NaN") if value.is_nan() else (value, "")


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False


def _bare(kind: str) -> str:
    """Return a type without its length."""
    return re.sub(r"\([^)]*\)", "", kind).strip()


def name_sql(name: str) -> str:
    """Return a name as people write it, quoted only if it must be."""
    return name if _PLAIN_NAME.fullmatch(name) and name not in RESERVED else quote_identifier(name)


def filterable(columns: Mapping[str, str], keys: Sequence[str]) -> list[str]:
    """Return the columns of a table that can have conditions: no keys, and of a type that the sampler knows."""
    return [name for name, kind in columns.items() if name not in keys and _bare(kind) in (*NUMBERS, *TIMES, *TEXTS, "boolean")]
