"""
The planner's view of a statement: levels, relations, conditions, and the joins that make each set of relations.

The planner rewrites a statement by rules that change from version to version: it moves constants through equalities, derives filters from
an OR, reduces outer joins and removes joins. The library reports the result (`meaning_report` reads it), so no rule is repeated here.
`countsql` writes the SQL that counts a set of relations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

from pytest_pilotscope.queries.connectivity import merged
from pytest_pilotscope.queries.joins import ColumnRef, JoinQuery, KeyType, LeveledSubplan, Subplan

Volatility: TypeAlias = Literal["i", "s", "v"]
"""As in pg_proc.provolatile: immutable, stable within a statement, volatile. Counts by immutable SQL are kept, others are not."""

Compared: TypeAlias = tuple[ColumnRef, KeyType]
"""A column, and the type in which it is compared: one column can be compared in two types, or by two collations."""

JoinKind: TypeAlias = Literal["INNER", "LEFT", "FULL", "SEMI", "ANTI", "UNIQUE"]

MARK = '"pilotscope ?".'
"""The library writes this mark into its SQL where PostgreSQL cannot deparse an expression outside of its query (texts.c)."""


class NoCount(Exception):
    """No SQL counts a set of relations; the text is the reason."""


class CountSql(NamedTuple):
    """A statement that counts the rows of a set."""

    sql: str
    volatility: Volatility


class Member(NamedTuple):
    """
    An expression of an equivalence class.

    `type` is the object id of its type. `column` and `key` are known where the expression is nothing but a column.
    """

    relations: int
    sql: str
    type: int
    column: ColumnRef | None
    key: KeyType | None


class Clause(NamedTuple):
    """
    A condition on relations, as SQL with their names.

    An equality of an equivalence class has `left` and `right`, and `members`, each of which may replace them.
    """

    sql: str
    relations: int
    volatility: Volatility
    left: Member | None = None
    right: Member | None = None
    members: tuple[Member, ...] = ()

    @property
    def equal(self) -> tuple[Compared, Compared] | None:
        """The two columns that are compared in one type, None for any other clause."""
        left, right = self.left, self.right
        if left is None or right is None or left.column is None or right.column is None or left.key is None or left.key != right.key:
            return None
        return (left.column, left.key), (right.column, left.key)


class Pair(NamedTuple):
    """
    Two sets of relations that a join puts together.

    `where` filters the result of an outer join; the inner side is made distinct by the expressions `unique`.
    """

    kind: JoinKind
    outer: int
    inner: int
    on: tuple[int, ...]
    where: tuple[int, ...]
    unique: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """
    A branch of a UNION ALL: `targets` of a table (`item`), or of another level with `columns` columns, by its `name`.

    `filters` are the conditions above the UNION ALL, without those that the planner moved into the branch's own level.
    """

    name: str
    item: str
    level: int | None
    columns: int
    targets: tuple[str, ...]
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """
    A relation of a level as an item of FROM.

    It is a table (`item` names it), an expression (`item`) with `columns` columns, the result of another level, or a UNION ALL of branches.
    If no SQL describes it, `why` is the reason. `lateral` are the relations whose rows it needs, `filters` the numbers of its clauses.
    """

    name: str
    item: str
    is_table: bool
    columns: int
    level: int | None
    branches: tuple[Branch, ...]
    why: str | None
    lateral: int
    filters: tuple[int, ...]
    volatility: Volatility
    empty: bool


Operation: TypeAlias = "int | tuple[str, Operation, Operation]"
"""A level, or UNION, INTERSECT, EXCEPT (with ALL) of two of them."""


class Placeholder(NamedTuple):
    """An expression that is computed where the relations `at` are joined, and is NULL where an outer join above finds no match."""

    at: int
    lateral: int
    sql: str
    volatility: Volatility


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """
    The result of a subquery, computed from the join of all its relations. `where` are the conditions of one without relations.

    A `single` one is one row, whatever the join has. A UNION, INTERSECT or EXCEPT has an `operation` instead: a tree of words and the
    numbers of levels. `order`, `offset` and `limit` (`ties`: WITH TIES) say which rows are taken.
    """

    why: str | None
    operation: Operation | None = None
    targets: tuple[str, ...] = ()
    relations: int = 0
    group: tuple[str, ...] = ()
    having: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    distinct: bool = False
    distinct_on: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    limit: str | None = None
    ties: str | None = None
    offset: str | None = None
    single: bool = False
    volatility: Volatility = "i"


class Subquery(NamedTuple):
    """A subquery inside an expression. `test` compares its columns, which stand in it as the parameters `columns`."""

    kind: Literal["EXISTS", "ANY", "ALL", "EXPR", "ROW", "ARRAY", "other"]
    level: int
    direct: bool
    columns: tuple[int, ...]
    test: str | None


class Parameter(NamedTuple):
    """A value that is handed to an inner level: an expression of the level around it, or a column of a subquery that runs first."""

    level: int = 0
    sql: str = ""
    plan: int | None = None
    column: int = 1


@dataclass(frozen=True, kw_only=True)
class Level:
    """
    One query level: the statement itself, or a subquery that is planned on its own.

    `query.masks` are the sets that the planner considered, `rows` its estimates by mask. `pairs` are the joins that make a set; a set that
    the planner proved `empty` has none.
    """

    id: int
    outermost: bool
    query: JoinQuery
    rows: Mapping[int, float]
    sources: tuple[Source, ...]
    clauses: tuple[Clause, ...]
    pairs: Mapping[int, tuple[Pair, ...]]
    empty: frozenset[int]
    placeholders: Mapping[int, Placeholder]
    result: Result | None
    statement: Statement = field(repr=False)
    _linked: dict[int, int | None] = field(default_factory=dict, repr=False)

    def in_memory(self, mask: int) -> bool:
        """Tell whether a set is an inner join of tables by equality of columns, each with immutable predicates only."""
        clauses = self._links(mask)
        if clauses is None:
            return False
        classes = self._classes_within(mask)
        return set(merged(self._equalities(clauses, mask))) == classes and all(map(self._filtered_alike, classes))

    def count_sql(self, mask: int) -> CountSql:
        """Return the SQL that counts a set; raises `NoCount`."""
        from pytest_pilotscope.queries.countsql import count_sql

        return count_sql(self, mask)

    def _links(self, mask: int) -> int | None:
        """Return the numbers of the clauses of an inner join of tables, as a bit mask; None for any other set."""
        if mask not in self._linked:
            self._linked[mask] = self._find_links(mask)
        return self._linked[mask]

    def _find_links(self, mask: int) -> int | None:
        if mask in self.empty:
            return None
        if mask.bit_count() == 1:
            return 0 if self._is_filtered_table(self.sources[mask.bit_length() - 1]) else None
        for pair in self.pairs.get(mask, ()):
            if pair.kind != "INNER" or any(self.clauses[number].equal is None for number in pair.on):
                continue
            outer, inner = self._links(pair.outer), self._links(pair.inner)
            if outer is not None and inner is not None:
                return outer | inner | sum(1 << number for number in set(pair.on))
        return None

    def _is_filtered_table(self, source: Source) -> bool:
        filters = [self.clauses[number] for number in source.filters]
        immutable = all(clause.volatility == "i" and MARK not in clause.sql for clause in filters)
        return source.is_table and source.why is None and not source.empty and immutable

    def _equalities(self, clauses: int, mask: int) -> Iterator[tuple[Compared, Compared]]:
        """Yield the pairs of columns that the clauses, and the filters of the relations, make equal."""
        for number, clause in enumerate(self.clauses):
            if clauses >> number & 1 and clause.equal is not None:
                yield clause.equal
        for position, alias in enumerate(self.query.aliases):
            if mask >> position & 1:
                yield from self._filtered_equal[alias]

    @cached_property
    def _filtered_equal(self) -> Mapping[str, Sequence[tuple[Compared, Compared]]]:
        """The columns of each relation that its own filters make equal."""
        return {
            alias: [equal for number in source.filters if (equal := self.clauses[number].equal) is not None]
            for alias, source in zip(self.query.aliases, self.sources, strict=True)
        }

    def _filtered_alike(self, members: frozenset[Compared]) -> bool:
        """Tell whether each relation's columns of a class are equal by its own filters: counting takes one of them for all."""
        of_alias: dict[str, set[Compared]] = {}
        for member in members:
            of_alias.setdefault(member[0].alias, set()).add(member)
        return all(len(own) == 1 or any(own <= equal for equal in merged(self._filtered_equal[alias])) for alias, own in of_alias.items())

    def _classes_within(self, mask: int) -> set[frozenset[Compared]]:
        """Return the classes of the level, cut down to a set of relations."""
        within = {alias for position, alias in enumerate(self.query.aliases) if mask >> position & 1}
        cut = (
            frozenset((ref, key) for ref in members if ref.alias in within)
            for members, key in zip(self.query.classes, self.query.keys, strict=True)
        )
        joined = {members for members in cut if len({ref.alias for ref, _ in members}) > 1}
        alone = merged(pair for alias in within for pair in self._filtered_equal[alias])
        return joined | {members for members in alone if not any(members <= other for other in joined)}


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A planned statement: its levels by number, inner ones first; a statement without relations has none."""

    sql: str
    levels: tuple[Level, ...]
    parameters: Mapping[int, Parameter]
    subqueries: Mapping[int, Subquery]

    def level(self, number: int) -> Level:
        """Return the level with this number."""
        return next(level for level in self.levels if level.id == number)

    @property
    def outermost(self) -> Level | None:
        """The level of the statement itself."""
        return next((level for level in self.levels if level.outermost and level.sources), None)

    def subplans(self) -> Mapping[Subplan, tuple[Level, int]]:
        """Return level and mask of every set by the planner's name for it: a `LeveledSubplan` where there are several levels."""
        leveled = any(level.id != 1 for level in self.levels if level.sources)
        return {
            LeveledSubplan(level.id, aliases) if leveled else aliases: (level, mask)
            for level in self.levels
            for aliases, mask in zip(level.query.subplans(), level.query.masks, strict=True)
        }
