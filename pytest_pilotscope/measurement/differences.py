"""Tell what a difference of two answers is: a mistake, the rounding of floating-point numbers, or a part that SQL leaves open."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import LeftTransaction, QueryTimeout, StatementFailed
from pytest_pilotscope.measurement.answers import Answer, SplitRows, is_floating
from pytest_pilotscope.measurement.open_answers import Reasons, openness_of

if TYPE_CHECKING:
    from pytest_pilotscope.measurement.sides import Side
    from pytest_pilotscope.queries.queries import Query

_ROUNDING = 1e-5
_CANCELLED = 1e-9
"""The largest relative and absolute difference of a sum of `real`, or of one that cancels out, in another order."""


class Differs(Exception):
    """Nothing that SQL leaves open explains the difference between two answers."""


def explained(query: Query, baseline: Side, side: Side, answers: tuple[Answer, Answer], limit_ms: int) -> str | None:
    """
    Return why the answers of two sides cannot be compared; None if they are equal within the rounding of floating-point numbers.

    Where a part of the answers must be equal, both sides execute the query once more, each at most `limit_ms`, and their rows are compared
    without the open columns; in an order by rounded numbers, the columns of that order are compared. Raise `Differs`.
    """
    own, other = answers
    opened = openness_of(baseline.session, query.sql)
    reasons = opened.rows or (opened.of_choice(own.row_count) if own.row_count == other.row_count else ())
    rounded = bool(opened.ordered) and not opened.rows and all(reason.inexact for reason in reasons)
    if reasons and not rounded:
        return _text(reasons)
    if not reasons and not opened.columns and not own.like(other):
        raise Differs(f"query {query.id!r}: other rows than PostgreSQL without steering")

    def left_out(types: Sequence[int]) -> Collection[int]:
        return {*range(len(types))} - {*opened.ordered} if reasons else _open_columns(opened.columns, types)

    try:
        equal = _equal_again(query, baseline, side, left_out, limit_ms, loose=any(reason.inexact for reason in opened.all))
    except (QueryTimeout, StatementFailed, LeftTransaction) as error:
        return f"executed once more, to compare its answers value by value, it failed: {error}"
    return None if equal and own.like(other) else _text(opened.all)


def _equal_again(
    query: Query, baseline: Side, side: Side, left_out: Callable[[Sequence[int]], Collection[int]], limit_ms: int, *, loose: bool
) -> bool:
    """
    Execute a query on both sides and compare the columns that are not left out; if `loose`, allow the rounding of sums.

    Return False if that was needed, or if a column that was left out may hold floating-point numbers. Raise `Differs`.
    """
    with ExitStack() as stack:
        first, second = (_executed(stack, query, one, left_out, limit_ms) for one in (baseline, side))
        close = first.equal(second)
        if not close and not (loose and first.equal(second, relative=_ROUNDING, absolute=_CANCELLED)):
            raise Differs(f"query {query.id!r}: other rows than PostgreSQL without steering")
        return close and not first.left_out_floating


def _executed(stack: ExitStack, query: Query, side: Side, left_out: Callable[[Sequence[int]], Collection[int]], limit_ms: int) -> SplitRows:
    rows = stack.enter_context(closing(SplitRows(left_out)))
    with side.steered(query), side.session.statement_timeout(limit_ms):
        side.session.unable_to_write(lambda: side.session.stream(query.sql, rows.take))
    return rows


def _open_columns(columns: Mapping[int, Reasons], types: Sequence[int]) -> list[int]:
    """Return the columns that cannot be compared: those with a reason, except floating-point numbers that are inexact only."""
    return [
        number for number, reasons in columns.items() if not all(reason.inexact for reason in reasons) or not is_floating(types[number])
    ]


def _text(reasons: Reasons) -> str:
    return "; ".join(dict.fromkeys(reason.text for reason in reasons))
