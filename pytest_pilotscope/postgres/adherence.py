"""
Compare the rows in a plan with the cardinalities that were injected.

PostgreSQL prints the rows of a node per execution and per process, so some nodes rightly show another number than the one injected for
their relations. Nodes that these rules explain are counted apart; every other node carries the injected rows, or has a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from pytest_pilotscope.postgres.explain import Plan
from pytest_pilotscope.postgres.scans import APPENDS, RelationNode, clamped, is_copy, relation_nodes, stems
from pytest_pilotscope.queries.joins import LeveledSubplan

NOT_INJECTED = "no rows were injected for it"
LEFT_OUT = "not known: no rows were given for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adherence:
    """
    The result of comparing one plan with the injected cardinalities, with hints, or with the settings of the planner.

    `steered_ratio` (0..1) is the share of the `compared` parts that were followed (nodes that carry injected rows, joins, methods,
    settings), 1 when there are none to compare. `reasons` has a line for each that was not; `not_injected` of them had nothing injected.
    `explained` has one for each that a rule lets off: it is neither in the numerator nor in the denominator.
    """

    steered_ratio: float
    reasons: tuple[str, ...]
    explained: tuple[str, ...]
    compared: int
    not_injected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given:
    """A set of relations with the rows injected for it at a level (None: at all levels), or the reason why there are none."""

    aliases: frozenset[str]
    level: int | None
    rows: float | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class _Sets:
    """The sets that a node of a plan may belong to, by the aliases that EXPLAIN prints for them."""

    given: tuple[_Given, ...]
    present: frozenset[str]

    def named(self, relations: frozenset[str]) -> list[_Given]:
        """Return the sets of these relations."""
        return self._by_aliases.get(relations, [])

    def copies(self, relations: frozenset[str]) -> list[_Given]:
        """Return the sets of relations of these names: EXPLAIN numbers aliases that occur more than once in a statement (a, a_1)."""
        return self._by_stems.get(stems(relations), []) if any(map(is_copy, relations)) else []

    def numbered(self, relations: frozenset[str]) -> bool:
        """Tell whether one of these is a relation of a level whose name another level has too; partitions are numbered as well."""
        stems_of = [stems([alias])[0] for alias in relations if is_copy(alias)]
        return any(stem in self.present and sum(stem in level for level in self._levels.values()) > 1 for stem in stems_of)

    def around(self, relations: frozenset[str]) -> list[_Given]:
        """
        Return the joins that may be of these relations when some of them are inside a subquery or union that EXPLAIN does not name.

        Such a join is of the relations of its level, and of relations that the plan does not have.
        """
        return [given for given in self._with_absent if given.aliases & self.present == relations & self._levels[given.level]]

    def one_level(self, relations: frozenset[str]) -> bool:
        """Tell whether one query level has relations of all these names."""
        names = set(stems(relations))
        return any(names <= set(stems(level)) for level in self._levels.values())

    @cached_property
    def _by_aliases(self) -> dict[frozenset[str], list[_Given]]:
        found: dict[frozenset[str], list[_Given]] = {}
        for given in self.given:
            found.setdefault(given.aliases, []).append(given)
        return found

    @cached_property
    def _by_stems(self) -> dict[tuple[str, ...], list[_Given]]:
        found: dict[tuple[str, ...], list[_Given]] = {}
        for given in self.given:
            found.setdefault(stems(given.aliases), []).append(given)
        return found

    @cached_property
    def _with_absent(self) -> list[_Given]:
        return [given for given in self.given if len(given.aliases) > 1 and not given.aliases <= self.present]

    @cached_property
    def _levels(self) -> dict[int | None, frozenset[str]]:
        found: dict[int | None, frozenset[str]] = {}
        for given in self.given:
            found[given.level] = found.get(given.level, frozenset()) | given.aliases
        return found


@dataclass(slots=True)
class Tally:
    """The counts and reasons of the nodes, or other parts of a decision, that were judged so far."""

    carried: int = 0
    not_injected: int = 0
    reasons: list[str] = field(default_factory=list)
    explained: list[str] = field(default_factory=list)

    def adherence(self) -> Adherence:
        """Return the sum."""
        compared = self.carried + len(self.reasons)
        return Adherence(
            steered_ratio=self.carried / compared if compared else 1.0,
            reasons=tuple(self.reasons),
            explained=tuple(self.explained),
            compared=compared,
            not_injected=self.not_injected,
        )

    def lack(self, node: RelationNode, why: str) -> None:
        """Count a node for which nothing was injected."""
        self.reasons.append(f"{node}: {why}")
        self.not_injected += 1


def combined(parts: Iterable[Adherence]) -> Adherence:
    """Return the adherence to all parts of a decision together."""
    parts = list(parts)
    reasons = [reason for part in parts for reason in part.reasons]
    return Tally(
        carried=sum(part.compared for part in parts) - len(reasons),
        not_injected=sum(part.not_injected for part in parts),
        reasons=reasons,
        explained=[explained for part in parts for explained in part.explained],
    ).adherence()


def verify(
    plan: Plan,
    injected: Mapping[frozenset[str], float],
    unknown: Mapping[frozenset[str], str] | None = None,
    *,
    only_injected: bool = False,
) -> Adherence:
    """
    Compare every scan and join of `plan` with the rows injected for its relations.

    `plan` was explained while `injected` (subplan -> rows) held. `unknown` are all other sets that the planner considered, with the reason
    why nothing was injected (`uninjected`). A node for which nothing was injected is not steered; `only_injected` lets it off. EXPLAIN does
    not say which query level a node is of, so that a node may carry the value of its aliases in any level.
    """
    given = [_given(subplan, rows=clamped(rows)) for subplan, rows in injected.items()]
    given += [_given(subplan, why=why) for subplan, why in (unknown or {}).items()]
    sets = _Sets(given=tuple(given), present=plan.aliases)
    tally = Tally()
    for node in relation_nodes(plan):
        _judge(node, sets, tally, only_injected=only_injected, all_known=unknown is not None)
    return tally.adherence()


def uninjected(
    injected: Iterable[frozenset[str]],
    considered: Iterable[frozenset[str]],
    asked: Iterable[frozenset[str]],
    given: Mapping[frozenset[str], str],
) -> dict[frozenset[str], str]:
    """
    Return the sets that a planning considered and nothing was injected for, with the reason; `LEFT_OUT` if the estimator gave none.

    `asked` are the sets that PostgreSQL considers without anything injected. `given` are the reasons that the estimator gave.
    """
    injected, asked, considered = set(injected), set(asked), list(considered)
    missing = [subplan for subplan in considered if subplan not in injected and frozenset(subplan) not in injected]
    if not missing:
        return {}
    there = frozenset().union(*considered)
    removed = {subplan & there: subplan - there for subplan in injected if not subplan <= there}
    return {subplan: _why(subplan, asked, given, removed) for subplan in missing}


def _why(
    subplan: frozenset[str],
    asked: set[frozenset[str]],
    given: Mapping[frozenset[str], str],
    removed: Mapping[frozenset[str], frozenset[str]],
) -> str:
    if subplan in given:
        return f"not known: {given[subplan]}"
    if subplan not in asked:
        return "GEQO: PostgreSQL did not consider these relations together when it was asked"
    gone = removed.get(frozenset(subplan))
    return f"removed: rows were injected for it with {' '.join(sorted(gone))}, which PostgreSQL removed" if gone else LEFT_OUT


def level_of(subplan: frozenset[str]) -> int | None:
    """Return the query level that a set is of, None for every level."""
    return subplan.level if isinstance(subplan, LeveledSubplan) else None


def _given(subplan: frozenset[str], *, rows: float | None = None, why: str = "") -> _Given:
    return _Given(aliases=frozenset(subplan), level=level_of(subplan), rows=rows, why=why)


def _judge(node: RelationNode, sets: _Sets, tally: Tally, *, only_injected: bool, all_known: bool) -> None:
    """Count one node."""
    named = [] if node.unnamed else sets.named(node.relations)
    found = named or ([] if node.unnamed else sets.copies(node.relations))
    if all_known and not named and node.plan.alias is None:
        found = found + sets.around(node.relations)  # a numbered alias may be one inside of a subquery that has the same table
    wanted = sorted({given.rows for given in found if given.rows is not None})
    why = next((given.why for given in found if given.rows is None), "")
    if any(node.carries(rows) for rows in wanted):
        tally.carried += 1
    elif node.plan.node_type in APPENDS and not (named and len(node.relations) == 1):
        return  # neither a scan nor a join, but what is below it
    elif node.member and not named and not sets.numbered(node.relations):
        tally.explained.append(f"{node}: a partition or branch of a union has a share of the rows of the whole")
    elif wanted and node.per_execution and node.plan.rows <= wanted[-1]:
        tally.explained.append(f"{node}: rows are per execution of the inner side of a nested loop")
    elif wanted and not why:
        numbers = " or ".join(f"{rows:.0f}" for rows in wanted)
        tally.reasons.append(f"{node}: injected {numbers} rows, the plan has {node.plan.rows:.0f}")
    elif only_injected:
        tally.explained.append(f"{node}: {why or NOT_INJECTED}")
    elif found or not all_known or (sets.one_level(node.relations) and not node.unnamed):
        tally.lack(node, why or NOT_INJECTED)
    else:
        tally.explained.append(f"{node}: EXPLAIN does not say which relations are below it")
