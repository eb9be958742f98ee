"""The plans of training queries under every arm, timed, and the file that keeps them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.algorithms.hintset.arms import Arm, arm_text, arms_of
from pytest_pilotscope.algorithms.hintset.matrix import NEVER_RUN, explored
from pytest_pilotscope.algorithms.plans.collecting import PlanSessions, Steer, collect_missing, collected_queries, limited, store_path
from pytest_pilotscope.algorithms.plans.shape import shape_key, trimmed
from pytest_pilotscope.algorithms.plans.signature import signature_of
from pytest_pilotscope.algorithms.plans.timed import TimedQuery, TimedStore, sql_key, timed_fields, timed_json
from pytest_pilotscope.algorithms.plans.timing import Outcome, TimingRules, time_plans
from pytest_pilotscope.errors import StatementFailed, UsageError, counted
from pytest_pilotscope.postgres.plannersettings import planner_settings
from pytest_pilotscope.postgres.planning import RawPlan, planned_under
from pytest_pilotscope.queries.queries import Query

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.postgres.session import Session

logger = logging.getLogger(__name__)

FORMAT = 1
TIMING = TimingRules(rounds=2, multiple=1.5, first_limit_ms=TimingRules().last_limit_ms)
"""PostgreSQL's own plan runs to its end first; every other run is cut off at 1.5 times the best known time of its query."""


BUDGET = 2.0
"""`Budget.multiple` of a user who gives none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The offline form: other arms may run `multiple` times as long as PostgreSQL's own plans; the seed draws among the unpromising."""

    multiple: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRules:
    """The arms and the rules of timing them, which are part of the key of a collection; without `offline` every plan runs."""

    arms: tuple[Arm, ...]
    timing: TimingRules
    offline: Budget | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmedQuery(TimedQuery):
    """A query with its timed plans, its signature, the plan of each arm, and the mean time of a planner call."""

    signature: str
    arms: tuple[int, ...]
    planner_ms: float

    @property
    def size(self) -> int:
        """The number of equalities that join columns."""
        return len(self.signature.split())

    @property
    def ran(self) -> tuple[int, ...]:
        """The plans that ran at all."""
        return tuple(plan for plan, outcome in enumerate(self.outcomes) if outcome != NEVER_RUN)


def rules_of(training: Training) -> ArmRules:
    """Return the rules that the user's options give; raise `UsageError` for a budget of the offline form without it."""
    options = training.options
    if options["budget"] is not None and not options["offline"]:
        raise UsageError("--hintset-budget limits what --hintset-offline runs; add that option, or leave the budget out")
    budget = Budget(multiple=options["budget"] or BUDGET, seed=training.settings.seed) if options["offline"] else None
    return ArmRules(arms=arms_of(options["arms"]), timing=limited(TIMING, training), offline=budget)


def store_of(training: Training, rules: ArmRules) -> TimedStore[ArmedQuery]:
    """Open and read the store of this data, these statistics, this server and these rules."""
    store = TimedStore(store_path(training, asdict(rules), format_number=FORMAT), _to_json, _from_json)
    store.read()
    return store


def collect(training: Training, queries: Sequence[Query], store: TimedStore[ArmedQuery], rules: ArmRules) -> list[ArmedQuery]:
    """Return these queries with their timed plans, in order, see `collected_queries`; the offline form runs some of the plans only."""
    if rules.offline is None:
        return collected_queries(training, queries, store, partial(collect_one, rules=rules))
    return collect_missing(training, queries, store, partial(_explore, training, store=store, rules=rules, budget=rules.offline))


def plan_arms(query: Query, session: Session, arms: Sequence[Arm]) -> ArmedQuery:
    """
    Plan a query once under each arm, and keep the distinct plans; none has run.

    A setting such as `work_mem` changes how a plan runs, so plans of one shape are equal only if the settings besides `enable_...` are.
    """
    started_ns = perf_counter_ns()
    plans: list[RawPlan] = []
    positions: dict[tuple[Any, ...], int] = {}
    numbers: list[int] = []
    for arm in arms:
        plan = planned_under(session, query.sql, arm)
        others = tuple(setting for setting in arm.items() if not setting[0].startswith("enable_"))
        numbers.append(positions.setdefault((shape_key(plan), others), len(plans)))
        if numbers[-1] == len(plans):
            plans.append(trimmed(plan))
    return ArmedQuery(
        query_id=query.id,
        sql_key=sql_key(query.sql),
        plans=tuple(plans),
        outcomes=(NEVER_RUN,) * len(plans),
        signature=signature_of(query.sql),
        arms=tuple(numbers),
        planner_ms=(perf_counter_ns() - started_ns) / 1e6 / len(arms),
    )


def observed(query: Query, session: Session, arms: Sequence[Arm], seen: Mapping[int, float]) -> ArmedQuery:
    """Plan a query under each arm; the plans of the arms in `seen` have these times in ms, and no other plan has run."""
    planned = plan_arms(query, session, arms)
    outcomes = list(planned.outcomes)
    for arm, ms in seen.items():
        outcomes[planned.arms[arm]] = Outcome(times_ms=(ms,))
    return replace(planned, outcomes=tuple(outcomes))


def collect_one(query: Query, sessions: PlanSessions, *, rules: ArmRules) -> ArmedQuery:
    """Plan a query under every arm and time the distinct plans; see `collecting.Collect`."""
    planned = plan_arms(query, sessions.first, rules.arms)
    with sessions.prepared(query.sql, [_steer(planned, plan, rules) for plan in range(len(planned.plans))]) as run:
        return _ran(planned, time_plans(len(planned.plans), run, rules.timing))


def _explore(training: Training, queries: Sequence[Query], *, store: TimedStore[ArmedQuery], rules: ArmRules, budget: Budget) -> None:
    """Time PostgreSQL's own plan of each query, then other plans as far as the budget goes."""
    with closing(PlanSessions(training.database)) as sessions:
        planned = _own_times(training, queries, sessions, rules)
        outcomes = explored(
            [found.arms for _, found in planned],
            [found.own for _, found in planned],
            lambda number, plan, limit_ms: _run_or_warn(sessions, *planned[number], plan, limit_ms, rules),
            budget=budget.multiple,
            timing=rules.timing,
            seed=budget.seed,
        )
    for (_, found), timed in zip(planned, outcomes, strict=True):
        store.add(_ran(found, timed))


def _own_times(training: Training, queries: Sequence[Query], sessions: PlanSessions, rules: ArmRules) -> list[tuple[Query, ArmedQuery]]:
    """Plan each query under the arms, and time PostgreSQL's own plan; leave out a query that PostgreSQL refuses, with a warning."""
    planned = []
    with training.progress(f"hintset plans of {counted(len(queries), 'query', 'queries')}", len(queries)) as advance:
        for query in queries:
            try:
                found = plan_arms(query, sessions.first, rules.arms)
                with sessions.prepared(query.sql, [_steer(found, 0, rules)]) as run:
                    own = time_plans(1, run, replace(rules.timing, rounds=1))
                planned.append((query, _ran(found, [*own, *found.outcomes[1:]])))
            except StatementFailed as error:
                logger.warning("hintset does not learn from query %s: %s", query.id, error)
            advance(1)
    return planned


def _run_or_warn(sessions: PlanSessions, query: Query, planned: ArmedQuery, plan: int, limit_ms: float, rules: ArmRules) -> float | None:
    """Run a plan; one that fails, though PostgreSQL's own does not, counts as cut off."""
    try:
        with sessions.prepared(query.sql, [_steer(planned, plan, rules)]) as run:
            return run(0, limit_ms)
    except StatementFailed as error:
        arm = arm_text(rules.arms[planned.arms.index(plan)])
        logger.warning("query %s fails under %s, which counts as cut off: %s", query.id, arm, error)
        return None


def _steer(planned: ArmedQuery, plan: int, rules: ArmRules) -> Steer:
    return partial(planner_settings, settings=rules.arms[planned.arms.index(plan)])


def _ran(planned: ArmedQuery, outcomes: Sequence[Outcome]) -> ArmedQuery:
    """Return a query with outcomes; if only later runs of PostgreSQL's own plan were cut off, by a better one, its first run counts."""
    own = outcomes[0]
    if own.ms is None and own.warm_up_ms is not None:
        own = Outcome(warm_up_ms=own.warm_up_ms, times_ms=(own.warm_up_ms,))
    return replace(planned, outcomes=(own, *outcomes[1:]))


def _to_json(found: ArmedQuery) -> dict[str, Any]:
    return {"format": FORMAT, **timed_json(found), "signature": found.signature, "arms": found.arms, "planner_ms": found.planner_ms}


def _from_json(line: Mapping[str, Any]) -> ArmedQuery:
    arms = tuple(map(int, line["arms"]))
    return ArmedQuery(**timed_fields(line, FORMAT), signature=str(line["signature"]), arms=arms, planner_ms=float(line["planner_ms"]))
