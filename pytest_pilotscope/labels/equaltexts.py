"""
Texts that are equal as values of a type (1.0 and 1.00, -0 and 0), each with the one text that stands for all of them.

Columns are read at different times, by different processes, and compared later without a database. So the text that stands for a value
is kept beside the columns and never changes: <folder>/equal-<hash of the type>.arrow has two columns, texts and their stand-ins.
"""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
from filelock import FileLock

from pytest_pilotscope.labels.atomicfiles import content_of, readable, short_hash, write
from pytest_pilotscope.labels.source import RowSource

_SCHEMA = pa.schema([("text", pa.string()), ("standing", pa.string())])


def equal_texts(folder: Path, context: str, type_name: str) -> Path:
    """Return the file of a type's equal texts."""
    return folder / f"equal-{short_hash(context + type_name)}.arrow"


def united(column: pa.Array, *, type_name: str, folder: Path, context: str, source: RowSource) -> pa.Array:
    """Replace each text of a column, (N,), by its stand-in; the database compares new texts, and the result is kept."""
    encoded = column.dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    path = equal_texts(folder, context, type_name)
    with FileLock(path.with_suffix(".lock")):
        standing = _read(path)
        new = [text for text in texts if text not in standing]
        if new:
            compared = [*dict.fromkeys(standing.values()), *new]
            firsts = source.first_equals(type_name, compared)
            standing.update((text, compared[first]) for text, first in zip(compared, firsts, strict=True))
        if new or not path.exists():
            _write(path, standing)
    return pa.array([standing[text] for text in texts], type=pa.string()).take(encoded.indices)


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    with readable(path), pa.ipc.open_file(content_of(path)) as reader:
        texts, standing = reader.read_all().columns
        return dict(zip(texts.to_pylist(), standing.to_pylist(), strict=True))


def _write(path: Path, standing: dict[str, str]) -> None:
    content = io.BytesIO()
    with pa.ipc.new_file(content, _SCHEMA) as writer:
        writer.write(pa.record_batch([list(standing), list(standing.values())], schema=_SCHEMA))
    write(path, content.getvalue())
