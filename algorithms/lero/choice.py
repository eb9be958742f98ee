"""The choice for one query, from its text to the plan to run, with the facts that explain the choice."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import unified_diff
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.algorithms.lero.candidates import Candidates, explore, look
from pytest_pilotscope.algorithms.lero.scoring import TrainedModel
from pytest_pilotscope.algorithms.plans.signature import signature_of
from pytest_pilotscope.postgres.explain import parse_plan, render
from pytest_pilotscope.postgres.subplans import key_text
from pytest_pilotscope.record.results import Scalar

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.planning import RawPlan
    from pytest_pilotscope.postgres.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """
    The chosen plan (0: PostgreSQL's own), the candidates, their scores, and the time of the choice in ms.

    `candidates` is None if the policy skipped the query.
    """

    plan: int
    candidates: Candidates | None
    scores: tuple[float, ...]
    elapsed_ms: float

    @property
    def cardinalities(self) -> dict[frozenset[str], float]:
        """The cardinalities to inject; none for PostgreSQL's own plan."""
        return {} if self.candidates is None or self.plan == 0 else self.candidates.cardinalities(self.plan)

    def facts(self) -> dict[str, Scalar]:
        """
        Return a summary of the choice.

        `score_gain` is the score of PostgreSQL's own plan minus the best score, also if that was not enough. `factor` and `size` are those
        of the slot.
        """
        found = self.candidates
        slot = None if found is None else found.slots[self.plan]
        return {
            "looked": found is not None,
            "planner_calls": 0 if found is None else found.planner_calls,
            "distinct_plans": 1 if found is None else len(found.plans),
            "choosing_ms": round(self.elapsed_ms, 3),
            "planner_ms": 0.0 if found is None else round(found.elapsed_ms, 3),
            "chosen": self.plan,
            "factor": None if slot is None else slot.factor,
            "size": None if slot is None else slot.size,
            "score_gain": round(self.scores[0] - min(self.scores), 5) if self.scores else None,
        }

    def explained(self, query_id: str) -> dict[str, Any]:
        """Return the facts as JSON values, with all scores and the difference between PostgreSQL's own plan and the chosen one."""
        found = self.candidates
        return {
            "query": query_id,
            **self.facts(),
            "scores": [round(score, 5) for score in self.scores],
            "difference": [] if found is None or self.plan == 0 else plan_difference(found.plans[0], found.plans[self.plan]),
        }

    def served(self, margin: float) -> dict[str, Any]:
        """
        Return the answer of a served model, as JSON values: the facts, the margin, all scores, and the cardinalities to inject.

        The cardinalities have the keys of the library's setting (`subplans.key_text`); PostgreSQL's own plan has none.
        """
        return {
            **self.facts(),
            "margin": round(margin, 5),
            "scores": [round(score, 5) for score in self.scores],
            "cardinalities": {key_text(subplan): rows for subplan, rows in self.cardinalities.items()},
        }


def choose(model: TrainedModel, session: Session, sql: str) -> Choice:
    """Look for as many candidates as the policy allows, score them in one batch, and pick one."""
    started_ns = perf_counter_ns()
    policy, signature = model.policy, signature_of(sql)
    if not policy.worth_a_look(signature):
        return Choice(plan=0, candidates=None, scores=(), elapsed_ms=(perf_counter_ns() - started_ns) / 1e6)
    found = look(session, sql)
    candidates = explore(
        session,
        sql,
        found,
        policy.ordered(found.subplans),
        max_candidates=policy.max_candidates,
        max_calls=policy.calls_for(found, signature),
    )
    plan, scores = 0, ()
    if len(candidates.plans) > 1:
        found_scores = model.scores(candidates.plans, found.subplans)
        plan, scores = policy.pick(found_scores), tuple(found_scores.tolist())
    return Choice(plan=plan, candidates=candidates, scores=scores, elapsed_ms=(perf_counter_ns() - started_ns) / 1e6)


def plan_difference(own: RawPlan, chosen: RawPlan) -> list[str]:
    """Return the lines of a unified diff from PostgreSQL's own plan to another."""
    before, after = (render(parse_plan([{"Plan": plan}])).splitlines() for plan in (own, chosen))
    return list(unified_diff(before, after, "PostgreSQL", "chosen", n=100, lineterm=""))[3:]
