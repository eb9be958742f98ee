"""
The training loop: batches of plans, each scored once, a loss on the scores, weights averaged over the steps.

Which plans share a batch is the caller's choice; the order of the batches is drawn for every epoch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pytest_pilotscope.algorithms.devices import one_thread, seeded
from pytest_pilotscope.algorithms.plans.network import PlanNetwork, Trees
from pytest_pilotscope.errors import AlgorithmError

DRAWN = 1 << 21
"""Features whose dropout is drawn in advance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperParameters:
    """
    Everything besides the data that the result of training depends on.

    `batch_size` is in samples of the loss: a batch takes queries until it has so many. `dropout` is the share of a plan's features that
    each step hides. The trained network is an average over the steps, in which a step counts `averaging` times as much as the next one.
    `patience` is in epochs without a better validation loss, 0 for all epochs.
    """

    epochs: int = 100
    batch_size: int = 64
    learning_rate: float = 1e-3
    dropout: float = 0.3
    averaging: float = 0.99
    patience: int = 0
    seed: int = 0


class Batch(Protocol):
    """Some plans as tensors, with what the loss needs to know about them."""

    @property
    def trees(self) -> Trees:
        """The plans."""


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective(Generic[B]):
    """
    The loss of an algorithm.

    `losses` maps the (T,) scores of the plans of a batch to the (S,) losses of its samples. A sample whose loss is below `good` counts in
    `Learned.validation_share`.
    """

    algorithm: str
    losses: Callable[[Tensor, B], Tensor]
    good: float


@dataclass(slots=True, kw_only=True)
class Learned:
    """A trained network and the figures of each epoch; `best_epoch` counts from 0."""

    weights: dict[str, Tensor]
    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    validation_share: list[float] = field(default_factory=list)
    best_epoch: int = 0


def fit(
    objective: Objective[B],
    width: int,
    batches: Callable[[np.random.Generator], Sequence[B]],
    validation: Sequence[B],
    *,
    parameters: HyperParameters,
    device: torch.device,
    advance: Callable[[int], None] = lambda steps: None,
    start: PlanNetwork | None = None,
) -> Learned:
    """
    Train a network of `width` features, or go on with `start`; the same seed and data give the same weights on a CPU.

    `batches` makes the batches, in an order that it draws. The best epoch has the smallest validation loss; without validation it is the
    last one. AlgorithmError for a loss that is not a number.
    """
    with one_thread(), seeded(parameters.seed), no_denormals():
        network = PlanNetwork(width)
        if start is not None:
            network.load_state_dict(start.state_dict())
        network.to(device)
        shuffler = np.random.default_rng(parameters.seed)
        return _epochs(Stepper(network, parameters, objective), batches(shuffler), validation, shuffler, advance)


@contextmanager
def no_denormals() -> Iterator[None]:
    """Count numbers below 1e-38 as 0 within the block: Adam's averages for rare features get there, and slow it down fivefold."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _epochs(
    stepper: Stepper[B], batches: Sequence[B], validation: Sequence[B], shuffler: np.random.Generator, advance: Callable[[int], None]
) -> Learned:
    learned = Learned(weights=_copied(stepper.average))
    patience, best = stepper.parameters.patience, math.inf
    for epoch in range(stepper.parameters.epochs):
        learned.train_loss.append(_epoch(stepper, [batches[position] for position in shuffler.permutation(len(batches))]))
        loss = _validate(stepper, validation, learned)
        if loss < best or not validation:
            best, learned.best_epoch, learned.weights = loss, epoch, _copied(stepper.average)
        advance(1)
        if 0 < patience <= epoch - learned.best_epoch:
            break
    return learned


class Stepper(Generic[B]):
    """A network, its optimizer, and the average of its weights."""

    def __init__(self, network: PlanNetwork, parameters: HyperParameters, objective: Objective[B]) -> None:
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.parameters = parameters
        self.objective = objective
        self._network = network
        self._weights, self._averaged = _in_one_piece(network), _in_one_piece(self.average)
        self._weights.grad = _gradients_in_one_piece(network, self._weights)
        self._kept = functional.dropout(torch.ones(DRAWN), parameters.dropout).to(self._weights.device)  # the same draws on every device
        self._optimizer = torch.optim.Adam([self._weights], lr=parameters.learning_rate, fused=True)
        self._steps = 0

    def step(self, batch: B) -> Tensor:
        """Learn from a batch; return the (S,) losses of its samples."""
        trees = batch.trees._replace(inputs=batch.trees.inputs * self._mask(batch.trees.inputs))
        self._optimizer.zero_grad(set_to_none=False)
        losses = self.objective.losses(self._network(trees), batch)
        losses.mean().backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._steps += 1
        kept = min(self.parameters.averaging, self._steps / (10 + self._steps))  # the first steps soon lose their weight
        self._averaged.mul_(kept).add_(self._weights.detach(), alpha=1 - kept)
        return losses.detach()

    def _mask(self, inputs: Tensor) -> Tensor:
        """Return a dropout mask, a random slice of the one drawn in advance: drawing a new one takes longer than a layer of the network."""
        count = inputs.numel()
        if count >= len(self._kept):
            return functional.dropout(torch.ones_like(inputs), self.parameters.dropout)
        start = int(torch.randint(len(self._kept) - count, ()))
        return self._kept[start : start + count].view(inputs.shape)


def _in_one_piece(network: PlanNetwork) -> Tensor:
    """Move all weights into one vector and make them views of it: an update of all is then one operation instead of 19."""
    weights = torch.cat([weight.detach().flatten() for weight in network.parameters()])
    for weight, part in zip(network.parameters(), _parts(network, weights), strict=True):
        weight.data = part
    return weights


def _gradients_in_one_piece(network: PlanNetwork, weights: Tensor) -> Tensor:
    gradients = torch.zeros_like(weights)
    for weight, part in zip(network.parameters(), _parts(network, gradients), strict=True):
        weight.grad = part
    return gradients


def _parts(network: PlanNetwork, vector: Tensor) -> list[Tensor]:
    """Return views of a vector in the shapes of the weights."""
    shapes = [weight.shape for weight in network.parameters()]
    return [part.view(shape) for part, shape in zip(torch.split(vector, [shape.numel() for shape in shapes]), shapes, strict=True)]


def _epoch(stepper: Stepper[B], batches: Sequence[B]) -> float:
    """Return the mean loss over the samples of one pass."""
    losses = [stepper.step(batch) for batch in batches]
    mean = float(torch.stack([loss.sum() for loss in losses]).sum()) / sum(map(len, losses))
    if not math.isfinite(mean):
        raise AlgorithmError(f"the training loss of {stepper.objective.algorithm} became {mean}; look at the collected times")
    return mean


def _validate(stepper: Stepper[B], validation: Sequence[B], learned: Learned) -> float:
    """Note the loss and the share of samples with a good one; return the loss."""
    if not validation:
        return math.inf
    with torch.no_grad():
        losses = torch.cat([stepper.objective.losses(stepper.average(batch.trees), batch).cpu() for batch in validation])
    loss = float(losses.double().mean())
    learned.validation_loss.append(loss)
    learned.validation_share.append(float((losses < stepper.objective.good).double().mean()))
    return loss


def _copied(network: PlanNetwork) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
