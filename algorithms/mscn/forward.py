"""
The network of MSCN without gradients, for the elements of one query, in NumPy.

A query has few elements. For so few, calling PyTorch takes as long as computing, and BLAS multiplies faster if they are columns: matrices
here are (H, E), those of the network (E, H).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pytest_pilotscope.algorithms.mscn.featurize import SETS, Floats

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.mscn.model import MscnNetwork


class _Encoder(NamedTuple):
    """Weights of a `SetEncoder`, (outputs, inputs), and biases, (H, 1)."""

    first: Floats
    first_bias: Floats
    second: Floats
    second_bias: Floats
    merge: Floats


class Forward:
    """The function `MscnNetwork.forward` in NumPy, with a copy of the network's weights."""

    def __init__(self, network: MscnNetwork) -> None:
        weights = {name: _columns(value.detach().cpu().float().numpy()) for name, value in network.state_dict().items()}
        self._encoders = [_Encoder(*(weights[f"sets.{name}.{part}"] for part in _PARTS)) for name in network.sets]
        self._bias = weights[f"sets.{SETS[0]}.merge.bias"]
        self._output, self._output_bias = weights["output.weight"], weights["output.bias"]
        self._lowest, self._span = float(weights["lowest"]), float(weights["highest"] - weights["lowest"])

    def encode(self, number: int, features: Floats) -> Floats:
        """Map (E, F) features of elements of one of the sets to (H, E)."""
        layer = self._encoders[number]
        hidden = _rectified(layer.first @ features.T, layer.first_bias)
        hidden = _rectified(layer.second @ hidden, layer.second_bias)
        encoded: Floats = layer.merge @ hidden
        return encoded

    def rows(self, encoded: Sequence[Floats], averages: Floats) -> Floats:
        """Map the encoded elements of all sets, E columns in all, and (S, E) weights to (S,) logarithms of rows."""
        hidden = _rectified(np.concatenate(encoded, axis=1) @ averages.T, self._bias)  # (H, S)
        outputs = self._output @ hidden + self._output_bias  # (1, S)
        shares: Floats = 0.5 + 0.5 * np.tanh(0.5 * outputs[0])  # the logistic function, without overflow
        logarithms: Floats = self._lowest + self._span * shares
        return logarithms


_PARTS = ("first.weight", "first.bias", "second.weight", "second.bias", "merge.weight")


def _columns(weight: Floats) -> Floats:
    """Copy a weight; a bias becomes a column."""
    return np.array(weight[:, None] if weight.ndim == 1 else weight)


def _rectified(sums: Floats, bias: Floats) -> Floats:
    sums += bias
    np.maximum(sums, 0, out=sums)
    return sums
