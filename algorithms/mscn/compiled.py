"""The network of MSCN in C (`forward.c`): one call for all subplans of a query."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.algorithms.mscn.featurize import Floats
from pytest_pilotscope.algorithms.mscn.forward import Elements, Encoder, Forward
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.postgres.extension.compiling import address_of, load_compiled

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.mscn.model import MscnNetwork

_SOURCE = Path(__file__).parent / "forward.c"
_LANES = 16


class _Encoder(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in Encoder._fields]


class _Network(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("hidden", "tables", "rows", "predicate_width")),
        *((name, _Encoder) for name in ("table", "predicate")),
        *((name, ctypes.c_void_p) for name in ("whole", "sizes", "bias", "output")),
        *((name, ctypes.c_double) for name in ("output_bias", "lowest", "span")),
    ]


class _Query(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("subplans", "known", "filtered", "predicates")),
        *((name, ctypes.c_void_p) for name in ("masks", "needs", "sets", "encodings", "tables", "bits", "features", "rows")),
    ]


@cache
def _library() -> Any:
    """Load the function, which is compiled once for each version of its source; raise `MissingExtension` if it cannot be compiled."""
    function = load_compiled("mscn", _SOURCE, "the network of mscn").mscn_rows
    function.argtypes, function.restype = [ctypes.c_void_p, ctypes.c_void_p], ctypes.c_int
    return function


class CompiledForward(Forward):
    """The function `MscnNetwork.forward` in C, for tables of which so many sample rows are kept (`sizes`), each at most `rows`."""

    def __init__(self, network: MscnNetwork, sizes: Sequence[int], rows: int) -> None:
        super().__init__(network)
        if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
            raise ModelError("the network has weights that are no numbers, and C skips those that are multiplied by 0")
        self._function = _library()
        table, _, predicate = self.encoders
        there = np.arange(rows) < np.array(sizes)[:, None]  # (tables, rows)
        whole = np.concatenate([np.eye(len(sizes)), there], axis=1) @ table.first.T + table.first_bias
        arrays: list[npt.NDArray[Any]] = [_padded(whole), np.array(sizes, dtype=np.int64), _padded(self.bias), _padded(self.output[0])]
        weights = [_layers(table), _layers(predicate)]
        self._kept = (arrays, weights)  # the network has their addresses
        self._network = _Network(
            len(arrays[2]),
            len(sizes),
            rows,
            predicate.first.shape[1],
            *(_Encoder(*map(address_of, layers)) for layers in weights),
            *map(address_of, arrays),
            float(self.output_bias[0]),
            self.lowest,
            self.span,
        )
        self._at = ctypes.addressof(self._network)

    @property
    def width(self) -> int:
        """The number of floats in an encoding, with its padding."""
        return int(self._network.hidden)

    def encode(self, number: int, features: Floats) -> Floats:
        """Map (E, F) features of elements of one of the sets to (E, H), as wide as C needs them."""
        return _padded(super().encode(number, features))

    def rows(self, query: Elements) -> npt.NDArray[np.float64]:
        """Return the (S,) rows of the subplans."""
        rows = np.empty(len(query.masks), dtype=np.float64)
        arrays: list[npt.NDArray[Any]] = [query.masks, query.needs, query.sets, query.encodings, query.tables, query.bits]
        arrays += [query.features, rows]
        given = _Query(
            len(query.masks),
            len(query.encodings),
            len(query.tables),
            len(query.features),
            *map(address_of, arrays),
        )
        if self._function(self._at, ctypes.addressof(given)) != 0:
            raise MemoryError("there is no memory for the network of mscn")
        return rows


def _padded(values: npt.NDArray[Any]) -> Floats:
    """Return rows of floats, made longer by zeros to a multiple of the lanes."""
    more = -values.shape[-1] % _LANES
    return np.ascontiguousarray(np.pad(values, [*[(0, 0)] * (values.ndim - 1), (0, more)]), dtype=np.float32)


def _layers(encoder: Encoder) -> tuple[Floats, ...]:
    """Return the weights of an encoder as C reads them: a row for each feature, and cuts of some outputs with all inputs of each."""
    second, merge = (_cut(weights) for weights in (encoder.second, encoder.merge))
    return (_padded(encoder.first.T), _padded(encoder.first_bias), second, _padded(encoder.second_bias), merge)


def _cut(weights: Floats) -> Floats:
    """Map (outputs, inputs) to (cuts, inputs, lanes)."""
    inputs = _padded(_padded(weights).T)  # both padded
    return np.ascontiguousarray(inputs.reshape(len(inputs), -1, _LANES).transpose(1, 0, 2))
