"""
The network: tree convolution, maximum over the nodes, a small MLP. It gives a plan one number; a smaller one predicts a faster plan.

Tree convolution multiplies a node and its two children by one matrix each. Here the product comes first and the gathering second: one
matrix product for all nodes of a batch, then the rows of the children are added to those of their parents. Layer norm is over the
channels of each node alone, and the maximum over a plan's own nodes alone, so neither another plan nor padding affects a score.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from pytest_pilotscope.algorithms.devices import one_thread
from pytest_pilotscope.algorithms.plans.featurize import PlanArrays
from pytest_pilotscope.algorithms.plans.saved_features import CHANNELS, HIDDEN_UNITS
from pytest_pilotscope.errors import AlgorithmError, counted


class Trees(NamedTuple):
    """
    Plans as tensors.

    `inputs` (N, 3F) are the features of a node and its children side by side. For the layers above, an edge goes from the row of a child
    to that of its parent. `plans` (T, M) are the rows of each plan.
    """

    inputs: Tensor
    left_parents: Tensor
    left_children: Tensor
    right_parents: Tensor
    right_children: Tensor
    plans: Tensor

    @classmethod
    def of(cls, arrays: PlanArrays, device: torch.device) -> Trees:
        """Gather once the tensors that every epoch needs."""
        features, left, right, plans = (
            torch.from_numpy(part).to(device) for part in (arrays.features, arrays.left, arrays.right, arrays.trees)
        )
        padded = functional.pad(features, (0, 0, 0, 1))  # row -1: no child
        left_parents, right_parents = (torch.nonzero(side >= 0).squeeze(1) for side in (left, right))
        return cls(
            inputs=torch.cat([features, padded[left], padded[right]], dim=1),
            left_parents=left_parents,
            left_children=left[left_parents],
            right_parents=right_parents,
            right_children=right[right_parents],
            plans=plans,
        )


class TreeConvolution(nn.Module):
    """One layer above the first: a node, its left and its right child, each by a matrix of its own."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.weights = nn.Linear(channels, 3 * out, bias=False)
        self.bias = nn.Parameter(torch.zeros(out))

    def forward(self, nodes: Tensor, trees: Trees) -> Tensor:
        """Map (N, C) to (N, out)."""
        own, left, right = self.weights(nodes).chunk(3, dim=1)  # (N, out) each
        summed: Tensor = own.index_add(0, trees.left_parents, left.index_select(0, trees.left_children))
        summed = summed.index_add(0, trees.right_parents, right.index_select(0, trees.right_children))
        return summed + self.bias


class PlanNetwork(nn.Module):
    """Maps plans to scores; a smaller score predicts a faster plan."""

    def __init__(self, width: int, *, channels: tuple[int, int, int] = CHANNELS, hidden: int = HIDDEN_UNITS) -> None:
        super().__init__()
        first, second, third = channels
        self.first = nn.Linear(3 * width, first)
        self.second = TreeConvolution(first, second)
        self.third = TreeConvolution(second, third)
        self.norms = nn.ModuleList(nn.LayerNorm(size) for size in channels)
        self.hidden = nn.Linear(third, hidden)
        self.output = nn.Linear(hidden, 1)

    def forward(self, trees: Trees) -> Tensor:
        """Map T plans to (T,) scores."""
        nodes = functional.leaky_relu(self.norms[0](self.first(trees.inputs)), inplace=True)  # (N, 256)
        nodes = functional.leaky_relu(self.norms[1](self.second(nodes, trees)), inplace=True)  # (N, 128)
        nodes = functional.leaky_relu(self.norms[2](self.third(nodes, trees)), inplace=True)  # (N, 64)
        plans = functional.embedding_bag(trees.plans, nodes, mode="max")  # (T, 64)
        scores: Tensor = self.output(functional.leaky_relu(self.hidden(plans), inplace=True)).squeeze(1)  # (T,)
        return scores

    def evaluated(self, arrays: PlanArrays, *, algorithm: str) -> npt.NDArray[np.float32]:
        """Score the plans of one query in one batch, on the CPU: (T,). AlgorithmError for NaN and infinity, with the algorithm's name."""
        with one_thread(), torch.inference_mode():
            scores: npt.NDArray[np.float32] = self(Trees.of(arrays, torch.device("cpu"))).numpy()
        if not np.isfinite(scores).all():
            bad, of = scores[~np.isfinite(scores)][0], counted(len(arrays.trees), "plan")
            raise AlgorithmError(f"{algorithm} gave the score {bad} to one of {of}; train it again")
        return scores
