"""The ensemble and the policy of hintset, on made-up plans and times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from pytest_pilotscope.algorithms.devices import one_thread
from pytest_pilotscope.algorithms.hintset.arms import arms_of
from pytest_pilotscope.algorithms.hintset.collected import ArmedQuery
from pytest_pilotscope.algorithms.hintset.ensemble import TimedBatch, TrainedEnsemble, censored_losses, trained
from pytest_pilotscope.algorithms.hintset.matrix import NEVER_RUN
from pytest_pilotscope.algorithms.hintset.policy import Basis, KnownArm, Policy, best_known, tuned, useful_arms
from pytest_pilotscope.algorithms.hintset.saved_ensemble import TrainedModel, read_model, write_model
from pytest_pilotscope.algorithms.model_files import Metadata
from pytest_pilotscope.algorithms.plans.fitting import HyperParameters
from pytest_pilotscope.algorithms.plans.network import Trees
from pytest_pilotscope.algorithms.plans.savings import Skipping
from pytest_pilotscope.algorithms.plans.timing import Outcome
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.postgres.planning import RawPlan

from .lero_example import TABLES, random_plans

CPU = torch.device("cpu")
FEW = HyperParameters(epochs=25, seed=3)


def planted_ms(plan: RawPlan) -> float:
    """Nested loops are slow, and the more so the higher up; index scans are fast."""
    below = sum(planted_ms(child) for child in plan.get("Plans", ()))
    return 1 + below * {"Nested Loop": 3, "Merge Join": 1.5}.get(plan["Node Type"], 1) * (0.5 if plan["Node Type"] == "Index Scan" else 1)


def armed(plans: Sequence[RawPlan], outcomes: Sequence[Outcome], *, name: str = "t", signature: str = "a.x=b.y") -> ArmedQuery:
    """A query each of whose plans is that of one arm."""
    return ArmedQuery(
        query_id=name,
        sql_key=name,
        plans=tuple(plans),
        outcomes=tuple(outcomes),
        signature=signature,
        arms=tuple(range(len(plans))),
        planner_ms=0.1,
    )


def timed(*times_ms: float | None, more_than_ms: float = 0.0, name: str = "t") -> ArmedQuery:
    """A query with these times, PostgreSQL's own plan first; None for a plan that a limit cut off."""
    outcomes = [Outcome(censored_ms=more_than_ms) if ms is None else Outcome(times_ms=(ms,)) for ms in times_ms]
    return armed(random_plans(len(times_ms), seed=len(name)), outcomes, name=name)


def planted(count: int, *, seed: int = 0, plans: int = 4) -> list[ArmedQuery]:
    """Queries with random plans whose times follow from their operators; the limit of every run is 1.5 times the best time."""
    made = []
    for number in range(count):
        some = random_plans(plans, seed=1000 * seed + number)
        times = [planted_ms(plan) for plan in some]
        limit_ms = 1.5 * min(times)
        own, *others = times
        outcomes = [
            Outcome(times_ms=(own,)),
            *(Outcome(times_ms=(ms,)) if ms <= limit_ms else Outcome(censored_ms=limit_ms) for ms in others),
        ]
        made.append(armed(some, outcomes, name=f"t{number}"))
    return made


@cache
def learned() -> tuple[tuple[ArmedQuery, ...], TrainedEnsemble]:
    """An ensemble that was trained on planted times."""
    queries = tuple(planted(80))
    return queries, trained(queries, tables=TABLES, count=3, parameters=FEW, device=CPU)


@pytest.mark.slow
def test_it_learns_a_planted_rule() -> None:
    """On queries that it has not seen, the plans that it takes for the fastest need little more than the best ones."""
    _, done = learned()
    own_ms = chosen_ms = best_ms = 0.0
    for query in planted(40, seed=1):
        times = [planted_ms(plan) for plan in query.plans]
        chosen_ms += times[int(done.ensemble.logs(query.plans).argmin())]
        own_ms, best_ms = own_ms + times[0], best_ms + min(times)
    assert chosen_ms - best_ms < 0.2 * (own_ms - best_ms)
    assert done.best_validation_loss is not None
    assert done.metrics["validation_loss"][-1] < 0.5 * done.metrics["validation_loss"][0]


def test_a_plan_that_was_cut_off_costs_only_below_its_limit() -> None:
    """The loss is the squared error of the logarithm; a prediction above the limit of a censored plan is as good as known."""
    batch = TimedBatch(trees=Trees(*[torch.zeros(0)] * 6), logs=torch.tensor([1.0, 1.0, 1.0]), censored=torch.tensor([False, True, True]))
    with one_thread():
        assert censored_losses(torch.tensor([3.0, 3.0, -1.0]), batch).tolist() == [4.0, 0.0, 4.0]


def test_censored_plans_are_not_taken_for_fast() -> None:
    """Plans that were always cut off at a tenth of the own time are predicted to be slower than their limit."""
    plans = [random_plans(2, seed=number) for number in range(40)]
    for own, other in plans:
        own["Node Type"], other["Node Type"] = "Hash Join", "Merge Join"
    queries = [
        armed(some, [Outcome(times_ms=(100.0,)), Outcome(censored_ms=100.0)], name=f"t{number}") for number, some in enumerate(plans)
    ]
    done = trained(queries, tables=TABLES, count=1, parameters=FEW, device=CPU)
    assert min(float(done.ensemble.logs(query.plans)[1]) for query in queries) > 4.0  # log(100) is 4.6
    assert done.unseen_by == ((),) * 40


def test_same_seed_same_ensemble() -> None:
    """Training is repeatable on a CPU; the networks differ, and each left out some queries."""
    queries = planted(10)
    first, again, other = (
        trained(queries, tables=TABLES, count=2, parameters=replace(FEW, epochs=2, seed=seed), device=CPU) for seed in (3, 3, 4)
    )
    logs = [done.ensemble.logs(queries[0].plans).tolist() for done in (first, again, other)]
    assert logs[0] == logs[1] != logs[2]
    assert first.ensemble.logs(queries[0].plans, (0,)).tolist() != first.ensemble.logs(queries[0].plans, (1,)).tolist()
    assert {member for members in first.unseen_by for member in members} == {0, 1}


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_queries_are_enough(count: int) -> None:
    """Even one training query gives a model; it is only known of few whether they can be predicted."""
    queries = planted(count)
    done = trained(queries, tables=TABLES, count=3, parameters=replace(FEW, epochs=1), device=CPU)
    policy = tuned(queries, done)
    assert set(policy.known) == {query.sql_key for query in queries}
    assert Basis.of(queries, done, policy.arms).figures(policy)["validation_queries"] in range(1, count + 1)


def test_an_arm_that_was_worse_on_every_query_is_never_chosen() -> None:
    """Arm 1 is slower or cut off everywhere, arm 2 equal, arm 4 never ran; whatever is predicted for them, only arm 3 is planned."""
    times = [(100.0, 120.0, 100.0, 50.0), (10.0, None, 10.0, 30.0), (80.0, 81.0, 80.0, 20.0)]
    queries = []
    for number, some in enumerate(times):
        query = timed(*some, more_than_ms=5.0, name=f"t{number}")
        queries.append(
            replace(
                query,
                plans=(*query.plans, query.plans[0]),
                outcomes=(*query.outcomes, NEVER_RUN),
                arms=(0, 1, 2, 3, 4),
            )
        )
    assert useful_arms(queries) == (3,)
    done = trained(queries, tables=TABLES, count=2, parameters=replace(FEW, epochs=1), device=CPU)
    assert tuned(queries, done).arms in ((), (3,))
    nothing = [timed(10.0, 20.0, 11.0), timed(5.0, None, 5.0, more_than_ms=1.0, name="other")]
    assert useful_arms(nothing) == ()
    policy = tuned(nothing, trained(nothing, tables=TABLES, count=2, parameters=replace(FEW, epochs=1), device=CPU))
    assert not policy.worth_a_look("a.x=b.y")


def test_the_best_known_arm_is_faster_beyond_a_tie() -> None:
    """A cut-off plan is never it, even if its limit was low; within a tie PostgreSQL's own plan stays."""
    assert best_known(timed(100.0, 95.0, 40.0, None, more_than_ms=1.0)) == KnownArm(arm=2, ms=40.0)
    assert best_known(timed(100.0, 95.0, None, more_than_ms=1.0)) == KnownArm(arm=0, ms=100.0)
    assert best_known(timed(None, 10.0, more_than_ms=50.0)) == KnownArm(arm=1, ms=10.0)


def test_planner_calls_that_do_not_pay_off_are_not_made() -> None:
    """With calls that take longer than any query, no statement is planned under the arms; with free ones some are."""
    queries, done = learned()
    dear = tuned([replace(query, planner_ms=1e6) for query in queries], done)
    assert not any(dear.worth_a_look(signature) for signature in ("a.x=b.y", "c.x=d.y"))
    free = tuned([replace(query, planner_ms=0.0) for query in queries], done)
    assert free.worth_a_look("a.x=b.y")
    figures = Basis.of(queries, done, free.arms).figures(free)
    assert figures["validation_speedup"] > 1.2
    assert figures["validation_improvements"] > figures["validation_regressions"]


def test_a_saved_model_is_the_same(tmp_path: Path) -> None:
    """Arms, weights and policy come back; a changed file is refused."""
    queries, done = learned()
    policy = replace(tuned(queries, done), skipping=Skipping(known=("a", "b"), skipped=("b",), skip_unknown=True))
    model = TrainedModel(arms=arms_of("bao"), ensemble=done.ensemble, policy=policy)
    metadata = Metadata(model_id="hintset_20260102_030405", data_fingerprint="d", schema_fingerprint="s", training={})
    inner, _ = write_model(tmp_path, model, metadata)
    again, _ = read_model(tmp_path)
    assert (again.arms, again.policy) == (model.arms, policy)
    assert again.ensemble.logs(queries[0].plans).tolist() == done.ensemble.logs(queries[0].plans).tolist()
    (inner / "weights.safetensors").write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"weights\.safetensors is not the file that was saved"):
        read_model(tmp_path)


@pytest.mark.parametrize("change", [{"arms": (9,)}, {"known": {"t": KnownArm(arm=9, ms=1.0)}}])
def test_a_model_without_its_arms_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """A policy that names an arm that is not there makes no model."""
    _, done = learned()
    policy = replace(Policy(arms=(1,), planner_ms=1.0), **change)  # type: ignore[arg-type]
    metadata = Metadata(model_id="hintset_20260102_030405", data_fingerprint="d", schema_fingerprint="s", training={})
    write_model(tmp_path, TrainedModel(arms=arms_of("bao"), ensemble=done.ensemble, policy=policy), metadata)
    with pytest.raises(ModelError, match=r"do not make a hintset model \(it has no networks, or an arm is missing\); train again$"):
        read_model(tmp_path)
