"""Sums of counts by code in C (`counting.c`), where a C compiler is: one pass for what takes NumPy several."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

import numpy as np
import numpy.typing as npt

from pytest_pilotscope.errors import PilotscopeError
from pytest_pilotscope.postgres.extension.compiling import address_of, load_compiled

_SOURCE = Path(__file__).parent / "counting.c"
_ARGUMENTS = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]

logger = logging.getLogger(__name__)


@cache
def function() -> Any | None:
    """Load the function, which is compiled once for each version of its source; None, with the reason logged, where it cannot be."""
    try:
        found: Any = load_compiled("labels", _SOURCE, "counting in C").labels_add
    except (PilotscopeError, OSError, SubprocessError) as error:  # no compiler, a cache that cannot be written, a hanging compiler
        logger.warning("true rows are counted with NumPy, which takes longer: %s", error)
        return None
    found.argtypes, found.restype = _ARGUMENTS, ctypes.c_int64
    return found


def added(sums: npt.NDArray[np.int64], codes: Sequence[npt.NDArray[Any]], weights: Sequence[npt.NDArray[Any]]) -> int:
    """Add products of weights, by the first codes, as far as their sums have 63 bits; return the number of rows done, 0 without C."""
    add = function()
    if add is None:
        return 0
    columns = [np.ascontiguousarray(one, dtype=np.int32) for one in codes]
    values = [np.ascontiguousarray(one) for one in weights]
    addresses = [np.array([address_of(one) for one in arrays], dtype=np.uintp) for arrays in (columns, values)]
    sizes = np.array([sums.size, *(one.size for one in weights)], dtype=np.int64)
    return int(add(address_of(sums), columns[0].size, len(weights), *map(address_of, (*addresses, sizes))))
