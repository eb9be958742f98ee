"""
The training loop: batches of whole queries, a plan scored once, pairs formed on the scores, weights averaged over the steps.

A plan takes part in many pairs. Both of a pair's scores come from the same pass over the batch, so its cost is that of its plans,
not of its pairs. Which queries share a batch is drawn once; the order of the batches is drawn for every epoch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pytest_pilotscope.algorithms.devices import one_thread, seeded
from pytest_pilotscope.algorithms.lero.featurize import PlanArrays, merged
from pytest_pilotscope.algorithms.lero.model import LeroNetwork, Trees
from pytest_pilotscope.errors import AlgorithmError, counted

DRAWN = 1 << 21
"""Features whose dropout is drawn in advance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperParameters:
    """
    Everything besides the data that the result of training depends on.

    `batch_size` is in pairs: a batch takes queries until it has so many. `dropout` is the share of a plan's features that each step hides.
    The trained network is an average over the steps, in which a step counts `averaging` times as much as the next one. `patience` is in
    epochs without a better validation loss, 0 for all epochs.
    """

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    dropout: float = 0.3
    averaging: float = 0.99
    patience: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedPlans:
    """The plans of one query and their (P, 2) pairs with a known order, the faster plan first."""

    arrays: PlanArrays
    pairs: Sequence[tuple[int, int]]


class PairBatch(NamedTuple):
    """Some queries: their plans as tensors, and their pairs as (P,) numbers of the faster and the slower plan."""

    trees: Trees
    faster: Tensor
    slower: Tensor


@dataclass(slots=True, kw_only=True)
class Learned:
    """A trained network and the figures of each epoch; `best_epoch` counts from 0."""

    weights: dict[str, Tensor]
    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_pair_accuracy: list[float] = field(default_factory=list)
    best_epoch: int = 0


def learn(
    queries: Sequence[RankedPlans],
    validation: Sequence[RankedPlans],
    *,
    parameters: HyperParameters,
    device: torch.device,
    advance: Callable[[int], None] = lambda steps: None,
    start: LeroNetwork | None = None,
) -> Learned:
    """
    Train a network, or go on with `start`; the same seed and data give the same weights on a CPU.

    The best epoch has the smallest validation loss; without validation pairs it is the last one. AlgorithmError if there are no pairs, and
    for a loss that is not a number.
    """
    if not any(query.pairs for query in queries):
        several = counted(len(queries), "training query has", "training queries have")
        raise AlgorithmError(
            f"lero has no pair of plans to learn from: {several} several plans, and in none it is known that one is faster; collect more "
            "queries (--collection-size), or queries with more joins"
        )
    with one_thread(), seeded(parameters.seed), no_denormals():
        network = LeroNetwork(queries[0].arrays.features.shape[1])
        if start is not None:
            network.load_state_dict(start.state_dict())
        network.to(device)
        shuffler = np.random.default_rng(parameters.seed)
        batches = batched(queries, parameters.batch_size, device, shuffler)
        checked = batched(validation, 32 * parameters.batch_size, device)
        return _epochs(network, batches, checked, parameters, shuffler, advance)


@contextmanager
def no_denormals() -> Iterator[None]:
    """Count numbers below 1e-38 as 0 within the block: Adam's averages for rare features get there, and slow it down fivefold."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def batched(
    queries: Sequence[RankedPlans], batch_size: int, device: torch.device, shuffler: np.random.Generator | None = None
) -> list[PairBatch]:
    """Make batches of at least `batch_size` pairs from queries that have pairs, in random order if there is a shuffler."""
    useful = [query for query in queries if query.pairs]
    order = range(len(useful)) if shuffler is None else shuffler.permutation(len(useful))
    batches: list[PairBatch] = []
    chosen: list[RankedPlans] = []
    for position in order:
        chosen.append(useful[position])
        if sum(len(query.pairs) for query in chosen) >= batch_size:
            batches.append(_batch(chosen, device))
            chosen = []
    if chosen:
        batches.append(_batch(chosen, device))
    return batches


def _batch(queries: Sequence[RankedPlans], device: torch.device) -> PairBatch:
    offsets = np.cumsum([0, *(len(query.arrays.trees) for query in queries[:-1])])
    pairs = np.concatenate([np.array(query.pairs, dtype=np.int64) + offset for query, offset in zip(queries, offsets, strict=True)])
    faster, slower = (torch.from_numpy(np.ascontiguousarray(pairs[:, side])).to(device) for side in (0, 1))
    return PairBatch(Trees.of(merged([query.arrays for query in queries]), device), faster, slower)


def _epochs(
    network: LeroNetwork,
    batches: Sequence[PairBatch],
    validation: Sequence[PairBatch],
    parameters: HyperParameters,
    shuffler: np.random.Generator,
    advance: Callable[[int], None],
) -> Learned:
    stepper = Stepper(network, parameters)
    learned = Learned(weights=_copied(stepper.average))
    best = math.inf
    for epoch in range(parameters.epochs):
        learned.train_loss.append(_epoch(stepper, [batches[position] for position in shuffler.permutation(len(batches))]))
        loss = _validate(stepper.average, validation, learned)
        if loss < best or not validation:
            best, learned.best_epoch, learned.weights = loss, epoch, _copied(stepper.average)
        advance(1)
        if 0 < parameters.patience <= epoch - learned.best_epoch:
            break
    return learned


class Stepper:
    """A network, its optimizer, and the average of its weights."""

    def __init__(self, network: LeroNetwork, parameters: HyperParameters) -> None:
        self.average = copy.deepcopy(network).requires_grad_(False)
        self._network = network
        self._parameters = parameters
        self._weights, self._averaged = _in_one_piece(network), _in_one_piece(self.average)
        self._weights.grad = _gradients_in_one_piece(network, self._weights)
        self._kept = functional.dropout(torch.ones(DRAWN), parameters.dropout).to(self._weights.device)  # the same draws on every device
        self._optimizer = torch.optim.Adam([self._weights], lr=parameters.learning_rate, fused=True)
        self._steps = 0

    def step(self, batch: PairBatch) -> Tensor:
        """Learn from a batch; return its loss."""
        inputs = batch.trees.inputs * self._mask(batch.trees.inputs)
        self._optimizer.zero_grad(set_to_none=False)
        loss = pair_losses(self._network, batch._replace(trees=batch.trees._replace(inputs=inputs))).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._steps += 1
        kept = min(self._parameters.averaging, self._steps / (10 + self._steps))  # the first steps soon lose their weight
        self._averaged.mul_(kept).add_(self._weights.detach(), alpha=1 - kept)
        return loss.detach()

    def _mask(self, inputs: Tensor) -> Tensor:
        """Return a dropout mask, a random slice of the one drawn in advance: drawing a new one takes longer than a layer of the network."""
        count = inputs.numel()
        if count >= len(self._kept):
            return functional.dropout(torch.ones_like(inputs), self._parameters.dropout)
        start = int(torch.randint(len(self._kept) - count, ()))
        return self._kept[start : start + count].view(inputs.shape)


def _in_one_piece(network: LeroNetwork) -> Tensor:
    """Move all weights into one vector and make them views of it: an update of all is then one operation instead of 19."""
    weights = torch.cat([weight.detach().flatten() for weight in network.parameters()])
    for weight, part in zip(network.parameters(), _parts(network, weights), strict=True):
        weight.data = part
    return weights


def _gradients_in_one_piece(network: LeroNetwork, weights: Tensor) -> Tensor:
    gradients = torch.zeros_like(weights)
    for weight, part in zip(network.parameters(), _parts(network, gradients), strict=True):
        weight.grad = part
    return gradients


def _parts(network: LeroNetwork, vector: Tensor) -> list[Tensor]:
    """Return views of a vector in the shapes of the weights."""
    shapes = [weight.shape for weight in network.parameters()]
    return [part.view(shape) for part, shape in zip(torch.split(vector, [shape.numel() for shape in shapes]), shapes, strict=True)]


def _epoch(stepper: Stepper, batches: Sequence[PairBatch]) -> float:
    """Return the mean loss over the pairs of one pass."""
    losses = torch.stack([stepper.step(batch) * len(batch.faster) for batch in batches])
    mean = float(losses.sum()) / sum(len(batch.faster) for batch in batches)
    if not math.isfinite(mean):
        raise AlgorithmError(f"the training loss of lero became {mean}; look at the collected times")
    return mean


def pair_losses(network: LeroNetwork, batch: PairBatch) -> Tensor:
    """
    Return the (P,) binary cross-entropies: -log of the predicted probability that the faster plan is the faster one.

    That probability is the sigmoid of the difference of the scores.
    """
    scores = network(batch.trees)
    return functional.softplus(scores.index_select(0, batch.faster) - scores.index_select(0, batch.slower))


def _validate(network: LeroNetwork, validation: Sequence[PairBatch], learned: Learned) -> float:
    """Note the loss and the share of pairs in the right order; return the loss."""
    if not validation:
        return math.inf
    with torch.no_grad():
        losses = torch.cat([pair_losses(network, batch).cpu() for batch in validation])
    loss = float(losses.double().mean())
    learned.validation_loss.append(loss)
    learned.validation_pair_accuracy.append(float((losses < math.log(2)).double().mean()))
    return loss


def _copied(network: LeroNetwork) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
