"""
The parts of an answer that SQL leaves open: the order inside `array_agg`, the rows of a LIMIT with ties, the time, random numbers.

They are found in the query tree, by the volatility of its functions, the unique keys of its tables and the orders that it asks for.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from pytest_pilotscope.measurement.catalog_facts import Facts, Function, read_facts
from pytest_pilotscope.measurement.functional_dependencies import COLLATION_FIELDS, CTE, FUNCTION, RELATION, SUBQUERY, TYPE_FIELDS, Level
from pytest_pilotscope.postgres.querytree import ASKED, Node, query_tree

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

_FUNCTION_FIELDS = ("funcid", "opfuncid", "aggfnoid", "winfnoid")
_BY_PEERS = frozenset(["rank", "dense_rank", "percent_rank", "cume_dist"])
_ROWS_OR_GROUPS = 0x04 | 0x08  # FRAMEOPTION_ROWS, FRAMEOPTION_GROUPS
_SYSTEM_COLUMNS = {-1: "ctid", -2: "xmin", -3: "cmin", -4: "xmax", -5: "cmax", -6: "tableoid"}
_CLOCK = frozenset(range(9))  # SQLValueFunction: CURRENT_DATE to LOCALTIMESTAMP(n)
_CURRENT_CATALOG = 13
_EXISTS, _ARRAY = 0, 6  # SubLinkType
_NUMBERS = frozenset([700, 701, 1700])
_TEXTS = frozenset([19, 25, 1042, 1043])
_WRITTEN = "one of several equal values that are written differently stands for all"
_DATE_AND_TIME = frozenset([1082, 1083, 1114, 1184, 1266])
_NOW = re.compile(rb"'\s*now\s*'", re.IGNORECASE)


class Reason(NamedTuple):
    """
    The text of a reason. An `inexact` one is the rounding of a sum, which differs in the last digits.

    A `written` one is a number that equal ones stand for, such as 1.0 and 1.00: numbers are compared by value, but a text shows it.
    """

    text: str
    inexact: bool = False
    written: bool = False


Reasons = tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Openness:
    """
    The reasons why two right answers may differ: in their `rows`, in the `choice` of so many rows, in `columns` (by number, from 0).

    `limited` are the reasons of a LIMIT that has no effect on an answer of fewer rows than `limit`. `ordered` are the columns of ORDER BY.
    """

    rows: Reasons = ()
    choice: Reasons = ()
    limited: Reasons = ()
    limit: int | None = None
    ordered: tuple[int, ...] = ()
    columns: Mapping[int, Reasons] = field(default_factory=dict)

    @property
    def all(self) -> Reasons:
        """All reasons."""
        return (*self.of_rows, *(reason for reasons in self.columns.values() for reason in reasons))

    @property
    def of_rows(self) -> Reasons:
        """The reasons why whole rows may differ."""
        return (*self.rows, *self.choice, *self.limited)

    def of_choice(self, row_count: int) -> Reasons:
        """Return the reasons why other rows, but as many, may be right where an answer has `row_count` rows."""
        return (*self.choice, *(() if self.limit is not None and row_count < self.limit else self.limited))


def openness_of(session: Session, sql: str) -> Openness:
    """Return what SQL leaves open in the answer of a statement; nothing for one that is no query or too deep to be read."""
    try:
        tree = query_tree(session, sql)
        return Openness() if tree is None else _openness(session, sql, tree)
    except RecursionError:
        return Openness()


def _openness(session: Session, sql: str, tree: Node) -> Openness:
    nodes = list(_everything(tree))
    facts = read_facts(
        session,
        functions={node.number(name) for node in nodes for name in _FUNCTION_FIELDS if node[name]},
        tables={node.number("relid") for node in nodes if node.type == "RANGETBLENTRY"},
        operators={node.number("opno") for node in nodes if node.type == "OPEXPR"},
        types={node.number(name) for node in nodes for name in TYPE_FIELDS if node[name]},
        collations={node.number(name) for node in nodes for name in COLLATION_FIELDS if node[name]},
    )
    now = {len(ASKED) + match.start() for match in _NOW.finditer(sql.encode())}
    level = Level(tree, None, facts)
    opened = _Reader(facts, now).opened(level)
    shown = {
        number: tuple(reason for reason in reasons if not reason.written or _types(level.targets[number]["expr"]) & _TEXTS)
        for number, reasons in opened.columns.items()
    }
    return replace(opened, columns={number: reasons for number, reasons in shown.items() if reasons})


class _Reader:
    """Reads the levels of one statement; `now` are the places of its literals 'now', which PostgreSQL has turned into constants."""

    def __init__(self, facts: Facts, now: Collection[int]) -> None:
        self._facts = facts
        self._now = now
        self._opened: dict[Node, Openness] = {}

    def opened(self, level: Level) -> Openness:
        """Return what a level leaves open. A recursive CTE is open where its other parts are."""
        if level.query not in self._opened:
            self._opened[level.query] = Openness()
            self._opened[level.query] = self._read(level)
        return self._opened[level.query]

    def _read(self, level: Level) -> Openness:
        found = (self._rows(level), self._choice(level), self._limited(level))
        rows, choice, limited = (tuple(reason for reason in reasons if not reason.written) for reasons in found)
        if level.one_row:
            rows, choice = (), (*rows, *choice)
        order = level.sorted_by(level.query.nodes("sortClause"))
        columns = {number: tuple(dict.fromkeys(self._output(level, target))) for number, target in enumerate(level.targets)}
        return Openness(
            rows=tuple(dict.fromkeys(rows)),
            choice=tuple(dict.fromkeys(choice)),
            limited=tuple(dict.fromkeys(limited)),
            limit=None if level.query["limitOffset"] else _constant(level.query["limitCount"]),
            ordered=tuple(number for number, target in enumerate(level.targets) if any(target["expr"] is one for one in order)),
            columns={number: reasons for number, reasons in columns.items() if reasons},
        )

    def _rows(self, level: Level) -> Iterator[Reason]:
        """Yield the reasons why a level may have other rows, or another number of them."""
        query = level.query
        for number in level.used:
            yield from self._rows_of_table(level, number)
        conditions = [query["jointree"], query["havingQual"], query["limitCount"], query["limitOffset"]]
        conditions += level.sorted_by(query.nodes("groupClause"), query.nodes("distinctClause"))
        if query.flag("hasTargetSRFs"):
            conditions += [target["expr"] for target in level.targets]
        for condition in conditions:
            if condition is not None:
                yield from self._reasons(condition, level)
        sets = _everything(query["setOperations"]) if query["setOperations"] else ()
        if any(node.type == "SETOPERATIONSTMT" and not node.flag("all") for node in sets):
            for target in level.targets:
                yield from self._output(level, target)
        if any(mark.number("waitPolicy") == 1 for mark in query.nodes("rowMarks")):
            yield Reason("SKIP LOCKED leaves out rows that others hold")

    def _rows_of_table(self, level: Level, number: int) -> Iterator[Reason]:
        table = level.table(number)
        inner = level.inner(number)
        if inner is not None:
            yield from self.opened(inner).of_rows
        if table["tablesample"] and not table["tablesample"]["repeatable"]:
            yield Reason("TABLESAMPLE without REPEATABLE takes other rows in each execution")
        if table.number("rtekind") == FUNCTION and any(
            self._facts.functions[node.number("funcid")].returns_set for node in _everything(table) if node.type == "FUNCEXPR"
        ):
            for function in table.nodes("functions"):
                yield from self._reasons(function, level)

    def _choice(self, level: Level) -> Iterator[Reason]:
        query = level.query
        order = level.sorted_by(query.nodes("distinctClause"), query.nodes("sortClause"))
        if query.flag("hasDistinctOn") and not level.fixes_output(order):
            yield Reason("DISTINCT ON takes one of several rows that its ORDER BY does not tell apart")

    def _limited(self, level: Level) -> Iterator[Reason]:
        """Yield the reasons why LIMIT or OFFSET may choose other rows."""
        query = level.query
        if query["limitCount"] is None and query["limitOffset"] is None:
            return
        order = level.sorted_by(query.nodes("sortClause"))
        for expression in order:
            yield from self._reasons(expression, level)
        with_ties = query.number("limitOption") == 1 and query["limitOffset"] is None
        if not with_ties and not level.fixes_output(order):
            told = "LIMIT takes some of the rows that its ORDER BY does not tell apart"
            yield Reason(told if order else "LIMIT without ORDER BY takes any rows")

    def _output(self, level: Level, target: Node) -> Iterator[Reason]:
        """Yield the reasons why a column of the result may have other values; a UNION has those of all its parts."""
        merges = level.grouped or level.query.nodes("distinctClause") or level.query["setOperations"]
        if merges and any(map(level.loose, _everything(target["expr"]))):
            yield Reason(_WRITTEN)
        elif merges and any(map(_is_number, level.merged(target))):
            yield Reason(_WRITTEN, written=True)
        if not level.query["setOperations"]:
            yield from self._reasons(target["expr"], level)
            return
        for number in level.used:
            yield from self._column(level, number, target.number("resno"))

    def _reasons(self, node: Node, level: Level) -> Iterator[Reason]:
        """Yield the reasons why an expression may have another value."""
        if node.type == "VAR":
            yield from self._variable(node, level.above(node.number("varlevelsup")))
            return
        if node.type == "QUERY":
            yield from self.opened(Level(node, level, self._facts)).all
            return
        if node.type == "SUBLINK" and node.number("subLinkType") == _EXISTS:
            yield from self.opened(Level(node["subselect"], level, self._facts)).rows
            return
        if node.type == "SUBLINK" and node.number("subLinkType") == _ARRAY:
            inner = Level(node["subselect"], level, self._facts)
            if not inner.fixes_output(inner.sorted_by(inner.query.nodes("sortClause"))):
                yield Reason(f"ARRAY(SELECT ...) {'in an order with ties' if inner.query.nodes('sortClause') else 'without ORDER BY'}")
        if node.type == "AGGREF":
            yield from self._aggregate(node, self._facts.functions[node.number("aggfnoid")], level.above(node.number("agglevelsup")))
        elif node.type == "WINDOWFUNC":
            yield from self._window(node, level)
        elif node.type == "SQLVALUEFUNCTION" and (node.number("op") in _CLOCK or node.number("op") == _CURRENT_CATALOG):
            yield Reason(
                "CURRENT_CATALOG is another database"
                if node.number("op") == _CURRENT_CATALOG
                else "CURRENT_TIMESTAMP and the like read the clock"
            )
        elif node.type == "CONST" and node.number("location") in self._now and node.number("consttype") in _DATE_AND_TIME:
            yield Reason("'now' is another time in each execution")
        elif node.type == "COERCEVIAIO" and node.number("resulttype") in _DATE_AND_TIME and not any(level.columns(node)):
            yield Reason("a text that is read as a time may be 'now'")
        elif node.type == "NEXTVALUEEXPR":
            yield Reason("nextval() has another value in each execution")
        elif (function := self._facts.functions.get(node.number("funcid") or node.number("opfuncid"))) and function.varies:
            yield Reason(f"{function.name}() may have another value in each execution")
        for child in node.children():
            yield from self._reasons(child, level)

    def _variable(self, var: Node, level: Level) -> Iterator[Reason]:
        behind = level.behind(var)
        if behind is not None:
            yield from self._reasons(behind, level)
        else:
            yield from self._column(level, var.number("varno"), var.number("varattno"))

    def _column(self, level: Level, number: int, column: int) -> Iterator[Reason]:
        """Yield the reasons of a column of a table; column 0 is the whole row."""
        table = level.table(number)
        kind, inner = table.number("rtekind"), level.inner(number)
        if kind == RELATION and column in _SYSTEM_COLUMNS:
            yield Reason(f"{_SYSTEM_COLUMNS[column]} is a place or a transaction, no data")
        elif inner is not None:
            opened = self.opened(inner)
            yield from (reason for position, reasons in opened.columns.items() if column in (0, position + 1) for reason in reasons)
        elif kind not in (RELATION, SUBQUERY, CTE):
            for child in table.children():
                yield from self._reasons(child, level)

    def _aggregate(self, node: Node, function: Function, level: Level) -> Iterator[Reason]:
        """Yield a reason if an aggregate depends on the order of its rows, and that order is open."""
        arguments = node.nodes("args")
        sorting = {one.number("tleSortGroupRef") for one in (*node.nodes("aggorder"), *node.nodes("aggdistinct"))}
        by = [argument["expr"] for argument in arguments if argument.number("ressortgroupref") in sorting]
        if (function.ordered or function.inexact) and not level.fixes([one["expr"] for one in arguments], by):
            if function.inexact:
                yield Reason(f"{function.name}() of floating-point numbers depends on the order of its rows", inexact=True)
            else:
                yield Reason(f"{function.name}() {'in an order with ties' if node['aggorder'] else 'without ORDER BY'}")
        if (function.chooses or node["aggdistinct"]) and any(level.loose(one["expr"]) for one in arguments):
            yield Reason(f"{function.name}() takes one of several equal values that are written differently")
        elif function.chooses and any(_is_number(one["expr"]) for one in arguments):
            yield Reason(f"{function.name}() takes one of several equal values that are written differently", written=True)

    def _window(self, node: Node, level: Level) -> Iterator[Reason]:
        """Yield the reasons why a window function may have another value: those of its window, and ties in its order."""
        function = self._facts.functions[node.number("winfnoid")]
        window = next(one for one in level.query.nodes("windowClause") if one.number("winref") == node.number("winref"))
        by = level.sorted_by(window.nodes("partitionClause"), window.nodes("orderClause"))
        for expression in by:
            yield from self._reasons(expression, level)
        peers = function.name in _BY_PEERS or (node.flag("winagg") and not window.number("frameOptions") & _ROWS_OR_GROUPS)
        if not level.fixes_row(by) and (not peers or function.ordered):
            yield Reason(f"{function.name}() over an order with ties")
        elif function.inexact:
            yield Reason(f"{function.name}() of floating-point numbers depends on the order of its rows", inexact=True)


def _types(expression: Node) -> frozenset[int]:
    """Return the type of an expression."""
    return frozenset(expression.number(name) for name in TYPE_FIELDS if expression[name])


def _is_number(expression: Node) -> bool:
    """Tell whether equal values of an expression may be numbers that are written differently."""
    return bool(_types(expression) & _NUMBERS)


def _everything(node: Node) -> Iterator[Node]:
    yield node
    for child in node.children():
        yield from _everything(child)


def _constant(limit: Node | None) -> int | None:
    """Return the number of a LIMIT that is written as one; None without LIMIT, and for an expression."""
    while limit is not None and limit.type == "FUNCEXPR" and len(limit.nodes("args")) == 1:
        (limit,) = limit.nodes("args")
    if limit is None or limit.type != "CONST" or not isinstance(limit["constvalue"], list):
        return None
    found: Sequence[str] = [part for part in limit["constvalue"][1:] if isinstance(part, str) and part not in "[]"]
    return int.from_bytes(bytes(int(part) % 256 for part in found), "little")
