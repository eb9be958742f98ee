"""
The network of MSCN, arranged so that it computes nothing twice.

The paper applies a two-layer MLP to every element of every set, averages, concatenates, and applies a two-layer output MLP. This network
encodes an element once per batch however many samples hold it. The first layer of the output MLP and the average are both linear, so it
applies each set's block of that layer before the average. The mathematics is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_pilotscope.algorithms.mscn.featurize import SETS


class TensorBags(NamedTuple):
    """Weighted sums of rows: (M,) numbers of the rows, (M,) their weights, (B,) the first member of each sum."""

    members: Tensor
    weights: Tensor
    offsets: Tensor

    def of(self, rows: Tensor) -> Tensor:
        """Map (E, H) rows to (B, H) sums."""
        return functional.embedding_bag(self.members, rows, self.offsets, mode="sum", per_sample_weights=self.weights)


class _Pooled(torch.autograd.Function):
    """Sums whose gradient is a sum, too: eight times faster than PyTorch's own gradient of `embedding_bag`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, there: TensorBags, back: TensorBags) -> Tensor:
        ctx.back = back
        return there.of(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return ctx.back.of(gradients[0].contiguous()), None, None


class SetEncoder(nn.Module):
    """Encodes the distinct elements of a set, up to and including this set's block of the output MLP's first layer."""

    def __init__(self, width: int, hidden: int, *, bias: bool) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.merge = nn.Linear(hidden, hidden, bias=bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map (E, F) elements to (E, H)."""
        encoded = self.first(features).relu_()  # (E, H)
        encoded = self.second(encoded).relu_()  # (E, H)
        merged: Tensor = self.merge(encoded)  # (E, H)
        return merged


class MscnNetwork(nn.Module):
    """
    Maps the three sets of a batch to logarithms of rows.

    The bias of the output MLP's first layer is that of the first set's block, the tables: no subplan is without a table, so
    its average passes the bias on.
    """

    lowest: Tensor
    highest: Tensor

    def __init__(self, widths: Mapping[str, int], *, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.sets = nn.ModuleDict({name: SetEncoder(width, hidden, bias=name == SETS[0]) for name, width in widths.items()})
        self.output = nn.Linear(hidden, 1)
        self.register_buffer("lowest", torch.zeros(()))
        self.register_buffer("highest", torch.ones(()))

    def set_label_range(self, lowest: float, highest: float, mean: float) -> None:
        """Set the logarithms of rows that the outputs 0 and 1 stand for, and the bias that gives the mean."""
        self.lowest.fill_(lowest)
        self.highest.fill_(max(highest, lowest + 1.0))
        share = (mean - lowest) / float(self.highest - self.lowest)
        nn.init.constant_(self.output.bias, float(torch.logit(torch.tensor(share), eps=0.01)))

    def forward(self, features: Sequence[Tensor], there: TensorBags, back: TensorBags) -> Tensor:
        """Map (E, F) features of each set and the averages over their elements, with their transpose, to (B,) logarithms of rows."""
        encoded = torch.cat([encoder(part) for encoder, part in zip(self.sets.values(), features, strict=True)])  # (E, H), all sets
        hidden: Tensor = _Pooled.apply(encoded, there, back)  # type: ignore[no-untyped-call]  # (B, H)
        share: Tensor = torch.sigmoid(self.output(hidden.relu_())).squeeze(1)  # (B,) in 0..1
        return self.lowest + share * (self.highest - self.lowest)
