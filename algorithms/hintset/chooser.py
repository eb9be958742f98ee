"""The algorithm `hintset`: it runs training queries under arms of planner settings, and chooses an arm for each query."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter, perf_counter_ns
from typing import TYPE_CHECKING

import numpy as np

from pytest_pilotscope.algorithms.devices import device
from pytest_pilotscope.algorithms.hintset.arms import Arm, arm_text, check_arms
from pytest_pilotscope.algorithms.hintset.collected import ArmedQuery, collect, observed, plan_arms, rules_of, store_of
from pytest_pilotscope.algorithms.hintset.policy import Basis, predicted_ms, tuned
from pytest_pilotscope.algorithms.hintset.saved_ensemble import TrainedModel, read_model, write_model
from pytest_pilotscope.algorithms.model_files import Metadata, new_metadata
from pytest_pilotscope.algorithms.plans.collecting import nothing_collected
from pytest_pilotscope.algorithms.plans.experience import Experience
from pytest_pilotscope.algorithms.plans.signature import signature_of
from pytest_pilotscope.algorithms.plans.timed import sql_key
from pytest_pilotscope.errors import AlgorithmError, ModelError
from pytest_pilotscope.learning.decision import Decision
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import Scalar, TrainingReport

PATIENCE = 10
"""Epochs without a smaller validation loss after which a network stops learning."""

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_pilotscope.algorithms.hintset.ensemble import TrainedEnsemble
    from pytest_pilotscope.algorithms.plans.fitting import HyperParameters
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.postgres.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """
    The arm for one query, and by what it was chosen.

    That is the `executions` of this statement, the `network`, or the `joins`, if no planner call pays off for them; on the way also the
    `comparison` with PostgreSQL's own plan. The time of the arm, and of PostgreSQL's own plan, was measured or is predicted; it is None
    where nothing is.
    """

    arm: Arm
    chosen_by: str
    predicted_ms: float | None = None
    own_predicted_ms: float | None = None
    planner_calls: int = 0
    choosing_ms: float = 0.0

    def facts(self) -> dict[str, Scalar]:
        """Return the fields, with the arm as a text."""
        rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}
        return {**rounded, "arm": arm_text(self.arm)}


class Hintset:
    """
    Arms of planner settings (Bao; Marcus et al., SIGMOD 2021), chosen by an ensemble of tree convolutions.

    `model` is None before `train` or `load`. With `--hintset-offline` a completed matrix of queries and arms says what to run in training.
    """

    name = "hintset"
    selection = ("best_validation_loss", True)

    def __init__(self) -> None:
        self.model_id = ""
        self.model: TrainedModel | None = None
        self._metadata: Metadata | None = None
        self._choice: Choice | None = None
        self._training: Training | None = None
        self._queries: Sequence[ArmedQuery] = ()
        self._experience = Experience(own=0)
        self._met: dict[str, Query] = {}
        self._since_update = 0

    def train(self, training: Training) -> TrainingReport:
        """Run queries under the arms, learn, tune the policy, save; AlgorithmError if there is nothing to learn from."""
        parameters = parameters_of(training)
        count, where = training.options["networks"], device(training.settings.device)
        started_s = perf_counter()
        rules = rules_of(training)
        check_arms(training.session, rules.arms)
        store = store_of(training, rules)
        queries = collect(training, training.queries[: training.options["queries"]], store, rules)
        if not queries:
            raise AlgorithmError(nothing_collected(training, store.path, "these arms"))
        collected_s = perf_counter()
        with training.progress("hintset epochs", parameters.epochs * count) as advance:
            done = self._learn(queries, rules.arms, training, parameters, advance)
        self._training, self._queries = training, queries
        model, _ = self._ready()
        best = {} if done.best_validation_loss is None else {"best_validation_loss": done.best_validation_loss}
        return training.report(
            metrics=done.metrics,
            parameters={**_parameters(model, parameters, training), "model_id": self.model_id, "device": where.type},
            scalars={
                "collection_time_seconds": collected_s - started_s,
                "training_time_seconds": perf_counter() - collected_s,
                **best,
                **_collection_figures(queries),
                **Basis.of(queries, done, model.policy.arms).figures(model.policy),
            },
            artifacts=write_model(training.folder, *self._ready()),
        )

    def decide(self, query: Query, session: Session) -> Decision:
        """Choose an arm; decide on its settings, on nothing for PostgreSQL's own plan."""
        started_ns = perf_counter_ns()
        choice = self._chosen(query, session)
        self._choice = replace(choice, choosing_ms=(perf_counter_ns() - started_ns) / 1e6)
        return Decision(settings=choice.arm)

    def observe(self, query: Query, decision: Decision, execution_ms: float) -> None:
        """Keep the time of an arm that ran for a query; train again after every `--update-every` of them, if this object was trained."""
        model, _ = self._ready()
        key = sql_key(query.sql)
        self._experience.note(key, model.arms.index(decision.settings), execution_ms)
        self._met[key] = query
        self._since_update += 1
        if self._training is not None and self._since_update >= self._training.settings.update_every:
            self._since_update = 0
            seen = self._experience.seen
            met = [observed(query, self._training.session, model.arms, seen[key]) for key, query in self._met.items()]
            self._learn(self._queries, model.arms, self._training, parameters_of(self._training), met=met)

    def explain(self, query: Query) -> dict[str, Scalar]:
        """Return facts about the last choice, see `Choice`."""
        return {} if self._choice is None else self._choice.facts()

    def save(self, folder: Path) -> None:
        """Write the model below `folder`: `model/<model_id>/` and `metadata/<model_id>.json`."""
        write_model(folder, *self._ready())

    def load(self, folder: Path, training: Training) -> None:
        """Read a saved model for the database of `training`; ModelError if it is broken or belongs to another schema or other data."""
        model, metadata = read_model(folder)
        metadata.check(data_fingerprint=training.data_fingerprint, schema=training.schema)
        check_arms(training.session, model.arms)
        self.model, self._metadata, self.model_id = model, metadata, metadata.model_id

    def _learn(
        self,
        queries: Sequence[ArmedQuery],
        arms: tuple[Arm, ...],
        training: Training,
        parameters: HyperParameters,
        advance: Callable[[int], None] = lambda steps: None,
        met: Sequence[ArmedQuery] = (),
    ) -> TrainedEnsemble:
        """
        Train on the plans that ran, and tune the policy by the queries whose own plan and another one ran.

        Of the queries `met` on the way, most have one timed plan: it teaches the networks, and compares nothing.
        """
        from pytest_pilotscope.algorithms.hintset.ensemble import trained

        every = [*queries, *met]
        count, where = training.options["networks"], device(training.settings.device)
        done = trained(every, tables=list(training.schema), count=count, parameters=parameters, device=where, advance=advance)
        compared = [number for number, query in enumerate(every) if number < len(queries) or (0 in query.ran and len(query.ran) > 1)]
        policy = tuned(
            [every[number] for number in compared], replace(done, unseen_by=tuple(done.unseen_by[number] for number in compared))
        )
        self.model = TrainedModel(arms=arms, ensemble=done.ensemble, policy=policy)
        self._metadata = new_metadata("hintset", training, asdict(parameters))
        self.model_id = self._metadata.model_id
        return done

    def _chosen(self, query: Query, session: Session) -> Choice:
        """Choose by the executions on the way, else by the model; run PostgreSQL's own plan once beside a choice that has run."""
        model, _ = self._ready()
        key = sql_key(query.sql)
        if (settled := self._experience.settled(key)) is not None:
            ms = self._experience.seen[key]
            return Choice(arm=model.arms[settled], chosen_by="executions", predicted_ms=ms[settled], own_predicted_ms=ms[0])
        choice = choose(model, query, session)
        chosen = model.arms.index(choice.arm)
        if self._experience.next(key, chosen) == chosen:
            return choice
        return replace(choice, arm=model.arms[0], chosen_by="comparison", predicted_ms=choice.own_predicted_ms)

    def _ready(self) -> tuple[TrainedModel, Metadata]:
        if self.model is None or self._metadata is None:
            raise ModelError("hintset has no model yet; train it, or load one")
        return self.model, self._metadata


def parameters_of(training: Training) -> HyperParameters:
    """Return the parameters of training the networks."""
    from pytest_pilotscope.algorithms.plans.fitting import HyperParameters

    return HyperParameters(epochs=training.settings.epochs, seed=training.settings.seed, patience=PATIENCE)


def choose(model: TrainedModel, query: Query, session: Session) -> Choice:
    """Return the best known arm of a statement that training ran; else plan the worthwhile arms, and take the best prediction."""
    policy, own = model.policy, model.arms[0]
    if (known := policy.known.get(sql_key(query.sql))) is not None:
        return Choice(arm=model.arms[known.arm], chosen_by="executions", predicted_ms=known.ms)
    if not policy.worth_a_look(signature_of(query.sql)):
        return Choice(arm=own, chosen_by="joins")
    own_log = float(model.ensemble.logs(plan_arms(query, session, [own]).plans)[0])
    own_ms = predicted_ms(own_log)
    choice = Choice(arm=own, chosen_by="network", predicted_ms=own_ms, own_predicted_ms=own_ms, planner_calls=1)
    if own_ms < policy.least_ms:
        return choice
    others = plan_arms(query, session, [model.arms[arm] for arm in policy.arms])
    logs = model.ensemble.logs(others.plans)
    plan, calls = int(np.argmin(logs)), 1 + len(policy.arms)
    if own_log - logs[plan] <= policy.gain:
        return replace(choice, planner_calls=calls)
    arm = model.arms[policy.arms[others.arms.index(plan)]]
    return replace(choice, arm=arm, predicted_ms=predicted_ms(float(logs[plan])), planner_calls=calls)


def _parameters(model: TrainedModel, parameters: HyperParameters, training: Training) -> dict[str, Scalar]:
    """Return everything that the result depends on, and the learned policy."""
    policy = model.policy
    chosen = {name: value for name, value in asdict(parameters).items() if name != "epochs"}
    return {
        **chosen,
        **{f"hintset_{name}": training.options[name] for name in ("arms", "offline", "queries", "networks")},
        "hintset_budget": offline.multiple if (offline := rules_of(training).offline) is not None else None,
        "learned_arms": "; ".join(arm_text(model.arms[arm]) for arm in policy.arms) or "none",
        "learned_least_ms": policy.least_ms,
        "learned_gain": policy.gain,
        "skipped_signatures": f"{len(policy.skipping.skipped)} of {len(policy.skipping.known)}",
    }


def _collection_figures(queries: Sequence[ArmedQuery]) -> dict[str, int | float]:
    ran = [query.outcomes[plan] for query in queries for plan in query.ran]
    return {
        "num_training_queries": len(queries),
        "num_distinct_plans": sum(len(query.plans) for query in queries),
        "num_executed_plans": len(ran),
        "num_censored_plans": sum(outcome.ms is None for outcome in ran),
        "num_planner_calls": sum(len(query.arms) for query in queries),
    }
