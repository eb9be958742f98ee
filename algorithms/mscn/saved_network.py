"""
An mscn model on disk; `algorithms.model_files` has the layout and the checks.

    model/<model_id>/weights.safetensors    the network
    model/<model_id>/vocabulary.json        schema, ranges of the columns, units of the network
    model/<model_id>/samples.json           the sample rows of the bitmaps, if there are bitmaps
    metadata/<model_id>.json                fingerprints of its training data, its parameters, and the SHA-256 of each file
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from pytest_pilotscope.algorithms.model_files import Metadata, json_object, one_line, read_files, read_metadata, to_json, write_files
from pytest_pilotscope.algorithms.mscn.estimation import TrainedModel
from pytest_pilotscope.algorithms.mscn.featurize import Featurizer
from pytest_pilotscope.algorithms.mscn.vocabulary import Vocabulary
from pytest_pilotscope.algorithms.table_samples import read_samples, samples_json
from pytest_pilotscope.errors import ModelError

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

FORMAT = 1
WEIGHTS, VOCABULARY, SAMPLES = "weights.safetensors", "vocabulary.json", "samples.json"


def write_model(folder: Path, model: TrainedModel, metadata: Metadata) -> tuple[Path, Path]:
    """Write a model below a folder; return its own folder and its metadata file."""
    from safetensors import torch as tensors

    contents = {WEIGHTS: tensors.save(model.network.state_dict()), VOCABULARY: _vocabulary_json(model)}
    if model.samples is not None:
        contents[SAMPLES] = samples_json(model.samples)
    return write_files(folder, metadata, contents, format_number=FORMAT)


def metadata_of(folder: Path) -> Metadata:
    """Read the metadata of the one model in a folder; raises `ModelError`."""
    return read_metadata(folder, "mscn", format_number=FORMAT)[0]


def read_model(folder: Path, *, session: Session | None = None) -> TrainedModel:
    """Read a model that `write_model` wrote; `ModelError` names a file that is missing, broken or changed."""
    metadata, hashes = read_metadata(folder, "mscn", format_number=FORMAT)
    contents = read_files(folder, metadata, hashes, {WEIGHTS, VOCABULARY} | ({SAMPLES} & hashes.keys()))
    inner = folder / "model" / metadata.model_id
    try:
        return _assembled(contents, inner, session)
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the files in {inner} do not make an mscn model ({one_line(error)}); train again") from error


def _assembled(contents: Mapping[str, bytes], inner: Path, session: Session | None) -> TrainedModel:
    from safetensors import torch as tensors

    from pytest_pilotscope.algorithms.mscn.model import MscnNetwork

    about = json_object(inner / VOCABULARY, contents[VOCABULARY])
    schema = {str(table): {str(name): str(kind) for name, kind in types.items()} for table, types in about["schema"].items()}
    ranges = {table: {name: (float(low), float(high)) for name, (low, high) in ends.items()} for table, ends in about["ranges"].items()}
    vocabulary = Vocabulary(schema=schema, ranges=ranges)
    samples = (
        read_samples(json_object(inner / SAMPLES, contents[SAMPLES]), schema, about["sample_rows"], session)
        if SAMPLES in contents
        else None
    )
    network = MscnNetwork(Featurizer(vocabulary, samples).widths, hidden=int(about["hidden_units"]))
    network.load_state_dict(tensors.load(contents[WEIGHTS]))
    return TrainedModel(vocabulary=vocabulary, samples=samples, network=network)


def _vocabulary_json(model: TrainedModel) -> bytes:
    return to_json(
        {
            "schema": {table: dict(types) for table, types in model.vocabulary.schema.items()},
            "ranges": {table: dict(ends) for table, ends in model.vocabulary.ranges.items()},
            "sample_rows": 0 if model.samples is None else model.samples.rows,
            "hidden_units": model.network.hidden,
        }
    )
