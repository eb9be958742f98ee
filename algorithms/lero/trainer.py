"""Training from collected queries to a model: features, pairs, network, policy, and the logged figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from time import perf_counter
from typing import TYPE_CHECKING

from pytest_pilotscope.algorithms.devices import device
from pytest_pilotscope.algorithms.lero.collected import CollectedQuery
from pytest_pilotscope.algorithms.lero.collection import CollectionRules
from pytest_pilotscope.algorithms.lero.pairs import ordered_pairs
from pytest_pilotscope.algorithms.lero.policy import Policy
from pytest_pilotscope.algorithms.lero.scoring import TrainedModel
from pytest_pilotscope.algorithms.lero.tuning import ScoredQuery, tuned
from pytest_pilotscope.algorithms.plans.featurize import Featurizer, scales_of
from pytest_pilotscope.algorithms.plans.timing import TIE
from pytest_pilotscope.record.results import Scalar

if TYPE_CHECKING:
    import torch

    from pytest_pilotscope.algorithms.lero.learning import RankedPlans
    from pytest_pilotscope.algorithms.plans.fitting import HyperParameters, Learned
    from pytest_pilotscope.learning.training import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model, the parameters and history of its training, and the final figures."""

    model: TrainedModel
    parameters: HyperParameters
    learned: Learned
    device: torch.device
    scalars: dict[str, int | float]

    @property
    def metrics(self) -> dict[str, list[float]]:
        """One value per epoch."""
        return {
            "train_loss": self.learned.train_loss,
            "validation_loss": self.learned.validation_loss,
            "validation_pair_accuracy": self.learned.validation_share,
        }


def trained(
    queries: Sequence[CollectedQuery],
    validation: Sequence[CollectedQuery],
    *,
    training: Training,
    rules: CollectionRules,
    advance: Callable[[int], None],
    start: TrainedModel | None = None,
) -> Trained:
    """Learn to rank the plans of these queries, from scratch or from the network of `start`, and tune the policy."""
    from pytest_pilotscope.algorithms.lero.learning import learn
    from pytest_pilotscope.algorithms.plans.fitting import HyperParameters
    from pytest_pilotscope.algorithms.plans.network import PlanNetwork

    settings, where, started_s = training.settings, device(training.settings.device), perf_counter()
    featurizer = _featurizer(training, queries) if start is None else start.featurizer
    parameters = HyperParameters(
        epochs=settings.epochs, seed=settings.seed, batch_size=_batch_size(where), patience=training.options["patience"]
    )
    ranked, checked = (_ranked(featurizer, part) for part in (queries, validation))
    learned = learn(ranked, checked, parameters=parameters, device=where, advance=advance, start=None if start is None else start.network)
    network = PlanNetwork(featurizer.width)
    network.load_state_dict(learned.weights)
    network.eval()
    untuned = TrainedModel(
        featurizer=featurizer, network=network, policy=Policy(factors=rules.factors, max_candidates=rules.max_candidates)
    )
    policy = tuned(
        [scored(untuned, query) for query in queries],
        [scored(untuned, query) for query in validation],
        start=untuned.policy,
        margin=None if training.options["margin"] == "auto" else training.options["margin"],
        effort=training.options["effort"],
    )
    model = TrainedModel(featurizer=featurizer, network=network, policy=policy)
    scalars = {
        "training_time_seconds": perf_counter() - started_s,
        "num_training_queries": len(queries),
        "batch_size": parameters.batch_size,
        "num_training_pairs": sum(len(query.pairs) for query in ranked),
        "num_validation_pairs": sum(len(query.pairs) for query in checked),
        "num_epochs_trained": len(learned.train_loss),
        "best_epoch": learned.best_epoch,
        **_best(learned),
        **_collection_figures([*queries, *validation]),
    }
    return Trained(model=model, parameters=parameters, learned=learned, device=where, scalars=scalars)


def scored(model: TrainedModel, query: CollectedQuery) -> ScoredQuery:
    """Score the plans of a collected query."""
    return ScoredQuery(query=query, scores=model.scores(query.plans, query.subplans))


def parameters_of(done: Trained, training: Training, rules: CollectionRules) -> dict[str, Scalar]:
    """Return everything that the result depends on, and the learned policy."""
    policy = done.model.policy
    chosen = {name: value for name, value in asdict(done.parameters).items() if name != "epochs"}
    return {
        **chosen,
        "device": done.device.type,
        "lero_factors": ",".join(f"{factor:g}" for factor in rules.factors),
        "lero_max_candidates": rules.max_candidates,
        **{f"lero_{name}": training.options[name] for name in ("margin", "effort", "dynamic")},
        "tie": TIE,
        "learned_margin": policy.margin,
        "learned_share": policy.share if isfinite(policy.share) else "all",
        "learned_slots": "all" if policy.slots is None else " ".join(f"{slot.factor:g}x{slot.size}" for slot in policy.slots),
        "skipped_signatures": f"{len(policy.skipped)} of {len(policy.known)}",
    }


def _batch_size(where: torch.device) -> int:
    """Return 64 pairs for each GPU, or 64 on a CPU, where the same seed gives the same weights whatever else the machine has."""
    import torch

    return 64 * (torch.cuda.device_count() if where.type == "cuda" else 1)


def _featurizer(training: Training, queries: Sequence[CollectedQuery]) -> Featurizer:
    return Featurizer(sorted(training.schema), scales_of((query.plans, query.subplans) for query in queries))


def _ranked(featurizer: Featurizer, queries: Sequence[CollectedQuery]) -> list[RankedPlans]:
    from pytest_pilotscope.algorithms.lero.learning import RankedPlans

    return [
        RankedPlans(arrays=featurizer.arrays(query.plans, query.subplans), pairs=ordered_pairs(query.outcomes))
        for query in queries
        if len(query.plans) > 1
    ]


def _best(learned: Learned) -> dict[str, float]:
    if not learned.validation_loss:
        return {}
    return {
        "best_validation_loss": learned.validation_loss[learned.best_epoch],
        "best_validation_pair_accuracy": learned.validation_share[learned.best_epoch],
    }


def _collection_figures(queries: Sequence[CollectedQuery]) -> dict[str, int | float]:
    outcomes = [outcome for query in queries for outcome in query.outcomes]
    return {
        "num_collected_queries": len(queries),
        "num_planner_calls": sum(1 + len(query.attempts) for query in queries),
        "num_distinct_plans": len(outcomes),
        "num_censored_plans": sum(outcome.ms is None for outcome in outcomes),
        "planner_time_seconds": sum(query.look_ms + sum(attempt.elapsed_ms for attempt in query.attempts) for query in queries) / 1e3,
    }
