"""
The network of Lero without gradients, for the plans of one query, in NumPy.

Of a node's three products with the weights, those as a left and as a right child are computed only for the nodes that are one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from algorithms.lero.featurize import Floats, Forest

if TYPE_CHECKING:
    from algorithms.lero.model import LeroNetwork

_SLOPE = np.float32(0.01)  # PyTorch's default for leaky ReLU
_EPSILON = np.float32(1e-5)  # and for layer norm


class _Layer(NamedTuple):
    """A tree convolution, (C, out) weights for a node, its left and its right child; then layer norm."""

    own: Floats
    left: Floats
    right: Floats
    bias: Floats
    scale: Floats
    shift: Floats


class Forward:
    """The same mapping as `LeroNetwork.forward`, from its weights; later changes to the network do not reach it."""

    def __init__(self, network: LeroNetwork) -> None:
        weights = {name: value.detach().cpu().float().numpy().T.copy() for name, value in network.state_dict().items()}
        self._layers = [
            _Layer(*_thirds(weights[kernel], axis), weights[bias], weights[f"norms.{number}.weight"], weights[f"norms.{number}.bias"])
            for number, (kernel, axis, bias) in enumerate(_CONVOLUTIONS)
        ]
        self._hidden, self._hidden_bias = weights["hidden.weight"], weights["hidden.bias"]
        self._output, self._output_bias = weights["output.weight"], weights["output.bias"]

    def scores(self, forest: Forest) -> Floats:
        """Map the T plans of a forest to (T,) scores."""
        left_parents, right_parents = np.flatnonzero(forest.left >= 0), np.flatnonzero(forest.right >= 0)
        left_children, right_children = forest.left[left_parents], forest.right[right_parents]
        nodes = forest.features
        for layer in self._layers:
            summed = nodes @ layer.own
            summed += layer.bias
            summed[left_parents] += nodes[left_children] @ layer.left
            summed[right_parents] += nodes[right_children] @ layer.right
            nodes = _rectified(_normalised(summed, layer))  # (N, out)
        plans = nodes[forest.trees].max(axis=1)  # (T, 64)
        hidden = _rectified(plans @ self._hidden + self._hidden_bias)
        scores: Floats = (hidden @ self._output)[:, 0] + self._output_bias
        return scores


_CONVOLUTIONS = (
    ("first.weight", 0, "first.bias"),  # a node and its children side by side are its input
    ("second.weights.weight", 1, "second.bias"),  # the three products are side by side in its output
    ("third.weights.weight", 1, "third.bias"),
)


def _thirds(weights: Floats, axis: int) -> tuple[Floats, Floats, Floats]:
    own, left, right = (np.ascontiguousarray(part) for part in np.split(weights, 3, axis=axis))
    return own, left, right


def _normalised(nodes: Floats, layer: _Layer) -> Floats:
    """Layer norm over the channels of each node, in place."""
    nodes -= nodes.mean(axis=1, keepdims=True)
    variance = np.einsum("nc,nc->n", nodes, nodes) / np.float32(nodes.shape[1])
    nodes /= np.sqrt(variance + _EPSILON)[:, None]
    nodes *= layer.scale
    nodes += layer.shift
    return nodes


def _rectified(nodes: Floats) -> Floats:
    np.maximum(nodes, nodes * _SLOPE, out=nodes)
    return nodes
