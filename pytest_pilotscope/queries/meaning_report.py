"""Reads the library's report of a statement (`pilotscope.meaning`, JSON) into a `Statement`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pytest_pilotscope.queries.connectivity import mask_of, merged, smaller_first
from pytest_pilotscope.queries.joins import ColumnRef, JoinQuery, KeyType, Relation
from pytest_pilotscope.queries.meaning import (
    Branch,
    Clause,
    Level,
    Member,
    Pair,
    Parameter,
    Placeholder,
    Result,
    Source,
    Statement,
    Subquery,
)
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

_TEXT_TYPES = ("text", "character varying", "bpchar", "name", '"char"')
_PATTERNS = {"~~": (True, False), "!~~": (True, True), "~~*": (False, False), "!~~*": (False, True)}
"""Operator -> whether it is case-sensitive, and whether it is negated."""


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
    used = {number for several in pairs.values() for pair in several if pair.kind == "INNER" for number in pair.on}
    used |= {one["clause"] for entry in relations for one in entry["filters"]}
    order = {alias: position for position, alias in enumerate(read)}
    classes = sorted(
        (tuple(sorted((ref for ref, _ in members), key=lambda ref: (order[ref.alias], ref.column))), next(iter(members))[1])
        for members in merged(clause.equal for clause in map(clauses.__getitem__, sorted(used)) if clause.equal is not None)
        if len({ref.alias for ref, _ in members}) > 1
    )
    columns, keys = tuple(members for members, _ in classes), tuple(key for _, key in classes)
    return JoinQuery(sql=sql, relations=read, classes=columns, masks=tuple(smaller_first(rows)), keys=keys)


def _read_member(entry: Mapping[str, Any], aliases: Sequence[str]) -> Member:
    column = ColumnRef(aliases[entry["rels"][0]], entry["column"]) if "column" in entry else None
    key = KeyType(entry["key"], entry["bytewise"]) if "key" in entry else None
    return Member(mask_of(entry["rels"]), entry["sql"], entry["type"], column, key)


def _read_clause(entry: Mapping[str, Any], members: Sequence[Member]) -> Clause:
    clause = Clause(entry["sql"], mask_of(entry["rels"]), entry["volatility"])
    if "class" not in entry:
        return clause
    return clause._replace(
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
    chosen: Any = {"order": tuple(entry.get("order", ())), **{name: entry.get(name) for name in ("limit", "ties", "offset")}}
    if "operation" in entry:
        return Result(why=None, operation=entry["operation"], **chosen)
    return Result(
        why=None,
        **chosen,
        targets=tuple(entry["targets"]),
        relations=mask_of(entry["rels"]),
        group=tuple(entry["group"]),
        having=tuple(entry["having"]),
        where=tuple(entry.get("where", ())),
        distinct=entry["distinct"],
        distinct_on=tuple(entry["distinct_on"]),
        single=entry["single"],
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
