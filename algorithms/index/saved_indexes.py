"""
An index selection on disk; `algorithms.model_files` has the layout and the checks.

    model/<model_id>/indexes.json    the indexes, and whether existing ones stay
    metadata/<model_id>.json         fingerprints of the data, the parameters of the selection, and the SHA-256 of the file
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from pytest_pilotscope.algorithms.index.advisor import Start
from pytest_pilotscope.algorithms.index.selection_report import described
from pytest_pilotscope.algorithms.model_files import Metadata, one_line, read_json_model, write_json_model
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.postgres.indexes import Index
from pytest_pilotscope.queries.joins import Schema

FILE = "indexes.json"
FORMAT = 1


def save_indexes(folder: Path, indexes: Sequence[Index], start: Start, metadata: Metadata) -> tuple[Path, Path]:
    """Write a selection below a folder; return the model's own folder and its metadata file."""
    content = {"start": start, "indexes": [described(index) for index in indexes]}
    return write_json_model(folder, metadata, FILE, content, format_number=FORMAT)


def load_indexes(folder: Path) -> tuple[tuple[Index, ...], Start, Metadata]:
    """Read a selection; `ModelError` for a broken file."""
    metadata, content = read_json_model(folder, "index", FILE, format_number=FORMAT)
    try:
        indexes = tuple(Index(str(entry["table"]), tuple(map(str, entry["columns"]))) for entry in content["indexes"])
        start = content["start"]
    except (KeyError, TypeError) as error:
        raise ModelError(f"model {metadata.model_id} is not a saved index selection ({one_line(error)}); train again") from error
    if start not in ("existing", "none") or not all(index.columns for index in indexes):
        raise ModelError(
            f"model {metadata.model_id} is not a saved index selection: it starts with {start!r}, expected 'existing' or 'none', "
            "or has an index without columns; train again"
        )
    return indexes, cast(Start, start), metadata


def check_columns(indexes: Sequence[Index], metadata: Metadata, schema: Schema) -> None:
    """Raise `ModelError` for an index on a table or column that this database does not have."""
    for index in indexes:
        if any(column not in schema.get(index.table, {}) for column in index.columns):
            raise ModelError(f"model {metadata.model_id} has an index on {index}, but this database has no such columns; train again")
