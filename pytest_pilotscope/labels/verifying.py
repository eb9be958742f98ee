"""
Compares labels with two other counts: `COUNT(*)` by the SQL of each set of relations, and the rows of the nodes of executed plans.

The three have little in common: most labels are counted in memory, the SQL is made from the planner's report, and an executed plan uses
neither.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from pytest_pilotscope.errors import QueryTimeout, StatementFailed
from pytest_pilotscope.labels.executed import Executed, Variation, executed_sets, variations
from pytest_pilotscope.labels.source import counting
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.queries.joins import Subplan
from pytest_pilotscope.queries.meaning import NoCount

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.explain import Plan
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.meaning import Level, Statement
    from pytest_pilotscope.queries.queries import Query

T = TypeVar("T")
ReadMeaning: TypeAlias = "Callable[[Session, str], Statement]"
Rows: TypeAlias = Mapping[Subplan, int | None]
"""The labels of one query; None for a set that was not counted in time."""

PLANS = 6
TIMEOUT_MS = 60_000
_COPY = re.compile(r"(?:_|#)\d+$")
_COMPARING = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_NUMBERS = ("statements", "sets", "counted", "labelled", "executed", "joins", "wholes")
_EXECUTING = "SET LOCAL max_parallel_workers_per_gather = 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """
    A set of relations that was counted differently by two of three ways, or whose SQL failed.

    `executed` are the rows of plan nodes that joined this set, with the node.
    """

    query_id: str
    sql: str
    subplan: Subplan
    count_sql: str
    label: int | None = None
    counted: int | None = None
    executed: tuple[Executed, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """
    The number of sets that were compared, and those that differ.

    `counted` sets have SQL that was run, `labelled` ones a label that was compared with it, `executed` ones were joined by a plan node that
    was read to its end; `joins` are those of two relations and more. `wholes` are statements whose own COUNT(*) was compared. `without_sql`
    and `uncounted` (no count although there is SQL) are numbers of sets by reason, `refused` statements that PostgreSQL did not plan.
    """

    statements: int = 0
    sets: int = 0
    counted: int = 0
    labelled: int = 0
    executed: int = 0
    joins: int = 0
    wholes: int = 0
    without_sql: Mapping[str, int] = field(default_factory=dict)
    uncounted: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    mismatches: tuple[Mismatch, ...] = ()


def verify(
    session: Session,
    queries: Iterable[Query],
    labels: Mapping[str, Rows],
    *,
    read: ReadMeaning = read_meaning,
    plans: int = PLANS,
    seed: int = 0,
    timeout_ms: int = TIMEOUT_MS,
) -> Verification:
    """
    Compare the labels of every set of every query with its SQL and with the nodes of `plans` executed plans.

    Each count and each execution may take `timeout_ms`. The session needs the library; nothing is written. A query without an entry in
    `labels` is compared without them.
    """
    known: dict[str, int] = {}
    with session.statement_timeout(timeout_ms):
        return total([_Check(session, query, labels.get(query.id), known).run(read, plans, f"{seed} {query.id}") for query in queries])


def total(parts: Sequence[Verification]) -> Verification:
    """Return the sum of several verifications."""
    return Verification(
        **{name: sum(getattr(part, name) for part in parts) for name in _NUMBERS},
        without_sql=sum((Counter(part.without_sql) for part in parts), Counter()),
        uncounted=sum((Counter(part.uncounted) for part in parts), Counter()),
        refused={id_: reason for part in parts for id_, reason in part.refused.items()},
        mismatches=tuple(mismatch for part in parts for mismatch in part.mismatches),
    )


class _Check:
    """The comparison of one query; `known` are counts by SQL, which other queries may have made before."""

    def __init__(self, session: Session, query: Query, labels: Rows | None, known: dict[str, int]) -> None:
        self._session = session
        self._query = query
        self._labels = labels
        self._known = known
        self._sql: dict[Subplan, str] = {}
        self._counted: dict[Subplan, int] = {}
        self._executed: dict[Subplan, set[Executed]] = {}
        self._wholes = 0
        self._without_sql: Counter[str] = Counter()
        self._uncounted: Counter[str] = Counter()
        self._failures: list[Mismatch] = []

    def run(self, read: ReadMeaning, plans: int, seed: str) -> Verification:
        """Read the meaning, count by SQL, execute, compare."""
        try:
            statement = read(self._session, self._query.sql)
        except StatementFailed as error:
            if self._session.closed:
                raise
            return Verification(statements=1, refused={self._query.id: error.reason})
        with self._session.rolled_back():
            self._session.execute(_COMPARING)
            for subplan, (level, mask) in statement.subplans().items():
                self._count(subplan, level, mask)
            if statement.outermost is not None:
                for variation in variations(statement.subplans(), count=plans, seed=seed):
                    self._execute(statement, statement.outermost, variation)
                self._compare_whole(statement, statement.outermost)
        return self._result(len(statement.subplans()))

    def _count(self, subplan: Subplan, level: Level, mask: int) -> None:
        try:
            sql, volatility = level.count_sql(mask)
        except NoCount as reason:
            self._without_sql[str(reason)] += 1
            return
        if volatility == "v":
            self._uncounted["it calls a volatile function"] += 1
            return
        self._sql[subplan] = sql
        rows = self._known.get(sql)
        if rows is None:
            rows = self._attempt(lambda: int(self._session.scalar(counting(self._session, sql))), subplan)
        if rows is not None:
            self._counted[subplan] = rows
            if volatility == "i":
                self._known[sql] = rows

    def _attempt(self, run: Callable[[], T], subplan: Subplan = frozenset()) -> T | None:
        """Run in a savepoint; return None, and note the reason, when PostgreSQL does not get to the end."""
        try:
            with self._session.rolled_back():
                return run()
        except QueryTimeout as error:
            self._uncounted[f"it takes more than {error.timeout_ms} ms"] += bool(subplan)
        except StatementFailed as error:
            if self._session.closed:
                raise
            if error.about_a_row or not subplan:  # a statement that may not run here (FOR UPDATE) has nothing to compare
                self._uncounted[error.reason] += 1
            else:
                self._failures.append(self._mismatch(subplan, str(error)))
        return None

    def _execute(self, statement: Statement, own: Level, variation: Variation) -> None:
        """Note the rows of plan nodes; skip a plan that fails on the values of a row or takes too long."""
        plan = self._attempt(lambda: self._plan(variation))
        if plan is not None:
            names = _names(statement, own)
            for executed in executed_sets(plan, _unambiguous(statement, own), _whole(own)):
                if (subplan := names.get(executed.subplan)) in self._sql:
                    self._executed.setdefault(subplan, set()).add(executed)

    def _plan(self, variation: Variation) -> Plan:
        self._session.execute(_EXECUTING)
        for name, value in variation.settings.items():
            self._session.execute("SELECT set_config(%s, %s, true)", (name, value))
        with self._session.cardinalities(variation.rows):
            return self._session.explain(self._query.sql, analyze=True, verbose=True, timing=False)

    def _compare_whole(self, statement: Statement, own: Level) -> None:
        """Run a statement that is COUNT(*) over its FROM and WHERE: it counts the set of all its relations."""
        plan = self._attempt(lambda: self._session.explain(self._query.sql, verbose=True))
        whole = _names(statement, own).get(_whole(own))
        if plan is None or not _only_counts(plan) or whole not in self._sql:
            return
        rows = self._attempt(lambda: int(self._session.scalar(self._query.sql)))
        if rows is not None:
            self._wholes += 1
            self._executed.setdefault(whole, set()).add(Executed(whole, rows, "COUNT(*) of the statement"))

    def _result(self, sets: int) -> Verification:
        labelled = {subplan: rows for subplan, rows in (self._labels or {}).items() if rows is not None and subplan in self._sql}
        mismatches = [self._mismatch(subplan) for subplan in self._sql if len(self._values(subplan)) > 1]
        if self._labels is not None:
            missing = [subplan for subplan in self._counted if subplan not in self._labels]
            mismatches += [self._mismatch(subplan, "it has SQL and no label") for subplan in missing]
        return Verification(
            statements=1,
            sets=sets,
            counted=len(self._counted),
            labelled=len(labelled),
            executed=len(self._executed),
            joins=sum(len(subplan) > 1 for subplan in self._executed),
            wholes=self._wholes,
            without_sql=self._without_sql,
            uncounted=+self._uncounted,
            mismatches=(*self._failures, *mismatches),
        )

    def _values(self, subplan: Subplan) -> set[int]:
        found = {self._counted.get(subplan), (self._labels or {}).get(subplan), *(one.rows for one in self._executed.get(subplan, ()))}
        return {rows for rows in found if rows is not None}

    def _mismatch(self, subplan: Subplan, reason: str = "") -> Mismatch:
        return Mismatch(
            query_id=self._query.id,
            sql=self._query.sql,
            subplan=subplan,
            count_sql=self._sql.get(subplan, ""),
            label=(self._labels or {}).get(subplan),
            counted=self._counted.get(subplan),
            executed=tuple(sorted(self._executed.get(subplan, ()), key=lambda one: (one.rows, one.node))),
            reason=reason,
        )


def _names(statement: Statement, own: Level) -> dict[Subplan, Subplan]:
    """Return the planner's key of each set of the statement's own level, by its aliases."""
    return {level.query.subplan(mask): subplan for subplan, (level, mask) in statement.subplans().items() if level is own}


def _whole(own: Level) -> Subplan:
    """Return all relations that the level joins. A relation that the planner removed is in no set."""
    return frozenset().union(*own.query.subplans())


def _unambiguous(statement: Statement, own: Level) -> Subplan:
    """
    Return the relations of the statement's own level that EXPLAIN calls by their alias.

    If an alias occurs more than once in a statement, EXPLAIN writes a, a_1, a_2, and does not tell which is which.
    """
    occurrences = Counter(_COPY.sub("", alias) for level in statement.levels for alias in level.query.relations)
    return frozenset(alias for alias in own.query.relations if occurrences[_COPY.sub("", alias)] == 1)


def _only_counts(plan: Plan) -> bool:
    return (
        plan.node_type == "Aggregate"
        and plan.strategy == "Plain"
        and [str(output).replace('"', "") for output in plan.details.get("Output", ())] == ["count(*)"]
        and "Filter" not in plan.conditions
    )
