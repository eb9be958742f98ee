"""Moments of events: seconds since 1970, between the opening of the site and the day of the dump."""

from __future__ import annotations

import numpy as np

from .calibration import Quantiles
from .draws import Draws, Ints

DAY = 86_400
OPENING = 1_279_497_600  # 2010-07-19, in seconds since 1970
CLOSING = OPENING + 1518 * DAY + 2 * 3600  # 2014-09-14 02:00


def after(parent_s: Ints, lag: Quantiles, draws: Draws) -> Ints:
    """Return a moment after each parent, by a drawn lag; if that is after the dump, any moment between parent and dump."""
    moment = parent_s + lag.drawn(draws, len(parent_s))
    anywhere = parent_s + draws.below(np.maximum(CLOSING - parent_s, 1), len(parent_s))
    return np.where(moment >= CLOSING, anywhere, moment)


def age(moment_s: Ints, unit: int) -> Ints:
    """Return the time left until the dump as a share of the site's life, 0 .. `unit`."""
    return (CLOSING - np.maximum(moment_s, OPENING)) * unit // (CLOSING - OPENING)


def matched(child_s: Ints, tokens: Ints, parent_s: Ints, lag: Quantiles, draws: Draws) -> Ints:
    """
    Give every child one of the parent tokens, so that no child is older than its parent.

    `child_s` (n,), `tokens` (n,) parent numbers with repetition, `parent_s` ascending. `lag` gives each token a moment, and
    the children get the tokens in order of time. If a parent is still too young, the child exchanges it with a random later
    child; if that does not help, it gets any parent that is old enough.
    """
    order = np.argsort(child_s, kind="stable")
    times = child_s[order]
    parents = tokens[np.argsort(after(parent_s[tokens], lag, draws), kind="stable")]
    for _ in range(16):
        young = np.flatnonzero(parent_s[parents] > times)
        exchange(parents, parent_s, times, young, young + 1 + draws.below(np.maximum(len(times) - 1 - young, 1), len(young)))
    young = np.flatnonzero(parent_s[parents] > times)
    old_enough = np.searchsorted(parent_s, times[young], side="right")
    parents[young] = draws.below(np.maximum(old_enough, 1), len(young))
    result = np.empty(len(child_s), dtype=np.int64)
    result[order] = parents
    return result


def exchange(parents: Ints, parent_s: Ints, child_s: Ints, rows: Ints, partners: Ints) -> None:
    """Exchange the parent of each of `rows` with that of its partner, in place, if both are old enough for the other child."""
    within = partners < len(parents)
    rows, partners = rows[within], partners[within]
    fits = (parent_s[parents[partners]] <= child_s[rows]) & (parent_s[parents[rows]] <= child_s[partners])
    fits &= ~np.isin(partners, rows)
    partners, once = np.unique(partners[fits], return_index=True)
    rows = rows[fits][once]
    parents[rows], parents[partners] = parents[partners], parents[rows]
