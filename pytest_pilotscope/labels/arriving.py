"""Columns and bitmaps that arrive in blocks, and wait on disk until all of their blocks are there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pytest_pilotscope.labels.atomicfiles import Spool
from pytest_pilotscope.queries.evaluation import Mask

TEXTS = pa.schema([("text", pa.string())])


class Numbers:
    """The blocks of an integer column, on disk until all are there."""

    def __init__(self, folder: Path) -> None:
        self.values, self.nulls = Spool(folder), Spool(folder)
        self.dtype: type[np.int32 | np.int64] = np.int32
        self.any_null = False

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.values.size

    def append(self, array: pa.Array) -> None:
        """Take a block."""
        values, nulls = _numbers(array)
        self.any_null |= nulls is not None
        if values.dtype == np.int64:
            self.dtype = np.int64
        self.values.append(values)
        self.nulls.append(np.zeros(values.size, dtype=np.bool_) if nulls is None else nulls)

    def close(self) -> None:
        """Free the disk."""
        self.values.close()
        self.nulls.close()


class Bits:
    """The blocks of a bitmap, on disk until all are there."""

    def __init__(self, folder: Path) -> None:
        self._bits = Spool(folder)
        self.close = self._bits.close

    @property
    def size(self) -> int:
        """Number of rows."""
        return self._bits.size

    def append(self, array: pa.Array) -> None:
        """Take a block."""
        self._bits.append(array.to_numpy(zero_copy_only=False).astype(np.bool_))

    def packed(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the bits, eight to a byte."""
        rest = np.zeros(0, dtype=np.bool_)
        for block in self._bits:
            bits = np.concatenate([rest, block])
            whole = bits.size // 8 * 8
            rest = bits[whole:]
            yield np.packbits(bits[:whole])
        yield np.packbits(rest)


class Texts:
    """The blocks of a column of texts, on disk until all are there."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # closed by `close`
        self._writer = pa.ipc.new_stream(self._file, TEXTS)
        self.size = 0

    def append(self, array: pa.Array) -> None:
        """Take a block."""
        self._writer.write(pa.record_batch([array], schema=TEXTS))
        self.size += len(array)

    def __iter__(self) -> Iterator[pa.Array]:
        self._writer.close()
        self._file.seek(0)
        with pa.ipc.open_stream(self._file) as reader:
            for batch in reader:
                yield batch.column(0)

    def close(self) -> None:
        """Free the disk."""
        self._file.close()


def _numbers(array: pa.Array) -> tuple[npt.NDArray[Any], Mask | None]:
    """Take an Arrow array of int64 apart by its buffers: Arrow's own conversions import pandas, which takes a second."""
    validity, content = array.buffers()
    stop = array.offset + len(array)
    values = np.frombuffer(content, dtype=np.int64, count=stop)[array.offset :] if len(array) else np.zeros(0, dtype=np.int64)
    nulls = None
    if array.null_count:
        valid = np.unpackbits(np.frombuffer(validity, dtype=np.uint8), count=stop, bitorder="little")[array.offset :]
        nulls = valid == 0
        values = np.where(nulls, 0, values)
    limits = np.iinfo(np.int32)
    fits = not values.size or (values.min() >= limits.min and values.max() <= limits.max)
    return values.astype(np.int32) if fits else values, nulls
