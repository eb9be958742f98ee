"""
A model of `trees` on disk; `algorithms.model_files` has the layout and the checks.

    model/<model_id>/trees.npz        the arrays of the trees
    model/<model_id>/textbook.json    schema, rows of the tables, statistics of the columns
    model/<model_id>/samples.json     the sample rows of every table
    metadata/<model_id>.json          fingerprints of its training data, its parameters, and the SHA-256 of each file
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pytest_pilotscope.algorithms.model_files import Metadata, json_object, one_line, read_files, read_metadata, to_json, write_files
from pytest_pilotscope.algorithms.table_samples import read_samples, samples_json
from pytest_pilotscope.algorithms.textbook import ColumnFacts, Rows, Textbook
from pytest_pilotscope.algorithms.trees.features import Featurizer
from pytest_pilotscope.algorithms.trees.forest import Forest
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.queries.joins import JoinQuery

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

FORMAT = 1
TREES, TEXTBOOK, SAMPLES = "trees.npz", "textbook.json", "samples.json"

MOST_ROWS = 1e30
"""Estimates end here, far beyond any join, so that none is infinite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedForest:
    """Trees, and the features that they need."""

    featurizer: Featurizer
    forest: Forest

    def rows(self, query: JoinQuery, masks: Sequence[int]) -> Rows:
        """Estimate the (S,) rows of sets of relations, at least 1 each."""
        features = self.featurizer.features(query, masks)
        logarithms = self.forest.predict(features) + features[:, 0]
        return np.exp(np.clip(logarithms, 0.0, np.log(MOST_ROWS)))


def write_model(folder: Path, model: TrainedForest, metadata: Metadata) -> tuple[Path, Path]:
    """Write a model below a folder; return its own folder and its metadata file."""
    arrays, textbook = io.BytesIO(), model.featurizer.textbook
    np.savez(arrays, **model.forest.arrays())  # type: ignore[arg-type]  # the stubs take any name for allow_pickle
    about = {
        "schema": {table: dict(types) for table, types in model.featurizer.schema.items()},
        "table_rows": dict(textbook.table_rows),
        "columns": [[*column, asdict(facts)] for column, facts in textbook.columns.items()],
        "sample_rows": textbook.samples.rows,
    }
    contents = {TREES: arrays.getvalue(), TEXTBOOK: to_json(about), SAMPLES: samples_json(textbook.samples)}
    return write_files(folder, metadata, contents, format_number=FORMAT)


def metadata_of(folder: Path) -> Metadata:
    """Read the metadata of the one model in a folder; raises `ModelError`."""
    return read_metadata(folder, "trees", format_number=FORMAT)[0]


def read_model(folder: Path, session: Session) -> TrainedForest:
    """Read a model that `write_model` wrote; `ModelError` names a file that is missing, broken or changed."""
    metadata, hashes = read_metadata(folder, "trees", format_number=FORMAT)
    contents = read_files(folder, metadata, hashes, {TREES, TEXTBOOK, SAMPLES})
    inner = folder / "model" / metadata.model_id
    try:
        return _assembled(contents, inner, session)
    except (KeyError, AttributeError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise ModelError(f"the files in {inner} do not make a model of trees ({one_line(error)}); train again") from error


def _assembled(contents: Mapping[str, bytes], inner: Path, session: Session) -> TrainedForest:
    about = json_object(inner / TEXTBOOK, contents[TEXTBOOK])
    schema = {str(table): {str(name): str(kind) for name, kind in types.items()} for table, types in about["schema"].items()}
    textbook = Textbook(
        table_rows={str(table): int(rows) for table, rows in about["table_rows"].items()},
        columns={(str(table), str(column)): ColumnFacts(**facts) for table, column, facts in about["columns"]},
        samples=read_samples(json_object(inner / SAMPLES, contents[SAMPLES]), schema, about["sample_rows"], session),
    )
    with np.load(io.BytesIO(contents[TREES]), allow_pickle=False) as arrays:
        forest = Forest.of_arrays(dict(arrays))
    return TrainedForest(featurizer=Featurizer(schema=schema, textbook=textbook), forest=forest)
