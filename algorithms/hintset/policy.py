"""The rules around the predictions: which arms are planned, for which queries, and when another plan than PostgreSQL's own is taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from math import exp
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.hintset.collected import ArmedQuery
from pytest_pilotscope.algorithms.plans.savings import Skipping, skipping, worthwhile
from pytest_pilotscope.algorithms.plans.timing import is_faster

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.hintset.ensemble import Floats, TrainedEnsemble

GAINS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
LEASTS_MS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
"""Candidate values of `Policy.gain` and `Policy.least_ms`."""

AS_GOOD = 1.01
"""Policies whose total is within this factor of the smallest are equally good; the most cautious one is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownArm:
    """The best arm of a statement that training ran, by its number, and its time."""

    arm: int
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    The decisions around the ensemble.

    `arms` are the numbers of the arms worth planning, best first: each was faster on some training query than all before it, PostgreSQL's
    own plan included. They are planned only if PostgreSQL's own plan is predicted to take `least_ms`, and one is taken only if the
    logarithm of its time is predicted to be smaller by `gain`. `known` has the arms of the statements that training ran, by
    `sql_key`; the others may be skipped, without any planner call.
    """

    arms: tuple[int, ...]
    planner_ms: float
    least_ms: float = 0.0
    gain: float = 0.0
    skipping: Skipping = field(default_factory=Skipping)
    known: Mapping[str, KnownArm] = field(default_factory=dict)

    def worth_a_look(self, signature: str) -> bool:
        """Tell whether an unknown statement is worth a planner call."""
        return bool(self.arms) and self.skipping.worth_a_look(signature)


def best_known(query: ArmedQuery) -> KnownArm:
    """Return the arm whose plan was fastest; PostgreSQL's own unless another one was faster beyond a tie."""
    faster = [plan for plan, outcome in enumerate(query.outcomes) if is_faster(outcome, query.own)]
    plan = min(faster, key=query.counted_ms, default=0)
    return KnownArm(arm=query.arms.index(plan), ms=query.counted_ms(plan))


def useful_arms(queries: Sequence[ArmedQuery]) -> tuple[int, ...]:
    """Return the arms that saved time beyond those before them, best first: never one that was faster on no query."""
    reached: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for position, query in enumerate(queries):
        for arm, plan in enumerate(query.arms):
            if arm and plan in query.ran:
                reached[arm].append((position, query.counted_ms(plan)))
    return worthwhile([query.own.at_least_ms for query in queries], reached)


def tuned(queries: Sequence[ArmedQuery], done: TrainedEnsemble) -> Policy:
    """Return the policy with the least time on the training queries, predicted by the networks that have not seen them."""
    useful, found = useful_arms(queries), []
    start = Policy(
        arms=(), planner_ms=median(query.planner_ms for query in queries), known={query.sql_key: best_known(query) for query in queries}
    )
    for count in range(1, len(useful) + 1):
        basis = Basis.of(queries, done, useful[:count])
        for least_ms, gain in product(LEASTS_MS, GAINS):
            policy = replace(start, arms=useful[:count], least_ms=least_ms, gain=gain)
            found.append((float(basis.replayed(policy)[1].sum()), policy, basis))
    if not found:
        return start
    enough_ms = AS_GOOD * min(total_ms for total_ms, _, _ in found)
    cautious = [(policy, basis) for total_ms, policy, basis in found if total_ms <= enough_ms]
    policy, basis = max(cautious, key=lambda each: (each[0].least_ms, each[0].gain, -len(each[0].arms)))
    saved_ms = basis.own_ms - basis.replayed(policy)[1]
    return replace(
        policy, skipping=skipping([(query.signature, query.size, ms) for query, ms in zip(basis.queries, saved_ms.tolist(), strict=True)])
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """
    The training queries that some networks have not seen (all, if there are none), with these networks' predictions.

    `own_ms` (Q,) are the times of PostgreSQL's own plans. `own_logs` and `best_logs` (Q,) are the predictions for them and for the best
    plan of some arms, which is number `best`.
    """

    queries: Sequence[ArmedQuery]
    own_ms: Floats
    own_logs: Floats
    best_logs: Floats
    best: npt.NDArray[np.int64]

    @classmethod
    def of(cls, queries: Sequence[ArmedQuery], done: TrainedEnsemble, arms: Sequence[int]) -> Basis:
        """Predict the times of all plans of these arms."""
        unseen = [(query, members) for query, members in zip(queries, done.unseen_by, strict=True) if members]
        own, logs, best = [], [], []
        for query, members in (basis := unseen or [(query, ()) for query in queries]):
            plans = list(dict.fromkeys([0, *(query.arms[arm] for arm in arms)]))
            found = done.ensemble.logs([query.plans[plan] for plan in plans], members)
            own.append(found[0])
            logs.append(found.min())
            best.append(plans[int(np.argmin(found))])
        return cls(
            queries=[query for query, _ in basis],
            own_ms=np.array([query.own.at_least_ms for query, _ in basis]),
            own_logs=np.array(own),
            best_logs=np.array(logs),
            best=np.array(best),
        )

    def replayed(self, policy: Policy) -> tuple[npt.NDArray[np.int64], Floats]:
        """
        Apply a policy; return the (Q,) plans, and the ms of running them and of choosing.

        A prediction counts as a planner call, which takes about as long: its own time would make the policy depend on the moment.
        """
        asked = np.array([policy.worth_a_look(query.signature) for query in self.queries], dtype=bool)
        looked = asked & (np.exp(self.own_logs) >= policy.least_ms)
        plans = np.where(looked & (self.own_logs - self.best_logs > policy.gain), self.best, 0)
        run_ms = np.array([query.counted_ms(plan) for query, plan in zip(self.queries, plans.tolist(), strict=True)])
        return plans, run_ms + (asked * 2.0 + looked * (len(policy.arms) + 1)) * policy.planner_ms

    def figures(self, policy: Policy) -> dict[str, int | float]:
        """Sum up the choices of a policy, with the names of lero's figures."""
        plans, total_ms = self.replayed(policy)
        best_ms = sum(min(map(query.counted_ms, query.ran)) for query in self.queries)
        taken = [(query.outcomes[plan], query.own) for query, plan in zip(self.queries, plans.tolist(), strict=True)]
        return {
            "validation_queries": len(self.queries),
            "validation_speedup": float(self.own_ms.sum() / total_ms.sum()),
            "validation_own_regret": float(self.own_ms.sum()) / best_ms - 1,
            "validation_improvements": sum(is_faster(outcome, own) for outcome, own in taken),
            "validation_regressions": sum(is_faster(own, outcome) for outcome, own in taken),
        }


def predicted_ms(log_ms: float) -> float:
    """Return a predicted time in ms."""
    return exp(min(log_ms, 50.0))
