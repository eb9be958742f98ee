"""
Templates: the part of a query that remains without its filters.

The *template* of a query that joins is its join structure: its tables and the columns in which they are equal, whatever the aliases, the
select list and the filters. The variants 1a to 1d of a JOB family have one template, and so have all queries of one join template of
STATS-CEB. The template of any other statement (a single table, subqueries) is its text without constants and without the conditions on
single relations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_pilotscope.queries.connectivity import merged
from pytest_pilotscope.queries.queries import Query

if TYPE_CHECKING:
    from sqlglot import exp

Column = tuple[str, str]
"""(alias, column)"""

_CONJUNCTION = re.compile(r"select\s.*?\sfrom\s(?P<sources>[\w\s,]+?)\swhere\s(?P<conditions>.+)", re.IGNORECASE | re.DOTALL)
_OTHER = re.compile(r"\b(or|group|order|limit|having|union|join|on|using|left|with|select|from|exists|where|lateral)\b", re.IGNORECASE)
_LITERAL = re.compile(r"'[^'\\]*'")
_PARENTHESES = re.compile(r"\([^()]*\)")
_SOURCE = re.compile(r"\s*(\w+)(?:\s+(?:as\s+)?(\w+))?\s*", re.IGNORECASE)
_AND = re.compile(r"\s+and\s+", re.IGNORECASE)
_EQUAL = re.compile(r"\s*([a-z_]\w*)\.(\w+)\s*=\s*([a-z_]\w*)\.(\w+)\s*", re.IGNORECASE)
_BLANK = re.compile(r"\s+")


def template_of(sql: str) -> str:
    """Return the template, a text that is equal for queries of one template; the statement itself if it cannot be parsed."""
    found = _conjunction_template(sql)
    if found is not None:
        return found
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    try:
        tree = parse_one(sql, dialect="postgres")
        return (_join_template(tree) if isinstance(tree, exp.Select) else None) or _masked(tree)
    except (SqlglotError, RecursionError):  # sqlglot calls itself for each level of parentheses
        return normalized(sql)


def normalized(sql: str) -> str:
    """Return a statement with single blanks and without its semicolon: equal for statements that differ in layout only."""
    return _BLANK.sub(" ", sql).strip().rstrip(";").rstrip()


def same_queries(one: Iterable[Query], other: Iterable[Query]) -> Iterator[tuple[Query, Query]]:
    """Yield the pairs of queries that are the same statement."""
    known = {normalized(query.sql): query for query in one}
    for query in other:
        if normalized(query.sql) in known:
            yield known[normalized(query.sql)], query


def _structure(tables: Mapping[str, str], pairs: Iterable[tuple[Column, Column]]) -> str | None:
    """Return tables and the classes of their equal columns as text; None for a single table."""
    if len(tables) < 2:
        return None
    named = sorted(" = ".join(sorted(f"{tables[alias]}.{column}" for alias, column in members)) for members in merged(pairs))
    return f"{', '.join(sorted(tables.values()))}: {'; '.join(named)}"


def _conjunction_template(sql: str) -> str | None:
    """Return the template of a conjunction over tables, without a parser (there are thousands of those); None for anything else."""
    text, inside = _LITERAL.sub("0", sql.strip().rstrip(";")), ""
    while (shorter := _PARENTHESES.sub("0", text)) != text:
        inside += " ".join(_PARENTHESES.findall(text))
        text = shorter
    select = _CONJUNCTION.fullmatch(text)
    if (
        select is None
        or _OTHER.search(select["conditions"])
        or re.search(r"\bselect\b", inside, re.IGNORECASE)
        or re.search("[\"'$]|--|/[*]", text)
    ):
        return None
    sources = [_SOURCE.fullmatch(source) for source in select["sources"].lower().split(",")]
    tables = {source[2] or source[1]: source[1] for source in sources if source is not None}
    found = [_EQUAL.fullmatch(condition.lower()) for condition in _AND.split(select["conditions"])]
    pairs = [((match[1], match[2]), (match[3], match[4])) for match in found if match is not None and match[1] != match[3]]
    if len(tables) < len(sources) or not all(alias in tables for pair in pairs for alias, _ in pair) or _EQUAL.search(inside):
        return None
    return _structure(tables, pairs) if pairs else None


def _join_template(select: exp.Select) -> str | None:
    """Return the join structure of a SELECT over tables; None for one with subqueries, or columns without their relation."""
    from sqlglot import exp

    if sum(1 for _ in select.find_all(exp.Query)) > 1:
        return None
    tables = {table.alias_or_name.lower(): table.name.lower() for table in select.find_all(exp.Table)}
    pairs = []
    for equality in select.find_all(exp.EQ):
        left, right = equality.left, equality.right
        if isinstance(left, exp.Column) and isinstance(right, exp.Column) and left.table.lower() != right.table.lower():
            pairs.append(((left.table.lower(), left.name.lower()), (right.table.lower(), right.name.lower())))
        elif isinstance(left, exp.Column) and isinstance(right, exp.Column) and not left.table:
            return None
    return _structure(tables, pairs) if pairs and all(alias in tables for pair in pairs for alias, _ in pair) else None


def _masked(tree: exp.Expr) -> str:
    """Return the text without constants and without conditions on single relations."""
    from sqlglot import exp

    for where in list(tree.find_all(exp.Where)):
        kept = [condition for condition in _conjuncts(where.this) if _ties(condition)]
        if kept:
            where.set("this", exp.and_(*sorted(kept, key=lambda condition: condition.sql("postgres")), copy=False))
        else:
            where.pop()
    for literal in list(tree.find_all(exp.Literal)):
        literal.replace(exp.Placeholder())
    return normalized(tree.sql("postgres", normalize=True, comments=False))


def _conjuncts(condition: exp.Expr) -> Sequence[exp.Expr]:
    from sqlglot import exp

    bare = condition.unnest()
    return list(bare.flatten()) if isinstance(bare, exp.And) else [bare]


def _ties(condition: exp.Expr) -> bool:
    """Tell whether a condition connects relations: by a subquery, columns of several relations, or `=` of two columns without relation."""
    from sqlglot import exp

    if condition.find(exp.Query) is not None:
        return True
    relations = Counter(column.table for column in condition.find_all(exp.Column))
    two_columns = isinstance(condition, exp.EQ) and isinstance(condition.left, exp.Column) and isinstance(condition.right, exp.Column)
    return len(relations) > 1 or (two_columns and "" in relations)
