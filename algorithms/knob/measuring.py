"""Times of queries: the selection of a trial's queries, one pass of a trial, and the incumbent against the default in turns."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np

from pytest_pilotscope.algorithms.knob.objective import SHARES, Objective, Target
from pytest_pilotscope.errors import AlgorithmError, QueryTimeout, StatementFailed
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.postgres.steering import has_extension
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.statistics.intervals import Interval, workload_ratios
from pytest_pilotscope.statistics.pairs import Floats, Pairs

_LONGEST_SHARE = 4.0  # selection leaves out a query that takes more than a quarter of a trial's time by default
SLOWER = 10.0  # a query's limit is this many times its default time, but at least
LEAST_LIMIT_S = 1.0
_REPLICATES = 1000
_LEAST_MS = 1e-3  # below the resolution of the server's clock

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """The queries of every trial, their times by default in s, and the number of queries that take too long."""

    queries: tuple[Query, ...]
    default_s: tuple[float, ...]
    too_long: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One pass over the queries: the times in s of those that ran, and whether the pass was cut off."""

    times_s: tuple[float, ...]
    capped: bool


def time_s(session: Session, sql: str, limit_s: float) -> float:
    """Return the server's time for a query, planning included; `limit_s` if the query is cut off there."""
    with session.statement_timeout(max(1, math.ceil(limit_s * 1000))):
        try:
            if has_extension(session):
                run = session.timed_stream(sql, None)
                return (run.planning_ms + run.execution_ms) / 1000
            started_ns = perf_counter_ns()
            session.stream(sql, None)
            return (perf_counter_ns() - started_ns) / 1e9
        except QueryTimeout:
            return limit_s


def select_queries(session: Session, queries: Sequence[Query], *, trial_s: float, seed: int) -> Selected:
    """
    Draw queries until they take `trial_s` seconds with the settings of `session`; each runs twice and the second time counts.

    A query that already fails with these settings, for instance because it writes, is left out with a warning. Raises `AlgorithmError` if
    none is left.
    """
    chosen, times, too_long, failed = [], [], 0, 0
    limit_s = trial_s / _LONGEST_SHARE
    for position in np.random.default_rng(seed).permutation(len(queries)):
        query = queries[position]
        first_s = _first_s(session, query, limit_s)
        if first_s is None:
            failed += 1
        elif first_s >= limit_s:
            too_long += 1
        else:
            chosen.append(query)
            times.append(time_s(session, query.sql, limit_s))
            if sum(times) >= trial_s:
                break
    if not chosen:
        warned = f" ({failed} of them fail, see the warnings)" if failed else ""
        raise AlgorithmError(
            f"none of the {len(queries)} queries runs within {limit_s:g} s with the default settings, a quarter of a trial{warned}; "
            f"raise --knob-trial-s (now {trial_s:g})"
        )
    return Selected(queries=tuple(chosen), default_s=tuple(times), too_long=too_long)


def _first_s(session: Session, query: Query, limit_s: float) -> float | None:
    """Return the time of a query with the settings of the session; None, with a warning, if it fails."""
    try:
        return time_s(session, query.sql, limit_s)
    except StatementFailed as error:
        if session.closed:
            raise
        logger.warning("knob tuning leaves out query %s, which fails with the default settings: %s", query.id, error)
        return None


def run_pass(session: Session, selected: Selected, objective: Objective, limit: float) -> Pass:
    """Run the queries of a trial until its cost is sure to be above `limit`. StatementFailed if one of them fails."""
    times: list[float] = []
    for query, default_s in zip(selected.queries, selected.default_s, strict=True):
        patience_s = max(SLOWER * default_s, LEAST_LIMIT_S)
        limit_s = min(objective.query_limit_s(times, limit), patience_s)
        times.append(time_s(session, query.sql, limit_s))
        if objective.exceeds(times, limit) or times[-1] >= limit_s:
            return Pass(times_s=tuple(times), capped=True)
    return Pass(times_s=tuple(times), capped=False)


def compare(default: Session, candidate: Session, selected: Selected, *, target: Target, rounds: int, seed: int) -> Interval:
    """
    Return the target's ratio, candidate / default, with its 95 % interval: of total times by the suite's own statistics, of
    percentiles by a bootstrap of the queries.
    """
    pairs = take_turns(default, candidate, selected, rounds=rounds)
    if target in SHARES:
        default_ms, candidate_ms = np.median(pairs.baseline_ms, axis=1), np.median(pairs.candidate_ms, axis=1)
        return _ratio_of_percentiles(default_ms, candidate_ms, 100 * SHARES[target], seed)
    return workload_ratios(pairs, seed=seed).total


def take_turns(default: Session, candidate: Session, selected: Selected, *, rounds: int) -> Pairs:
    """
    Measure two sessions in turns, query by query, after one warm-up.

    The order changes from round to round. A query that is cut off at 10 times its default time counts with that limit.
    """
    shape = (len(selected.queries), rounds)
    times = {side: np.zeros(shape) for side in ("default", "candidate")}
    sessions = {"default": default, "candidate": candidate}
    for row, (query, default_s) in enumerate(zip(selected.queries, selected.default_s, strict=True)):
        limit_s = max(SLOWER * default_s, LEAST_LIMIT_S)
        for side in sessions:
            time_s(sessions[side], query.sql, limit_s)
        for column in range(rounds):
            for side in sorted(sessions, reverse=column % 2 == 1):
                times[side][row, column] = max(time_s(sessions[side], query.sql, limit_s) * 1000, _LEAST_MS)
    return Pairs(
        query_ids=tuple(query.id for query in selected.queries),
        baseline_ms=times["default"],
        candidate_ms=times["candidate"],
        baseline_timed_out=np.zeros(shape, dtype=bool),
        candidate_timed_out=np.zeros(shape, dtype=bool),
    )


def _ratio_of_percentiles(default_ms: Floats, candidate_ms: Floats, percentile: float, seed: int) -> Interval:
    drawn = np.random.default_rng(seed).integers(len(default_ms), size=(_REPLICATES, len(default_ms)))
    ratios = np.percentile(candidate_ms[drawn], percentile, axis=1) / np.percentile(default_ms[drawn], percentile, axis=1)
    low, high = np.percentile(ratios, [2.5, 97.5])
    estimate = np.percentile(candidate_ms, percentile) / np.percentile(default_ms, percentile)
    return Interval(estimate=float(estimate), low=float(low), high=float(high))
