"""The training loop: shuffled whole queries, mean q-error, Adam, early stopping on the validation queries, the best epoch's weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pytest_pilotscope.algorithms.devices import one_thread, seeded
from pytest_pilotscope.algorithms.mscn.model import MscnNetwork, TensorBags
from pytest_pilotscope.algorithms.mscn.ragged import Batch, Indices, LabelledSubplans
from pytest_pilotscope.errors import AlgorithmError

logger = logging.getLogger(__name__)

LARGEST_BATCH, SMALLEST_BATCH = 2048, 32
"""Subplans of a batch: the largest learns fastest per subplan, and below the smallest a step costs as much for fewer subplans."""

STEPS = 10
"""Least steps of an epoch: with fewer, 100 epochs end while the loss still falls."""

STILL_FALLING = 0.9
"""The loss still falls if its smallest value of the last tenth of the epochs is below that of the tenth before by this factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HyperParameters:
    """
    Everything besides the data that the result of training depends on: epochs and seed of the settings, and the options of mscn.

    `straight_above` is the q-error above which the loss is a straight line (see `loss`), `patience` is in epochs without a better
    validation loss.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    hidden_units: int
    straight_above: float = math.e
    patience: int = 20
    seed: int


def batch_size_for(subplans: int) -> int:
    """Return the largest power of two with which an epoch over so many subplans has `STEPS` steps, within the limits of a batch."""
    return min(max(1 << (max(subplans // STEPS, 1).bit_length() - 1), SMALLEST_BATCH), LARGEST_BATCH)


@dataclass(slots=True, kw_only=True)
class Learned:
    """A trained network and the figures of each epoch; `best_epoch` counts from 0."""

    weights: dict[str, Tensor]
    train_loss: list[float] = field(default_factory=list)
    validation_qerror_p50: list[float] = field(default_factory=list)
    validation_qerror_p95: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0


def learn(
    samples: LabelledSubplans,
    validation: LabelledSubplans,
    *,
    widths: dict[str, int],
    parameters: HyperParameters,
    device: torch.device,
    advance: Callable[[int], None] = lambda steps: None,
) -> Learned:
    """
    Train a network; the same seed and data give the same weights on a CPU.

    The best epoch has the smallest validation loss (mean logarithm of the q-error: its largest value decides the mean q-error itself).
    Without validation samples it is the last epoch. AlgorithmError for no samples and for a loss that is not a number.
    """
    if not len(samples):
        raise AlgorithmError("mscn has no labelled subplan to learn from; give it training queries whose subplans can be counted")
    with one_thread(), seeded(parameters.seed):
        network = MscnNetwork(widths, hidden=parameters.hidden_units)
        network.set_label_range(float(samples.labels.min()), float(samples.labels.max()), float(samples.labels.mean()))
        network.to(device)
        return _epochs(network, samples, validation, parameters, advance)


def _epochs(
    network: MscnNetwork,
    samples: LabelledSubplans,
    validation: LabelledSubplans,
    parameters: HyperParameters,
    advance: Callable[[int], None],
) -> Learned:
    optimizer = torch.optim.Adam(network.parameters(), lr=parameters.learning_rate, fused=True)
    shuffler = np.random.default_rng(parameters.seed)
    learned = Learned(weights=_copied(network))
    best = math.inf
    for epoch in range(parameters.epochs):
        order = shuffler.permutation(len(samples.queries) - 1)
        learned.train_loss.append(_epoch(network, optimizer, samples, parameters, order))
        loss = _validate(network, validation, parameters.batch_size, learned)
        if loss < best or not len(validation):
            best, learned.best_epoch, learned.weights = loss, epoch, _copied(network)
        advance(1)
        if epoch - learned.best_epoch >= parameters.patience:
            break
    else:
        _warn_if_falling(learned)
    return learned


def _warn_if_falling(learned: Learned) -> None:
    """Warn if all epochs are over and the loss still falls: of the validation queries, or of training without them."""
    losses, of = (learned.validation_loss, "validation") if learned.validation_loss else (learned.train_loss, "training")
    tenth = max(len(losses) // 10, 1)
    if len(losses) > 1 and min(losses[-tenth:]) < STILL_FALLING * min(losses[-2 * tenth : -tenth]):
        logger.warning(
            "mscn ended after %d epochs while its %s loss still fell (%.3g to %.3g in the last %d); let it learn on with more --epochs",
            *(len(losses), of, min(losses[-2 * tenth : -tenth]), min(losses[-tenth:]), tenth),
        )


def _epoch(
    network: MscnNetwork, optimizer: torch.optim.Optimizer, samples: LabelledSubplans, parameters: HyperParameters, order: Indices
) -> float:
    """Return the mean loss over the samples of one pass."""
    total = torch.zeros((), dtype=torch.float64)
    for batch in samples.batches(parameters.batch_size, order):
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(network, batch, parameters.straight_above)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach().cpu() * len(batch.labels)
    mean = float(total) / len(samples)
    if not math.isfinite(mean):
        raise AlgorithmError(f"the training loss of mscn became {mean}; lower the learning rate or look at the labels")
    return mean


def loss_of(network: MscnNetwork, batch: Batch, straight_above: float) -> Tensor:
    """Return the loss of a batch."""
    return loss(estimated(network, batch), torch.from_numpy(batch.labels).to(network.lowest.device), straight_above)


def estimated(network: MscnNetwork, batch: Batch) -> Tensor:
    """Return the network's (B,) logarithms of rows for a batch."""
    device = network.lowest.device
    features = [torch.from_numpy(part).to(device) for part in batch.features]
    there, back = (
        TensorBags(*(torch.from_numpy(part).to(device) for part in bags))
        for bags in (batch.bags, batch.bags.transposed(sum(map(len, batch.features))))
    )
    result: Tensor = network(features, there, back)
    return result


def loss(guessed: Tensor, true: Tensor, straight_above: float) -> Tensor:
    """
    Return the mean q-error of (B,) logarithms of rows, continued as a straight line in the logarithm above a q-error.

    The mean q-error alone is the sum of its few largest terms: with an untrained network they overflow, and later they outweigh all others,
    also in Adam's averages of gradients.
    """
    bend = math.log(straight_above)
    log_q = (guessed - true).abs()
    near = log_q.clamp(max=bend)
    q: Tensor = near.exp() * (1 + log_q - near)
    return q.mean()


def _validate(network: MscnNetwork, validation: LabelledSubplans, batch_size: int, learned: Learned) -> float:
    """Note the q-errors of the validation samples and return their mean logarithm."""
    if not len(validation):
        return math.inf
    with torch.no_grad():
        parts = [
            estimated(network, batch).cpu().numpy() - batch.labels
            for batch in validation.batches(batch_size, np.arange(len(validation.queries) - 1))
        ]
    log_q = np.abs(np.concatenate(parts).astype(np.float64))
    p50, p95 = np.exp(np.quantile(log_q, [0.5, 0.95]))
    learned.validation_qerror_p50.append(float(p50))
    learned.validation_qerror_p95.append(float(p95))
    learned.validation_loss.append(float(log_q.mean()))
    return float(log_q.mean())


def _copied(network: MscnNetwork) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
