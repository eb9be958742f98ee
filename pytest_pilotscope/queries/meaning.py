"""
What the planner means by each set of relations of a statement, as its library reported it (`pilotscope.meaning`).

The planner decides by rules of its own, which change from version to version, what a set of relations is: constants that reach a relation
through an equality, what it takes out of an OR, outer joins that a condition reduces, joins that it removes. None of that is known here.
The report names for every set the joins that make it; `queries.countsql` puts the SQL that counts the set together from it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, TypeAlias

from pytest_pilotscope.queries.connectivity import smaller_first
from pytest_pilotscope.queries.joins import ColumnRef, JoinQuery, KeyType, LeveledSubplan, Relation, Subplan
from pytest_pilotscope.queries.predicates import (
    And,
    ColumnComparison,
    Comparison,
    Condition,
    Constant,
    IsNull,
    Like,
    Not,
    Opaque,
    Or,
    Predicate,
    TypedText,
    in_list,
)

Volatility: TypeAlias = Literal["i", "s", "v"]
"""As in pg_proc.provolatile: immutable, stable within a statement, volatile. A count that is not immutable is not kept."""

JoinKind: TypeAlias = Literal["INNER", "LEFT", "FULL", "SEMI", "ANTI", "UNIQUE"]

MARK = '"pilotscope ?".'
"""What stands in the library's SQL where PostgreSQL alone could not deparse an expression (texts.c)."""

_TEXT_TYPES = ("text", "character varying", "bpchar", "name", '"char"')
_PATTERNS = {"~~": (True, False), "!~~": (True, True), "~~*": (False, False), "!~~*": (False, True)}


class NoCount(Exception):
    """A set of relations that no SQL counts; the text says why."""


class CountSql(NamedTuple):
    """A statement that counts the rows of a set."""

    sql: str
    volatility: Volatility


class Member(NamedTuple):
    """
    An expression of an equivalence class.

    `type` is the object id of its type. `column` and `key` are known where the expression is a plain column.
    """

    relations: int
    sql: str
    type: int
    column: ColumnRef | None
    key: KeyType | None


class Clause(NamedTuple):
    """
    A condition on relations, as SQL with their names.

    An equality of an equivalence class has `left` and `right`, and in `members` all that may stand for them.
    """

    sql: str
    relations: int
    volatility: Volatility
    left: Member | None = None
    right: Member | None = None
    members: tuple[Member, ...] = ()

    @property
    def key(self) -> KeyType | None:
        """The type in which two plain columns are compared, None for any other clause."""
        if self.left is None or self.right is None or self.left.key != self.right.key:
            return None
        return self.left.key


class Pair(NamedTuple):
    """
    Two sets of relations that a join puts together.

    `where` filters the result of an outer join, `unique` is what the inner side is distinct by.
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

    `filters` are the conditions above the UNION ALL, but for those that the planner has put into the branch's own level.
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
    `why` tells that no SQL says what it is. `lateral` are the relations whose rows it needs, `filters` the numbers of its clauses.
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
    What a subquery returns, from the join of all its relations. `where` are the conditions of one without relations.

    Of a UNION, INTERSECT or EXCEPT there is the `operation` only: a tree of words and the numbers of levels.
    """

    why: str | None
    operation: Operation | None = None
    targets: tuple[str, ...] = ()
    relations: int = 0
    group: tuple[str, ...] = ()
    having: tuple[str, ...] = ()
    where: tuple[str, ...] = ()
    distinct: bool = False
    volatility: Volatility = "i"


class Subquery(NamedTuple):
    """A subquery inside an expression. `test` compares its columns, which stand in it as the parameters `columns`."""

    kind: Literal["EXISTS", "ANY", "ALL", "EXPR", "ARRAY", "other"]
    level: int
    direct: bool
    columns: tuple[int, ...]
    test: str | None


class Parameter(NamedTuple):
    """A value that an inner level gets: an expression of the level around it, or a column of a subplan that runs first."""

    level: int = 0
    sql: str = ""
    plan: int | None = None
    column: int = 1


@dataclass(frozen=True, kw_only=True)
class Level:
    """
    One query level: the statement itself, or a subquery that is planned on its own.

    `query` has all its relations and classes, and as `masks` the sets that the planner considered. `rows` are the planner's estimates by
    mask. `pairs` are the joins that make a set, none for one that the planner proved `empty`.
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
        """Tell whether a set is an inner join of tables by equality of plain columns, each with immutable predicates only."""
        clauses = self._links(mask)
        if clauses is None:
            return False
        classes = self._classes_within(mask)
        return _partition(self._equalities(clauses, mask)) == classes and all(map(self._filtered_alike, classes))

    def count_sql(self, mask: int) -> CountSql:
        """Return the SQL that counts a set; raises `NoCount`."""
        from pytest_pilotscope.queries.countsql import count_sql

        return count_sql(self, mask)

    def _links(self, mask: int) -> int | None:
        """Return the numbers of the clauses of an inner join of tables, as a bit mask; None for any other set."""
        if mask not in self._linked:
            self._linked[mask] = self._linked_anew(mask)
        return self._linked[mask]

    def _linked_anew(self, mask: int) -> int | None:
        if mask in self.empty:
            return None
        if mask.bit_count() == 1:
            return 0 if self._is_plain(self.sources[mask.bit_length() - 1]) else None
        for pair in self.pairs.get(mask, ()):
            if pair.kind != "INNER" or any(self.clauses[number].key is None for number in pair.on):
                continue
            outer, inner = self._links(pair.outer), self._links(pair.inner)
            if outer is not None and inner is not None:
                return outer | inner | sum(1 << number for number in set(pair.on))
        return None

    def _is_plain(self, source: Source) -> bool:
        filters = [self.clauses[number] for number in source.filters]
        immutable = all(clause.volatility == "i" and MARK not in clause.sql for clause in filters)
        return source.is_table and source.why is None and not source.empty and immutable

    def _equalities(self, clauses: int, mask: int) -> Iterator[tuple[ColumnRef, ColumnRef]]:
        """Yield the pairs of columns that the clauses, and the filters of the relations, make equal."""
        for number, clause in enumerate(self.clauses):
            if clauses >> number & 1 and clause.left is not None and clause.right is not None:
                yield clause.left.column, clause.right.column  # type: ignore[misc]  # a clause with a key has both
        for position, relation in enumerate(self.query.relations.values()):
            if mask >> position & 1:
                yield from self._filtered_equal[relation.alias]

    @cached_property
    def _filtered_equal(self) -> Mapping[str, Sequence[tuple[ColumnRef, ColumnRef]]]:
        types = _key_types(self.clauses)
        return {relation.alias: list(_equal_columns(relation, types)) for relation in self.query.relations.values()}

    def _filtered_alike(self, members: frozenset[ColumnRef]) -> bool:
        """Tell whether each relation's columns of a class are equal by its own filters: counting takes one of them for all."""
        of_alias: dict[str, set[ColumnRef]] = {}
        for ref in members:
            of_alias.setdefault(ref.alias, set()).add(ref)
        return all(
            len(own) == 1 or any(own <= equal for equal in _partition(self._filtered_equal[alias])) for alias, own in of_alias.items()
        )

    def _classes_within(self, mask: int) -> set[frozenset[ColumnRef]]:
        """Return the classes of the level, cut down to a set of relations."""
        within = {alias for position, alias in enumerate(self.query.aliases) if mask >> position & 1}
        cut = (frozenset(ref for ref in members if ref.alias in within) for members in self.query.classes)
        joined = {members for members in cut if len({ref.alias for ref in members}) > 1}
        alone = _partition(pair for alias in within for pair in self._filtered_equal[alias])
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


def read_statement(sql: str, report: Mapping[str, Any]) -> Statement:
    """Make a statement of the library's report, a JSON object."""
    levels: list[Level] = []
    statement = Statement(
        sql=sql,
        levels=(),
        parameters={int(number): Parameter(**entry) for number, entry in report["parameters"].items()},
        subqueries={int(number): Subquery(**{**entry, "columns": tuple(entry["columns"])}) for number, entry in report["subplans"].items()},
    )
    levels.extend(_read_level(statement, entry) for entry in report["levels"])
    object.__setattr__(statement, "levels", tuple(sorted(levels, key=lambda level: level.id)))  # levels know their statement
    return statement


def mask_of(relations: Iterable[int]) -> int:
    """Return a bit mask of numbers."""
    mask = 0
    for number in relations:
        mask |= 1 << number
    return mask


def _read_level(statement: Statement, entry: Mapping[str, Any]) -> Level:
    aliases = [relation["alias"] for relation in entry["relations"]]
    members = [_read_member(member, aliases) for member in entry["members"]]
    clauses = tuple(_read_clause(clause, members) for clause in entry["clauses"])
    sets = {mask_of(one["rels"]): one for one in entry["sets"]}
    rows = {1 << number: relation["rows"] for number, relation in enumerate(entry["relations"])}
    rows |= {mask: one["rows"] for mask, one in sets.items()}
    pairs = {mask: tuple(map(_read_pair, one["pairs"])) for mask, one in sets.items()}
    return Level(
        id=entry["id"],
        outermost=entry["outermost"],
        query=_read_query(statement.sql, entry["relations"], clauses, pairs, rows),
        rows=rows,
        sources=tuple(map(_read_source, entry["relations"])),
        clauses=clauses,
        pairs=pairs,
        empty=frozenset(
            [1 << number for number, relation in enumerate(entry["relations"]) if relation.get("empty")]
            + [mask for mask, one in sets.items() if one.get("empty")]
        ),
        placeholders={
            one["id"]: Placeholder(mask_of(one["at"]), mask_of(one["lateral"]), one["sql"], one["volatility"])
            for one in entry["placeholders"]
        },
        result=_read_result(entry["result"]) if "result" in entry else None,
        statement=statement,
    )


def _read_query(
    sql: str,
    relations: Sequence[Mapping[str, Any]],
    clauses: Sequence[Clause],
    pairs: Mapping[int, tuple[Pair, ...]],
    rows: Mapping[int, float],
) -> JoinQuery:
    read = {entry["alias"]: _read_relation(entry) for entry in relations}
    types = _key_types(clauses)
    used = {number for several in pairs.values() for pair in several if pair.kind == "INNER" for number in pair.on}
    equal = [
        (clause.left.column, clause.right.column)
        for clause in map(clauses.__getitem__, sorted(used))
        if clause.key and clause.left and clause.right and clause.left.column and clause.right.column
    ]
    equal += [pair for relation in read.values() for pair in _equal_columns(relation, types)]
    order = {alias: position for position, alias in enumerate(read)}
    classes = sorted(
        tuple(sorted(members, key=lambda ref: (order[ref.alias], ref.column)))
        for members in _partition(equal)
        if len({ref.alias for ref in members}) > 1
    )
    keys = tuple(types[members[0]] for members in classes)
    return JoinQuery(sql=sql, relations=read, classes=tuple(classes), masks=tuple(smaller_first(rows)), keys=keys)


def _partition(pairs: Iterable[tuple[ColumnRef, ColumnRef]]) -> set[frozenset[ColumnRef]]:
    """Unite columns that are equal."""
    group_of: dict[ColumnRef, frozenset[ColumnRef]] = {}
    for left, right in pairs:
        united = group_of.get(left, frozenset((left,))) | group_of.get(right, frozenset((right,)))
        for ref in united:
            group_of[ref] = united
    return set(group_of.values())


def _key_types(clauses: Sequence[Clause]) -> dict[ColumnRef, KeyType]:
    return {member.column: member.key for clause in clauses for member in clause.members if member.column and member.key}


def _equal_columns(relation: Relation, types: Mapping[ColumnRef, KeyType]) -> Iterator[tuple[ColumnRef, ColumnRef]]:
    """Yield the columns that a relation's own filters make equal, as far as they are keys of one type."""
    for predicate in relation.predicates:
        condition = predicate.condition
        if isinstance(condition, ColumnComparison) and condition.operator == "=":
            left, right = ColumnRef(relation.alias, condition.left), ColumnRef(relation.alias, condition.right)
            if types.get(left) == types.get(right) is not None:
                yield left, right


def _read_member(entry: Mapping[str, Any], aliases: Sequence[str]) -> Member:
    column = ColumnRef(aliases[entry["rels"][0]], entry["column"]) if "column" in entry else None
    key = KeyType(entry["key"], entry["bytewise"]) if "key" in entry else None
    return Member(mask_of(entry["rels"]), entry["sql"], entry["type"], column, key)


def _read_clause(entry: Mapping[str, Any], members: Sequence[Member]) -> Clause:
    plain = Clause(entry["sql"], mask_of(entry["rels"]), entry["volatility"])
    if "class" not in entry:
        return plain
    return plain._replace(
        left=members[entry["left"]], right=members[entry["right"]], members=tuple(members[number] for number in entry["class"])
    )


def _read_pair(entry: Mapping[str, Any]) -> Pair:
    return Pair(
        entry["kind"],
        mask_of(entry["outer"]),
        mask_of(entry["inner"]),
        tuple(entry["on"]),
        tuple(entry.get("where", ())),
        tuple(entry.get("unique", ())),
    )


def _read_source(entry: Mapping[str, Any]) -> Source:
    return Source(
        name=entry["name"],
        item=entry.get("source") or entry.get("item", ""),
        is_table="source" in entry,
        columns=entry.get("columns", 0),
        level=entry.get("level"),
        branches=tuple(map(_read_branch, entry.get("branches", ()))),
        why=entry.get("why"),
        lateral=mask_of(entry["lateral"]),
        filters=tuple(one["clause"] for one in entry["filters"]),
        volatility=entry.get("volatility", "i"),
        empty=entry.get("empty", False),
    )


def _read_branch(entry: Mapping[str, Any]) -> Branch:
    return Branch(
        name=entry["name"],
        item=entry.get("source", ""),
        level=entry.get("level"),
        columns=entry.get("columns", 0),
        targets=tuple(entry["targets"]),
        filters=tuple(entry["filters"]),
    )


def _read_result(entry: Mapping[str, Any]) -> Result:
    if "why" in entry:
        return Result(why=entry["why"])
    if "operation" in entry:
        return Result(why=None, operation=entry["operation"])
    return Result(
        why=None,
        targets=tuple(entry["targets"]),
        relations=mask_of(entry["rels"]),
        group=tuple(entry["group"]),
        having=tuple(entry["having"]),
        where=tuple(entry.get("where", ())),
        distinct=entry["distinct"],
        volatility=entry["volatility"],
    )


def _read_relation(entry: Mapping[str, Any]) -> Relation:
    return Relation(
        alias=entry["alias"],
        table=entry.get("table", ""),
        source=entry.get("source", ""),
        predicates=tuple(map(_read_predicate, entry["filters"])),
    )


def _read_predicate(entry: Mapping[str, Any]) -> Predicate:
    columns = tuple(dict.fromkeys(entry["columns"]))
    condition = Opaque(columns, entry["sql"]) if entry["condition"] is None else _condition(entry["condition"])
    return Predicate(columns=columns, sql=entry["sql"], condition=condition)


def _condition(entry: Mapping[str, Any]) -> Condition:
    if "not" in entry:
        return Not(_condition(entry["not"]))
    if "and" in entry:
        return And(tuple(map(_condition, entry["and"])))
    if "or" in entry:
        return Or(tuple(map(_condition, entry["or"])))
    if "null" in entry:
        return IsNull(entry["null"])
    if "values" in entry:
        return in_list(entry["column"], [_constant(value, entry["type"]) for value in entry["values"]])
    if "other" in entry:
        return ColumnComparison(entry["column"], entry["operator"], entry["other"])
    if entry["operator"] in _PATTERNS:
        case_sensitive, negated = _PATTERNS[entry["operator"]]
        like = Like(entry["column"], entry["value"], case_sensitive)
        return Not(like) if negated else like
    return Comparison(entry["column"], entry["operator"], _constant(entry["value"], entry["type"]))


def _constant(value: int | str | bool, type_name: str) -> Constant:
    if not isinstance(value, str) or type_name in _TEXT_TYPES:
        return value
    return TypedText(value, type_name)
