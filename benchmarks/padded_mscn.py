"""
The reference computation of mscn, for `speed/test_mscn.py`: every set padded to its largest, every element of every sample encoded, and
the loss computed element by element.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pytest_pilotscope.algorithms.mscn.model import MscnNetwork, SetEncoder
from pytest_pilotscope.algorithms.mscn.ragged import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Padded:
    """A batch in the reference's form: for each set (B, S, F) elements and a (B, S, 1) mask, and (B, 1) rows."""

    sets: tuple[tuple[Tensor, Tensor], ...]
    rows: Tensor


def padded(batch: Batch) -> Padded:
    """Pad the sets of a batch: elements laid out per sample, with zeros up to the size of the largest set."""
    samples = np.repeat(np.arange(len(batch.labels)), np.diff(np.append(batch.bags.offsets, len(batch.bags.members))))
    sets, first = [], 0
    for features in batch.features:
        inside = (batch.bags.members >= first) & (batch.bags.members < first + len(features))
        sizes = np.bincount(samples[inside], minlength=len(batch.labels))
        there = np.arange(max(int(sizes.max()), 1)) < sizes[:, None]
        elements = np.zeros((*there.shape, features.shape[1]), dtype=np.float32)
        elements[there] = features[batch.bags.members[inside] - first]
        sets.append((torch.from_numpy(elements), torch.from_numpy(there[:, :, None].astype(np.float32))))
        first += len(features)
    return Padded(sets=tuple(sets), rows=torch.from_numpy(np.exp(batch.labels)[:, None]))


def reference_rows(network: MscnNetwork, batch: Padded) -> Tensor:
    """Return the (B, 1) rows of the reference's forward pass, with the weights of our network."""
    averages, blocks, biases = [], [], []
    for encoder, (elements, mask) in zip(network.sets.values(), batch.sets, strict=True):
        assert isinstance(encoder, SetEncoder)
        encoded = torch.relu(encoder.second(torch.relu(encoder.first(elements)))) * mask
        averages.append(encoded.sum(dim=1) / mask.sum(dim=1).clamp(min=1))
        blocks.append(encoder.merge.weight)
        biases.append(encoder.merge.bias)
    hidden = torch.relu(nn.functional.linear(torch.cat(averages, dim=1), torch.cat(blocks, dim=1), biases[0]))
    share = torch.sigmoid(network.output(hidden))
    return torch.exp(network.lowest + share * (network.highest - network.lowest))


def reference_loss(network: MscnNetwork, batch: Padded) -> Tensor:
    """Return the loss of the reference."""
    errors = []
    for guess, truth in zip(reference_rows(network, batch), batch.rows, strict=True):
        errors.append(guess / truth if (guess > truth).item() else truth / guess)
    return torch.mean(torch.cat(errors))
