"""
An ensemble of tree convolutions that predicts the time of a plan.

Bao draws one network at a time (Thompson sampling: a network trained on a bootstrap sample of the executions), because it explores while it
answers queries. Here training has run the plans before, so each network is trained on a bootstrap sample of the queries, and the mean
of all decides. A query is not in the samples of some networks: they tell how well unseen queries are predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import log
from statistics import fmean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pytest_pilotscope.algorithms.hintset.collected import ArmedQuery
from pytest_pilotscope.algorithms.plans.featurize import Featurizer, PlanArrays, merged, scales_of
from pytest_pilotscope.algorithms.plans.fitting import HyperParameters, Learned, Objective, fit
from pytest_pilotscope.algorithms.plans.network import PlanNetwork, Trees
from pytest_pilotscope.postgres.planning import RawPlan

Floats = npt.NDArray[np.float64]

LEAST_MS = 1e-3


class TimedBatch(NamedTuple):
    """Some plans as tensors, and for each (T,) the logarithm of its time, or of the limit that cut it off."""

    trees: Trees
    logs: Tensor
    censored: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Networks on the CPU, the featurizer of their input, and the mean logarithm of the times that they were trained on."""

    featurizer: Featurizer
    networks: tuple[PlanNetwork, ...]
    center: float

    def logs(self, plans: Sequence[RawPlan], members: Sequence[int] = ()) -> Floats:
        """Predict the (T,) logarithms of the times in ms of plans: the mean over some networks, or over all."""
        arrays = self.featurizer.arrays(plans, {})
        scores = [self.networks[member].evaluated(arrays, algorithm="hintset") for member in members or range(len(self.networks))]
        return np.asarray(np.mean(scores, axis=0) + self.center, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedEnsemble:
    """An ensemble, the history of each network, and for each training query the networks whose sample lacks it."""

    ensemble: Ensemble
    learned: tuple[Learned, ...]
    unseen_by: tuple[tuple[int, ...], ...]

    @property
    def metrics(self) -> dict[str, list[float]]:
        """The mean over the networks, one value per epoch that all of them had."""
        return {
            "train_loss": _means([one.train_loss for one in self.learned]),
            "validation_loss": _means([one.validation_loss for one in self.learned]),
            "validation_within_2": _means([one.validation_share for one in self.learned]),
        }

    @property
    def best_validation_loss(self) -> float | None:
        """The mean over the networks of their smallest validation loss."""
        found = [min(one.validation_loss) for one in self.learned if one.validation_loss]
        return fmean(found) if found else None


def _means(series: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(values) for values in zip(*(each for each in series if each), strict=False)]


def censored_losses(scores: Tensor, batch: TimedBatch) -> Tensor:
    """
    Return the (T,) squared errors of logarithms.

    A plan that was cut off costs something only as far as its prediction is below the limit: its true time is somewhere above.
    """
    errors = scores - batch.logs
    return torch.where(batch.censored, errors.clamp(max=0.0), errors) ** 2


OBJECTIVE = Objective(algorithm="hintset", losses=censored_losses, good=log(2) ** 2)


def trained(
    queries: Sequence[ArmedQuery],
    *,
    tables: Sequence[str],
    count: int,
    parameters: HyperParameters,
    device: torch.device,
    advance: Callable[[int], None] = lambda steps: None,
) -> TrainedEnsemble:
    """Train `count` networks on the plans that ran, each on as many queries as there are, drawn with replacement."""
    featurizer = Featurizer(sorted(tables), scales_of(((query.plans, {}) for query in queries), costs=True))
    center = fmean(_log(query.outcomes[plan].at_least_ms) for query in queries for plan in query.ran)
    arrays = [featurizer.arrays([query.plans[plan] for plan in query.ran], {}) for query in queries]
    learned, unseen_by = [], [[] for _ in queries]  # type: list[Learned], list[list[int]]
    for member in range(count):
        seed = parameters.seed * count + member
        sample = np.random.default_rng(seed).integers(len(queries), size=len(queries)) if count > 1 else np.arange(len(queries))
        left_out = sorted(set(range(len(queries))) - set(sample.tolist()))
        for query in left_out:
            unseen_by[query].append(member)
        parts = [[(arrays[each], queries[each]) for each in some] for some in (sample, left_out)]
        learned.append(_fitted(parts[0], parts[1], center, replace(parameters, seed=seed), device, advance))
    ensemble = Ensemble(featurizer=featurizer, networks=tuple(network_of(one.weights, featurizer.width) for one in learned), center=center)
    return TrainedEnsemble(ensemble=ensemble, learned=tuple(learned), unseen_by=tuple(map(tuple, unseen_by)))


def network_of(weights: dict[str, Tensor], width: int) -> PlanNetwork:
    """Make a network for predictions of its weights."""
    network = PlanNetwork(width)
    network.load_state_dict(weights)
    return network.eval()


Sample = tuple[PlanArrays, ArmedQuery]


def _fitted(
    sample: Sequence[Sample],
    left_out: Sequence[Sample],
    center: float,
    parameters: HyperParameters,
    device: torch.device,
    advance: Callable[[int], None],
) -> Learned:
    return fit(
        OBJECTIVE,
        sample[0][0].features.shape[1],
        lambda shuffler: _batches([sample[position] for position in shuffler.permutation(len(sample))], parameters, center, device),
        _batches(left_out, parameters, center, device),
        parameters=parameters,
        device=device,
        advance=advance,
    )


def _batches(samples: Sequence[Sample], parameters: HyperParameters, center: float, device: torch.device) -> list[TimedBatch]:
    """Put whole queries together until a batch has enough plans."""
    batches: list[TimedBatch] = []
    chosen: list[Sample] = []
    for number, sample in enumerate(samples, start=1):
        chosen.append(sample)
        if sum(len(arrays.trees) for arrays, _ in chosen) >= parameters.batch_size or number == len(samples):
            batches.append(_batch(chosen, center, device))
            chosen = []
    return batches


def _batch(samples: Sequence[Sample], center: float, device: torch.device) -> TimedBatch:
    outcomes = [query.outcomes[plan] for _, query in samples for plan in query.ran]
    logs = torch.tensor([_log(outcome.at_least_ms) - center for outcome in outcomes], device=device)
    censored = torch.tensor([outcome.ms is None for outcome in outcomes], device=device)
    return TimedBatch(Trees.of(merged([arrays for arrays, _ in samples]), device), logs, censored)


def _log(ms: float) -> float:
    return log(max(ms, LEAST_MS))
