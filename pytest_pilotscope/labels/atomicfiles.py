"""Files of the label folder, written under another name first: a process that is killed leaves no half file under the right name."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pytest_pilotscope.errors import LabelError
from pytest_pilotscope.places.privatefiles import open_private

_LONGEST = 100  # a file system allows 255 bytes, and names get suffixes


def short_hash(text: str) -> str:
    """Return 24 hex digits that name a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def file_name(name: str) -> str:
    """Quote a name for the file system; long names, and names that differ in case only, stay different."""
    quoted = quote(name, safe=" ").replace("%", "=").replace(".", "=2E")
    return quoted if name == name.lower() and len(quoted) <= _LONGEST else f"{quoted[:_LONGEST]}={short_hash(name)[:8]}"


def load(path: Path) -> npt.NDArray[Any]:
    """Map an array into memory; LabelError when the file is damaged."""
    with readable(path):
        loaded: npt.NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return loaded


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise `LabelError` with the name of the file when the block finds it damaged."""
    try:
        yield
    except (ValueError, EOFError, pa.ArrowInvalid) as error:
        raise LabelError(f"{path} is damaged ({error}): remove {path.parent}, and the table is read again") from error


def save(path: Path, array: npt.NDArray[Any]) -> None:
    """Write an array."""
    with open_private(_replacing(path), "wb") as file:
        np.save(file, array, allow_pickle=False)
    os.replace(_replacing(path), path)


def write(path: Path, content: bytes) -> None:
    """Write bytes."""
    with open_private(_replacing(path), "wb") as file:
        file.write(content)
    os.replace(_replacing(path), path)


def _replacing(path: Path) -> Path:
    return path.with_name(f"{path.name}.{os.getpid()}.part")
