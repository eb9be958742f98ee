"""PostgreSQL's equivalence classes: the transitive closure of equalities and what follows from it for one relation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import pairwise

from pytest_pilotscope.core.joins import ColumnRef, key_family
from pytest_pilotscope.core.predicates import ColumnComparison, Comparison, Constant, Predicate, TypedText, predicate


def close(equalities: Sequence[tuple[ColumnRef, ColumnRef]], aliases: Sequence[str]) -> tuple[tuple[ColumnRef, ...], ...]:
    """Return the classes of columns that are equal, members and classes ordered by relation and column."""
    parent: dict[ColumnRef, ColumnRef] = {}

    def root(ref: ColumnRef) -> ColumnRef:
        while parent.setdefault(ref, ref) != ref:
            ref = parent[ref]
        return ref

    for left, right in equalities:
        parent[root(left)] = root(right)
    position = {alias: index for index, alias in enumerate(aliases)}
    groups: dict[ColumnRef, list[ColumnRef]] = {}
    for ref in sorted(parent, key=lambda ref: (position[ref.alias], ref.column)):
        groups.setdefault(root(ref), []).append(ref)
    return tuple(tuple(members) for members in groups.values())


def derive(
    classes: Sequence[Sequence[ColumnRef]], written: Mapping[str, Sequence[Predicate]], type_of: Callable[[ColumnRef], str]
) -> Iterator[Predicate]:
    """
    Yield the restrictions that follow from the classes (`generate_base_implied_equalities` in equivclass.c).

    A class with a constant restricts each of its columns to it; without one, two columns of the same relation are equal.
    Only `=` travels: PostgreSQL does not carry ranges or IN lists over an equality.
    """
    for members in classes:
        constants = [c for ref in members for c in _constants(ref, written.get(ref.alias, ()), type_of(ref))]
        for ref in members:
            for constant in constants[:1]:
                yield predicate(ref.alias, Comparison(ref.column, "=", constant), derived=True)
        for left, right in pairwise(members):
            if left.alias == right.alias and not constants:
                yield predicate(left.alias, ColumnComparison(left.column, "=", right.column), derived=True)


def across(
    outer_equalities: Sequence[tuple[ColumnRef, ColumnRef]],
    written: Mapping[str, Sequence[Predicate]],
    type_of: Callable[[ColumnRef], str],
) -> Iterator[Predicate]:
    """Yield `right = constant` for each `left = right` of an outer join whose left column is equal to a constant."""
    for left, right in outer_equalities:
        for constant in list(_constants(left, written.get(left.alias, ()), type_of(left)))[:1]:
            yield predicate(right.alias, Comparison(right.column, "=", constant), derived=True)


def _constants(ref: ColumnRef, predicates: Sequence[Predicate], column_type: str) -> Iterator[Constant]:
    for candidate in predicates:
        condition = candidate.condition
        if not isinstance(condition, Comparison) or condition.column != ref.column or condition.operator != "=":
            continue
        if _same_type(condition.value, column_type):
            yield condition.value


def _same_type(value: Constant, column_type: str) -> bool:
    """Tell whether comparing needs no cast of the column: `int_column = 2.5` compares the column cast to numeric."""
    family = key_family(column_type)
    if isinstance(value, bool) or family in (None, "boolean"):
        return False
    if isinstance(value, int | Decimal):
        return family in ("numeric", "double", "real") or (family == "integer" and isinstance(value, int))
    if isinstance(value, TypedText):
        return key_family(value.type) == family
    return True
