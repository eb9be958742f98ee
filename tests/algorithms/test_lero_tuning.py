"""The policy: replays, margin, share, slots and skipping, on made-up collections."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from pytest_pilotscope.algorithms.lero.candidates import Look, Slot
from pytest_pilotscope.algorithms.lero.evaluation import explained, figures, true_rank
from pytest_pilotscope.algorithms.lero.policy import PlannerTime, Policy
from pytest_pilotscope.algorithms.lero.tuning import ScoredQuery, replay, tuned, useful_slots

from .lero_example import SUBPLANS, collected_query, node, outcome

ALL = Policy(factors=(10.0, 100.0, 1000.0), max_candidates=20)


def query(
    *times_ms: float, scores: tuple[float, ...], look_ms: float = 1.0, call_ms: float = 1.0, signature: str = "a.x=b.y"
) -> ScoredQuery:
    """A collected query, PostgreSQL's own plan first, and the scores of its plans."""
    found = collected_query([outcome(ms) for ms in times_ms], look_ms=look_ms, call_ms=call_ms, signature=signature)
    return ScoredQuery(query=found, scores=np.array(scores, dtype=np.float32))


def test_a_replay_adds_choosing_to_running() -> None:
    """The plan with the best score is taken, after one call for the own plan and one for each slot."""
    run = replay(query(100, 50, 20, scores=(1, 0, 0.5)), ALL)
    assert (run.plan, run.calls, run.choosing_ms, run.run_ms, run.own_ms, run.total_ms) == (1, 3, 3.0, 50, 100, 53)


def test_a_share_limits_the_planner_calls() -> None:
    """A tenth of the predicted 100 ms pays for two calls of 5 ms, and the plan of the third slot is never seen."""
    policy = replace(ALL, share=0.1, intercept=float(np.log(100)), planner=PlannerTime(overall=5.0))
    run = replay(query(100, 90, 80, 1, scores=(3, 2, 1, 0)), policy)
    assert (run.plan, run.calls) == (2, 3)
    assert policy.calls(1.0, "", 3) == 2


def test_a_prediction_grows_with_the_cost_and_uses_the_time_of_a_planner_call() -> None:
    """Planner time is that of the signature, else of the number of relations, else of all."""
    policy = replace(ALL, share=1.0, slope=1.0, planner=PlannerTime(by_signature={"s": 2.0}, by_size={3: 10.0}, overall=50.0))
    assert [policy.calls(cost, name, size) for cost, name, size in ((100, "s", 3), (100, "t", 3), (100, "t", 4), (1e300, "t", 3))][:3] == [
        50,
        10,
        2,
    ]
    assert replace(policy, planner=PlannerTime()).calls(100.0, "s", 3) == policy.max_candidates


def test_slots_worth_trying_come_first_and_useless_ones_not_at_all() -> None:
    """The slot that saves most is first; one that saves only what an earlier one saves, or nothing, is dropped."""
    queries = [query(100, 90, 50, 50, scores=(0, 0, 0, 0)).query, query(100, 70, 40, 200, scores=(0, 0, 0, 0)).query]
    assert useful_slots(queries, (10, 100, 1000)) == (Slot(100.0, 2),)
    assert useful_slots(queries, (10, 1000)) == (Slot(1000.0, 2), Slot(10.0, 2))
    assert useful_slots([query(10, 20, scores=(0, 0)).query], (10,)) == ()


def test_slots_of_larger_joins_than_any_seen_are_tried_last() -> None:
    """Training knew joins of two; of a join of three relations, those of three are tried too, after the useful ones."""
    policy = replace(ALL, slots=(Slot(100.0, 2),), largest=2)
    assert policy.ordered(SUBPLANS) == [Slot(100.0, 2), Slot(10.0, 3), Slot(100.0, 3), Slot(1000.0, 3)]
    assert policy.ordered({frozenset({"a"}): 1.0}) == []
    look = Look(plan=node("Seq Scan"), subplans=SUBPLANS, elapsed_ms=1.0)
    assert policy.calls_for(look, "any") is None
    assert replace(policy, share=2.0, planner=PlannerTime(overall=0.1)).calls_for(look, "any") == 20


def test_slots_that_were_dropped_as_useless_are_not_tried() -> None:
    """Training knew joins of three relations, where only one slot of two was of use: the others of two and those of three are left out."""
    policy = tuned([query(100, 90, 50, 50, scores=(0, 0, 0, 0))], [], start=ALL, margin=0.0, effort="auto")
    assert (policy.slots, policy.largest) == ((Slot(100.0, 2),), 3)
    assert policy.ordered(SUBPLANS) == [Slot(100.0, 2)]
    larger = {**SUBPLANS, frozenset("upcv"): 1.0}
    assert policy.ordered(larger) == [Slot(100.0, 2), Slot(10.0, 4), Slot(100.0, 4), Slot(1000.0, 4)]


def test_the_margin_keeps_postgresqls_plan_when_scores_are_close() -> None:
    """Another plan has to be better by more than the margin."""
    policy = replace(ALL, margin=0.5)
    scores = np.array([1.0, 0.6, 0.7], dtype=np.float32)
    assert policy.pick(scores) == 0
    assert replace(policy, margin=0.3).pick(scores) == 1
    assert ALL.pick(np.array([0.5, 0.5], dtype=np.float32)) == 0


def test_a_margin_is_learned_from_choices_that_went_wrong() -> None:
    """Small advantages of the score made queries slower, large ones faster: the margin is between them."""
    wrong = [query(100, 200, scores=(0.4, 0), call_ms=0) for _ in range(5)]
    right = [query(100, 20, scores=(2, 0), call_ms=0) for _ in range(5)]
    policy = tuned([], [*wrong, *right], start=ALL, margin=None, effort="all")
    assert 0.39 < policy.margin < 2
    assert [replay(each, policy).plan for each in (wrong[0], right[0])] == [0, 1]
    assert policy.slots is None
    assert policy.share == inf
    assert not policy.skipped


def test_a_model_that_is_always_wrong_is_never_followed() -> None:
    """The margin is then its largest advantage, and PostgreSQL's own plans stay."""
    policy = tuned([], [query(10, 50, scores=(gap, 0)) for gap in (0.5, 1, 2)], start=ALL, margin=None, effort="all")
    assert policy.margin == 2
    assert tuned([], [query(10, 50, scores=(1, 0))], start=ALL, margin=0.0, effort="all").margin == 0


def test_planner_calls_that_cost_more_than_they_save_are_not_made() -> None:
    """If a planner call takes as long as the query, the policy looks at nothing; if it is cheap, at everything."""
    slow = [query(10, 9, scores=(1, 0), look_ms=50, call_ms=50, signature="slow") for _ in range(20)]
    fast = [query(1000, 100, scores=(1, 0), look_ms=1, call_ms=1, signature="fast") for _ in range(5)]
    policy = tuned([*slow, *fast], [*slow, *fast], start=ALL, margin=None, effort="auto")
    assert policy.skipped == {"slow"}
    assert policy.worth_a_look("fast")
    assert policy.worth_a_look("never seen")
    assert not tuned(slow, slow, start=ALL, margin=None, effort="auto").worth_a_look("never seen")
    assert [replay(each, policy).calls for each in (slow[0], fast[0])] == [0, 2]


def test_a_plan_of_which_little_is_known_is_no_gain() -> None:
    """One that was cut off at 40 ms, when PostgreSQL's own plan takes 100, may take forever: no slot and no margin is learned from it."""
    unknown = collected_query([outcome(100.0), outcome(more_than_ms=40.0)])
    assert [unknown.counted_ms(plan) for plan in (0, 1)] == [100, 100]
    run = replay(ScoredQuery(query=unknown, scores=np.array([1, 0], dtype=np.float32)), ALL)
    assert (run.plan, run.run_ms) == (1, 100)
    assert useful_slots([unknown], [10.0]) == ()
    slow = collected_query([outcome(100.0), outcome(more_than_ms=300.0)])
    assert slow.counted_ms(1) == 300


def test_figures_of_choices() -> None:
    """Accuracy and regret are of the network alone; speed-up, share of choosing and regressions are of what would have been run."""
    queries = [query(100, 50, scores=(1, 0)), query(100, 200, scores=(1, 0)), query(100, 101, scores=(0, 1))]
    found = figures(queries, ALL, "v")
    assert found == {
        "v_queries": 3,
        "v_top1_accuracy": pytest.approx(2 / 3),
        "v_regret": pytest.approx(350 / 250 - 1),
        "v_own_regret": pytest.approx(300 / 250 - 1),
        "v_speedup": pytest.approx(300 / 356),
        "v_choosing_share": pytest.approx(6 / 356),
        "v_planner_calls_per_query": 2,
        "v_regressions": 1,
        "v_improvements": 1,
    }
    assert figures([], ALL, "v") == {}


def test_a_choice_is_explained() -> None:
    """Its true rank, its regret, every candidate with score and time, and the difference between the plans."""
    scored = query(100, 80, 40, scores=(2, 0, 1))
    assert [true_rank(scored, plan) for plan in range(3)] == [3, 2, 1]
    about = explained(scored, ALL)
    assert (about["chosen"], about["rank"], about["regret_ms"], about["own_ms"]) == (1, 2, 40, 100)
    assert about["candidates"][2] == {"factor": 100.0, "size": 2, "score": 1, "ms": 40, "more_than_ms": None}
    assert any(line.startswith("-") for line in about["difference"])
    assert any(line.startswith("+") for line in about["difference"])
