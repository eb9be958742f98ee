"""The decision of an algorithm on one query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from math import inf

from pytest_pilotscope.errors import AlgorithmError, InvalidEstimate
from pytest_pilotscope.learning.algorithm import Cardinalities, Subplan, is_finite, unknown_of
from pytest_pilotscope.queries.queries import Query


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """
    A decision on one query; PostgreSQL decides everything else by itself. `Decision()` is PostgreSQL's own plan, and false.

    `rows` are for the planner to use in place of its own estimates of these subplans. `join_order` is a tree with the outer side first,
    such as "((a b) c)"; a group of three or more, as in "((a b c) d)", is joined first, in the order that the planner chooses. `methods`
    are those of joins and scans, by aliases: `{"a b": "hashjoin", "c": "indexscan"}`. `settings` are settings of the planner, such as
    `{"enable_nestloop": "off"}`.
    """

    rows: Cardinalities = field(default_factory=dict)
    join_order: str | None = None
    methods: Mapping[str, str] | Mapping[Subplan, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.rows or self.join_order is not None or self.methods or self.settings)


def check_decision(algorithm: str, query: Query, decision: object) -> Decision:
    """Return a decision; raise `AlgorithmError` for any other answer, and for a field of another type, `InvalidEstimate` for its rows."""
    if not isinstance(decision, Decision):
        raise AlgorithmError(
            f"{algorithm} answered query {query.id!r} with {decision!r}; it must be a Decision (from pytest_pilotscope import Decision)"
        )
    check_rows(algorithm, query, decision.rows)
    if decision.join_order is not None and not (isinstance(decision.join_order, str) and decision.join_order.strip()):
        raise AlgorithmError(
            f"{algorithm} answered query {query.id!r} with {decision.join_order!r} as join_order; it must be a text such as '((a b) c)'"
        )
    _check_texts(algorithm, query, "methods", decision.methods, "aliases to methods, such as {'a b': 'hashjoin'}")
    _check_texts(algorithm, query, "settings", decision.settings, "names to values, both texts, such as {'enable_nestloop': 'off'}")
    return decision


def _check_texts(algorithm: str, query: Query, name: str, given: object, wanted: str) -> None:
    texts = isinstance(given, Mapping) and all(
        isinstance(value, str) and (isinstance(key, str) or (name == "methods" and _is_subplan(key))) for key, value in given.items()
    )
    if not texts:
        raise AlgorithmError(f"{algorithm} answered query {query.id!r} with {given!r} as {name}; it must be a mapping from {wanted}")


def check_rows(algorithm: str, query: Query, rows: Cardinalities) -> None:
    """
    Raise `InvalidEstimate` for rows that are not finite and >= 0, and `AlgorithmError` for an answer that is no mapping of subplans to
    numbers, or a reason that is no text.
    """
    if not isinstance(rows, Mapping):
        raise AlgorithmError(
            f"{algorithm} answered query {query.id!r} with {rows!r}; it must be a mapping of subplans (frozensets of aliases) to rows"
        )
    for subplan, number in rows.items():
        if not _is_subplan(subplan):
            raise AlgorithmError(
                f"{algorithm} answered query {query.id!r} with rows for {subplan!r}; a subplan is a frozenset of aliases, such as "
                "frozenset({'c', 'u'})"
            )
        if type(number) is float and 0 <= number < inf:  # nearly all of them
            continue
        if not is_finite(number) or number < 0:
            raise InvalidEstimate(algorithm, query_id=query.id, subplan=subplan, rows=number if isinstance(number, float) else repr(number))
    for subplan, reason in unknown_of(rows).items():
        if not isinstance(reason, str):
            raise AlgorithmError(
                f"{algorithm} answered query {query.id!r} with {reason!r} as the reason for {' '.join(sorted(subplan))}; it must be a text"
            )


@lru_cache(maxsize=1 << 14)
def _is_subplan(key: object) -> bool:
    return isinstance(key, frozenset) and all(isinstance(alias, str) for alias in key)
