"""
The network of MSCN without gradients, for the elements of one query: in NumPy, and in C (`compiled`) where a C compiler is.

A query has few elements. For so few, calling PyTorch takes as long as computing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.devices import one_blas_thread
from pytest_pilotscope.algorithms.mscn.featurize import SETS, Floats, Masks

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.mscn.model import MscnNetwork


class Encoder(NamedTuple):
    """Weights of a `SetEncoder`, (outputs, inputs), and biases, (H,)."""

    first: Floats
    first_bias: Floats
    second: Floats
    second_bias: Floats
    merge: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Elements:
    """
    The elements of a query, in three groups: K known encodings, T filtered tables, P predicates.

    `masks` are those of the (S,) subplans, `needs` the (E,) relations of each element, `sets` the (E,) set of each. `encodings` are (K, H),
    `tables` the (T,) positions of the filtered tables, `bits` their (T, rows) bitmaps, `features` those of the predicates, (P, F).
    """

    masks: Masks
    needs: Masks
    sets: Masks
    encodings: Floats
    tables: Masks
    bits: npt.NDArray[np.bool_]
    features: Floats


class Forward:
    """The function `MscnNetwork.forward` in NumPy, with a copy of the network's weights."""

    def __init__(self, network: MscnNetwork) -> None:
        weights = {name: value.detach().cpu().float().numpy().copy() for name, value in network.state_dict().items()}
        self.encoders = [Encoder(*(weights[f"sets.{name}.{part}"] for part in _PARTS)) for name in network.sets]
        self.bias: Floats = weights[f"sets.{SETS[0]}.merge.bias"]
        self.output, self.output_bias = weights["output.weight"], weights["output.bias"]
        self.lowest, self.span = float(weights["lowest"]), float(weights["highest"] - weights["lowest"])

    @property
    def width(self) -> int:
        """The number of floats in an encoding."""
        return len(self.bias)

    def encode(self, number: int, features: Floats) -> Floats:
        """Map (E, F) features of elements of one of the sets to (E, H)."""
        with one_blas_thread():
            return np.ascontiguousarray(self._columns(number, features).T)

    def _columns(self, number: int, features: Floats) -> Floats:
        """Map (E, F) features to (H, E): for so few elements BLAS is faster if they are columns."""
        layer = self.encoders[number]
        hidden = _rectified(layer.first @ features.T, layer.first_bias[:, None])
        hidden = _rectified(layer.second @ hidden, layer.second_bias[:, None])
        encoded: Floats = layer.merge @ hidden
        return encoded

    def rows(self, query: Elements) -> npt.NDArray[np.float64]:
        """Return the (S,) rows of the subplans."""
        tables = np.zeros((len(query.tables), self.encoders[0].first.shape[1]), dtype=np.float32)
        tables[np.arange(len(query.tables)), query.tables] = 1
        tables[:, tables.shape[1] - query.bits.shape[1] :] += query.bits
        holds = (query.masks[:, None] & query.needs == query.needs).astype(np.float32)  # (S, E)
        sizes = np.maximum(holds @ np.eye(len(SETS), dtype=np.float32)[query.sets], 1)  # (S, sets)
        with one_blas_thread():
            encoded = np.concatenate([query.encodings.T, self._columns(0, tables), self._columns(2, query.features)], axis=1)  # (H, E)
            hidden = _rectified(encoded @ (holds / sizes[:, query.sets]).T, self.bias[:, None])  # (H, S)
            outputs: Floats = self.output[0] @ hidden + self.output_bias
        shares = 0.5 + 0.5 * np.tanh(0.5 * outputs.astype(np.float64))  # the logistic function, without overflow
        rows: npt.NDArray[np.float64] = np.exp(self.lowest + self.span * shares)
        return rows


_PARTS = ("first.weight", "first.bias", "second.weight", "second.bias", "merge.weight")


def _rectified(sums: Floats, bias: Floats) -> Floats:
    sums += bias
    np.maximum(sums, 0, out=sums)
    return sums
