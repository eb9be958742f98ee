"""
A model on disk: weights as safetensors, everything else as JSON. Reading it never runs code, and nothing is believed unchecked.

    model/<model_id>/weights.safetensors    the network
    model/<model_id>/vocabulary.json        schema, ranges of the columns, units of the network
    model/<model_id>/samples.json           the sample rows that the bitmaps are about, when there are bitmaps
    metadata/<model_id>.json                what it was trained on and how, and the SHA-256 of each of the files above
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors import torch as tensors

from algorithms.mscn.estimation import TrainedModel
from algorithms.mscn.featurize import Featurizer
from algorithms.mscn.model import MscnNetwork
from algorithms.mscn.samples import Samples, TableSample
from algorithms.mscn.vocabulary import Vocabulary
from pytest_pilotscope.core.joins import Schema
from pytest_pilotscope.errors import ModelError

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session

FORMAT = 1
WEIGHTS, VOCABULARY, SAMPLES = "weights.safetensors", "vocabulary.json", "samples.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a model is: the fingerprints of what it was trained on, and whatever its training wants to tell."""

    model_id: str
    data_fingerprint: str
    schema_fingerprint: str
    training: Mapping[str, Any]

    def check(self, *, data_fingerprint: str, schema: Schema) -> None:
        """Refuse a database other than the one the model was trained on; `ModelError` shows both fingerprints."""
        for what, own, found in (
            ("another schema", self.schema_fingerprint, schema_fingerprint(schema)),
            ("other data", self.data_fingerprint, data_fingerprint),
        ):
            if own != found:
                raise ModelError(
                    f"model {self.model_id} was trained on {what}: its fingerprint is {own}, that of this database is {found}; "
                    "use the dataset it was trained on, or train again"
                )


def schema_fingerprint(schema: Schema) -> str:
    """Identify tables, columns and types, whatever their order: the first 16 hex digits of a SHA-256."""
    text = json.dumps({table: dict(types) for table, types in schema.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_model(folder: Path, model: TrainedModel, metadata: Metadata) -> tuple[Path, Path]:
    """Write a model below a folder; return its own folder and its metadata file."""
    inner = folder / "model" / metadata.model_id
    inner.mkdir(parents=True)
    contents = {WEIGHTS: tensors.save(model.network.state_dict()), VOCABULARY: _vocabulary_json(model)}
    if model.samples is not None:
        contents[SAMPLES] = _json({table: dict(sample.texts) for table, sample in model.samples.tables.items()})
    for name, content in contents.items():
        (inner / name).write_bytes(content)
    about = {
        "format": FORMAT,
        "model_id": metadata.model_id,
        "data_fingerprint": metadata.data_fingerprint,
        "schema_fingerprint": metadata.schema_fingerprint,
        "training": dict(metadata.training),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    path = folder / "metadata" / f"{metadata.model_id}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(_json(about, indent=2))
    return inner, path


def read_metadata(folder: Path) -> tuple[Metadata, dict[str, str]]:
    """Read what a model says of itself, and the SHA-256 of its files; raises `ModelError`."""
    found = sorted((folder / "metadata").glob("mscn_*.json"))
    if len(found) != 1:
        raise ModelError(f"{folder} holds {len(found)} mscn models (metadata/mscn_*.json); name a folder that holds one")
    about = _object(found[0], found[0].read_bytes())
    if about.get("format") != FORMAT:
        raise ModelError(f"{found[0]} has model format {about.get('format')!r}, and this version reads format {FORMAT}; train again")
    try:
        hashes = {str(name): str(digest) for name, digest in about["sha256"].items()}
        metadata = Metadata(
            model_id=str(about["model_id"]),
            data_fingerprint=str(about["data_fingerprint"]),
            schema_fingerprint=str(about["schema_fingerprint"]),
            training=dict(about["training"]),
        )
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{found[0]} is not the metadata of an mscn model ({error}); train again") from error
    if metadata.model_id != found[0].stem:
        raise ModelError(f"{found[0]} describes model {metadata.model_id!r}: it was renamed or mixed up; train again")
    return metadata, hashes


def read_model(folder: Path, *, session: Session | None = None) -> TrainedModel:
    """Read a model that `write_model` wrote; raises `ModelError` that names the file for one that is missing, broken or changed."""
    metadata, hashes = read_metadata(folder)
    inner = folder / "model" / metadata.model_id
    if not {WEIGHTS, VOCABULARY} <= hashes.keys() <= {WEIGHTS, VOCABULARY, SAMPLES}:
        raise ModelError(f"model {metadata.model_id} names the files {sorted(hashes)}, which are not those of an mscn model; train again")
    contents = {name: _checked(inner / name, digest) for name, digest in hashes.items()}
    try:
        return _assembled(contents, inner, session)
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the files in {inner} do not make an mscn model ({_line(error)}); train again") from error


def _assembled(contents: Mapping[str, bytes], inner: Path, session: Session | None) -> TrainedModel:
    about = _object(inner / VOCABULARY, contents[VOCABULARY])
    schema = {str(table): {str(name): str(kind) for name, kind in types.items()} for table, types in about["schema"].items()}
    ranges = {table: {name: (float(low), float(high)) for name, (low, high) in ends.items()} for table, ends in about["ranges"].items()}
    vocabulary = Vocabulary(schema=schema, ranges=ranges)
    samples = _samples(_object(inner / SAMPLES, contents[SAMPLES]), schema, about["sample_rows"], session) if SAMPLES in contents else None
    network = MscnNetwork(Featurizer(vocabulary, samples).widths, hidden=int(about["hidden_units"]))
    network.load_state_dict(tensors.load(contents[WEIGHTS]))
    return TrainedModel(vocabulary=vocabulary, samples=samples, network=network)


def _samples(texts: Mapping[str, Any], schema: Schema, rows: int, session: Session | None) -> Samples:
    tables = {}
    for table, types in schema.items():
        columns = {name: tuple(None if text is None else str(text) for text in texts[table][name]) for name in types}
        if len({len(column) for column in columns.values()}) > 1:
            raise ValueError(f"the sample columns of table {table!r} differ in length")
        tables[table] = TableSample(table, types, columns)
    return Samples(tables, session=session, rows=int(rows))


def _vocabulary_json(model: TrainedModel) -> bytes:
    return _json(
        {
            "schema": {table: dict(types) for table, types in model.vocabulary.schema.items()},
            "ranges": {table: dict(ends) for table, ends in model.vocabulary.ranges.items()},
            "sample_rows": 0 if model.samples is None else model.samples.rows,
            "hidden_units": model.network.hidden,
        }
    )


def _json(value: Any, *, indent: int | None = None) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).encode()


def _checked(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); train again, or fetch the model again") from error
    if not content:
        raise ModelError(f"{path} is empty (0 bytes); train again, or fetch the model again")
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ModelError(
            f"{path} is not the file that was saved: its SHA-256 is {found[:16]}..., the metadata says {digest[:16]}...; "
            "train again, or fetch the model again"
        )
    return content


def _object(path: Path, content: bytes) -> dict[str, Any]:
    if not content:
        raise ModelError(f"{path} is empty (0 bytes); train again, or fetch the model again")
    try:
        value = json.loads(content)
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({_line(error)}); train again, or fetch the model again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a JSON {type(value).__name__} instead of an object; train again, or fetch the model again")
    return value


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
