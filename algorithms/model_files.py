"""
A model on disk: its files and their metadata. Reading never runs code, and checks every file against its hash.

    model/<model_id>/...       the files: safetensors and JSON
    metadata/<model_id>.json   fingerprints of its training data, its training parameters, and the SHA-256 of each file
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.places.privatefiles import open_private, private_folder, write_private
from pytest_pilotscope.queries.joins import Schema

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """A model's id, the fingerprints of its training data and schema, and its training parameters."""

    model_id: str
    data_fingerprint: str
    schema_fingerprint: str
    training: Mapping[str, Any]

    def check(self, *, data_fingerprint: str, schema: Schema) -> None:
        """Raise `ModelError` with both fingerprints for a database other than the one the model was trained on."""
        for what, own, found in (
            ("another schema", self.schema_fingerprint, schema_fingerprint(schema)),
            ("other data", self.data_fingerprint, data_fingerprint),
        ):
            if own != found:
                raise ModelError(
                    f"model {self.model_id} was trained on {what}: its fingerprint is {own}, that of this database is {found}; "
                    "use the dataset it was trained on, or train again"
                )


def new_metadata(prefix: str, training: Training, parameters: Mapping[str, Any]) -> Metadata:
    """Describe a model that was trained just now; its id is the prefix and the local time."""
    return Metadata(
        model_id=f"{prefix}_{datetime.now().astimezone():%Y%m%d_%H%M%S}",
        data_fingerprint=training.data_fingerprint,
        schema_fingerprint=schema_fingerprint(training.schema),
        training=parameters,
    )


def schema_fingerprint(schema: Schema) -> str:
    """Identify tables, columns and types, whatever their order: the first 16 hex digits of a SHA-256."""
    content = sorted((table, sorted(columns.items())) for table, columns in schema.items())
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def write_files(folder: Path, metadata: Metadata, contents: Mapping[str, bytes], *, format_number: int) -> tuple[Path, Path]:
    """
    Write a model's files below a folder; return its own folder and its metadata file.

    A model that was trained in the same second has the same id; it is replaced.
    """
    inner = folder / "model" / metadata.model_id
    private_folder(inner)
    for name, content in contents.items():
        with open_private(inner / name, "wb") as file:
            file.write(content)
    about = {
        "format": format_number,
        "model_id": metadata.model_id,
        "data_fingerprint": metadata.data_fingerprint,
        "schema_fingerprint": metadata.schema_fingerprint,
        "training": dict(metadata.training),
        "sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }
    path = folder / "metadata" / f"{metadata.model_id}.json"
    private_folder(path.parent)
    write_private(path, to_json(about, indent=2).decode())
    return inner, path


def read_metadata(folder: Path, algorithm: str, *, format_number: int) -> tuple[Metadata, dict[str, str]]:
    """Read the metadata of the one model of an algorithm in a folder, and the SHA-256 of its files; raises `ModelError`."""
    found = sorted((folder / "metadata").glob(f"{algorithm}_*.json"))
    if len(found) != 1:
        raise ModelError(f"{folder} holds {len(found)} {algorithm} models (metadata/{algorithm}_*.json); name a folder that holds one")
    about = json_object(found[0], _content(found[0]))
    if about.get("format") != format_number:
        raise ModelError(f"{found[0]} has model format {about.get('format')!r}, and this version reads format {format_number}; train again")
    try:
        hashes = {str(name): str(digest) for name, digest in about["sha256"].items()}
        metadata = Metadata(
            model_id=str(about["model_id"]),
            data_fingerprint=str(about["data_fingerprint"]),
            schema_fingerprint=str(about["schema_fingerprint"]),
            training=dict(about["training"]),
        )
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ModelError(f"{found[0]} is not the metadata of a model of {algorithm} ({one_line(error)}); train again") from error
    if metadata.model_id != found[0].stem:
        raise ModelError(f"{found[0]} describes model {metadata.model_id!r}: it was renamed or mixed up; train again")
    return metadata, hashes


def read_files(folder: Path, metadata: Metadata, hashes: Mapping[str, str], names: set[str]) -> dict[str, bytes]:
    """Read the files of a model, of exactly these names; `ModelError` names a file that is missing, empty or changed."""
    if hashes.keys() != names:
        raise ModelError(f"model {metadata.model_id} names the files {sorted(hashes)}, expected {sorted(names)}; train again")
    inner = folder / "model" / metadata.model_id
    return {name: _checked(inner / name, digest) for name, digest in hashes.items()}


def write_json_model(folder: Path, metadata: Metadata, name: str, content: Mapping[str, Any], *, format_number: int) -> tuple[Path, Path]:
    """Write a model that is one JSON object; return its own folder and its metadata file."""
    return write_files(folder, metadata, {name: to_json(content, indent=2)}, format_number=format_number)


def read_json_model(folder: Path, algorithm: str, name: str, *, format_number: int) -> tuple[Metadata, dict[str, Any]]:
    """Read a model that `write_json_model` wrote; raises `ModelError`."""
    metadata, hashes = read_metadata(folder, algorithm, format_number=format_number)
    content = read_files(folder, metadata, hashes, {name})[name]
    return metadata, json_object(folder / "model" / metadata.model_id / name, content)


def to_json(value: Any, *, indent: int | None = None) -> bytes:
    """Encode as JSON in UTF-8; ValueError for NaN and infinity, which are not JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent).encode()


def json_object(path: Path, content: bytes) -> dict[str, Any]:
    """Decode a JSON object; `ModelError` names its file."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({one_line(error)}); train again, or fetch the model again") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} holds a JSON {type(value).__name__} instead of an object; train again, or fetch the model again")
    return value


def one_line(error: Exception) -> str:
    """Return the message of an error on one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


def _checked(path: Path, digest: str) -> bytes:
    content = _content(path)
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ModelError(
            f"{path} is not the file that was saved: its SHA-256 is {found[:16]}..., the metadata says {digest[:16]}...; "
            "train again, or fetch the model again"
        )
    return content


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); train again, or fetch the model again") from error
    if not content:
        raise ModelError(f"{path} is empty (0 bytes); train again, or fetch the model again")
    return content
