"""Models on disk: what is read is what was written, and everything else is an error that names the file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import torch as tensors

from pytest_pilotscope.algorithms.model_files import Metadata, read_metadata, schema_fingerprint
from pytest_pilotscope.algorithms.mscn.estimation import TrainedModel
from pytest_pilotscope.algorithms.mscn.estimator import Mscn
from pytest_pilotscope.algorithms.mscn.learning import estimated
from pytest_pilotscope.algorithms.mscn.model import MscnNetwork
from pytest_pilotscope.algorithms.mscn.ragged import labelled
from pytest_pilotscope.algorithms.mscn.saved_network import read_model, write_model
from pytest_pilotscope.errors import ModelError

from .mscn_example import SCHEMA, counted, featurizer, queries
from .mscn_example import untrained as model

ID = "mscn_20260102_030405"
SQL = "SELECT * FROM users u, posts p WHERE u.id = p.userid AND u.age < 30 AND u.name LIKE 'a%'"


def metadata() -> Metadata:
    """Return the metadata of the model."""
    return Metadata(model_id=ID, data_fingerprint="d1", schema_fingerprint=schema_fingerprint(SCHEMA), training={"epochs": 3})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a saved model."""
    write_model(tmp_path, model(), metadata())
    return tmp_path


@pytest.mark.parametrize("bitmaps", [True, False])
def test_loaded_model_estimates_the_same(tmp_path: Path, bitmaps: bool) -> None:
    """Weights, vocabulary and sample rows come back bit for bit, without a database."""
    saved = model(bitmaps=bitmaps)
    write_model(tmp_path, saved, metadata())
    loaded = TrainedModel.load(tmp_path)
    assert loaded.estimate(SQL) == saved.estimate(SQL)
    assert (loaded.samples is None) != bitmaps
    for query in queries(10):
        assert loaded.rows(query, query.masks).tolist() == saved.rows(query, query.masks).tolist()


def test_the_files_are_safetensors_and_json(folder: Path) -> None:
    """Nothing else is written, and the metadata says how the model came about."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    inner = f"model/{ID}"
    assert names == [f"metadata/{ID}.json", f"{inner}/samples.json", f"{inner}/vocabulary.json", f"{inner}/weights.safetensors"]
    found, hashes = read_metadata(folder, "mscn", format_number=1)
    assert found == metadata()
    assert hashes == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (folder / inner).iterdir()}


@pytest.mark.parametrize("name", ["weights.safetensors", "vocabulary.json", "samples.json"])
def test_empty_file_is_named(folder: Path, name: str) -> None:
    """A file of 0 bytes."""
    path = folder / "model" / ID / name
    path.write_bytes(b"")
    with pytest.raises(ModelError, match=f"^{re.escape(f'{path} is empty (0 bytes); train again, or fetch the model again')}$"):
        read_model(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "vocabulary.json", "samples.json"])
def test_changed_file_is_named(folder: Path, name: str) -> None:
    """One changed byte."""
    path = folder / "model" / ID / name
    content = bytearray(path.read_bytes())
    before = hashlib.sha256(content).hexdigest()
    content[-3] ^= 1
    path.write_bytes(content)
    message = (
        f"{path} is not the file that was saved: its SHA-256 is {hashlib.sha256(content).hexdigest()[:16]}..., "
        f"the metadata says {before[:16]}...; train again, or fetch the model again"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        read_model(folder)


def test_missing_file_is_named(folder: Path) -> None:
    """A file that is gone."""
    path = folder / "model" / ID / "weights.safetensors"
    path.unlink()
    message = f"{path} cannot be read (No such file or directory); train again, or fetch the model again"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        read_model(folder)


def test_folder_without_a_model(tmp_path: Path) -> None:
    """Nothing there."""
    message = f"{tmp_path} holds 0 mscn models (metadata/mscn_*.json); name a folder that holds one"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        read_model(tmp_path)


def test_folder_with_two_models(folder: Path) -> None:
    """Which one would be a guess."""
    (folder / "metadata" / "mscn_20270101_000000.json").write_text("{}")
    message = f"{folder} holds 2 mscn models (metadata/mscn_*.json); name a folder that holds one"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        read_model(folder)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "is empty (0 bytes); train again, or fetch the model again"),
        ("?", "is not JSON (Expecting value: line 1 column 1 (char 0)); train again, or fetch the model again"),
        ("[]", "holds a JSON list instead of an object; train again, or fetch the model again"),
        ("{}", "has model format None, and this version reads format 1; train again"),
        ('{"format": 1}', "is not the metadata of a model of mscn ('sha256'); train again"),
    ],
)
def test_broken_metadata_is_named(folder: Path, content: str, what: str) -> None:
    """Whatever is wrong with it."""
    path = folder / "metadata" / f"{ID}.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=f"^{re.escape(f'{path} {what}')}$"):
        read_model(folder)


def rewritten(folder: Path, name: str, content: bytes) -> Path:
    """Replace a file and its hash: a model that was made wrong, not one that was damaged."""
    path = folder / "metadata" / f"{ID}.json"
    about = json.loads(path.read_text())
    about["sha256"][name] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(about))
    (folder / "model" / ID / name).write_bytes(content)
    return folder / "model" / ID


def test_renamed_metadata_is_refused(folder: Path) -> None:
    """Name and content must agree."""
    path = folder / "metadata" / "mscn_20270101_000000.json"
    (folder / "metadata" / f"{ID}.json").rename(path)
    message = f"{path} describes model {ID!r}: it was renamed or mixed up; train again"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        read_model(folder)


def test_files_of_no_mscn_model_are_refused(folder: Path) -> None:
    """The metadata may not name other files, such as ones outside the folder."""
    rewritten(folder, "../../other", b"x")
    message = (
        f"model {ID} names the files ['../../other', 'samples.json', 'vocabulary.json', 'weights.safetensors'], "
        "expected ['samples.json', 'vocabulary.json', 'weights.safetensors']; train again"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        read_model(folder)


def network_of_another_size() -> bytes:
    """Weights with other shapes."""
    return tensors.save(MscnNetwork({"tables": 3, "joins": 4, "predicates": 5}, hidden=8).state_dict())


@pytest.mark.parametrize(
    ("name", "content", "starts"),
    [
        ("weights.safetensors", lambda: b"\x80\x04N.", "Error while deserializing: header too small"),
        (
            "weights.safetensors",
            network_of_another_size,
            "Error(s) in loading state_dict for MscnNetwork: size mismatch for sets.tables.first",
        ),
        ("vocabulary.json", lambda: b'{"schema": {}}', "'ranges'"),
        ("samples.json", lambda: b'{"users": {}}', "'id'"),
    ],
)
def test_files_that_do_not_fit_together(folder: Path, name: str, content: Callable[[], bytes], starts: str) -> None:
    """Files that are what was saved but make no model, a pickle in the place of the weights among them."""
    inner = rewritten(folder, name, content())
    with pytest.raises(ModelError, match=rf"^{re.escape(f'the files in {inner} do not make an mscn model ({starts}')}.*\); train again$"):
        read_model(folder)


def test_sample_columns_of_different_length(folder: Path) -> None:
    """Sample rows must be rows."""
    path = folder / "model" / ID / "samples.json"
    texts = json.loads(path.read_text())
    texts["users"]["age"].pop()
    inner = rewritten(folder, "samples.json", json.dumps(texts).encode())
    message = f"the files in {inner} do not make an mscn model (the sample columns of table 'users' differ in length); train again"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        read_model(folder)


def test_more_sample_rows_than_were_asked_for(folder: Path) -> None:
    """The network has no inputs for them."""
    inner = folder / "model" / ID
    about = json.loads((inner / "vocabulary.json").read_text())
    texts = json.loads((inner / "samples.json").read_text())
    rows = about["sample_rows"]
    texts["users"] = {name: (column * (rows + 1))[: rows + 1] for name, column in texts["users"].items()}
    rewritten(folder, "samples.json", json.dumps(texts).encode())
    message = f"the files in {inner} do not make an mscn model (the sample of table 'users' has more than {rows} rows); train again"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        read_model(folder)


def test_other_data_is_refused() -> None:
    """Both fingerprints are shown."""
    message = (
        f"model {ID} was trained on other data: its fingerprint is d1, that of this database is d2; "
        "use the dataset it was trained on, or train again"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        metadata().check(data_fingerprint="d2", schema=SCHEMA)


def test_other_schema_is_refused() -> None:
    """Both fingerprints are shown; the order of tables and columns does not count."""
    metadata().check(data_fingerprint="d1", schema=dict(reversed(SCHEMA.items())))
    other = {**SCHEMA, "badges": {"id": "integer"}}
    message = (
        f"model {ID} was trained on another schema: its fingerprint is {schema_fingerprint(SCHEMA)}, "
        f"that of this database is {schema_fingerprint(other)}; use the dataset it was trained on, or train again"
    )
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        metadata().check(data_fingerprint="d1", schema=other)


def test_saving_without_a_model_is_an_error(tmp_path: Path) -> None:
    """There is nothing to write before training."""
    with pytest.raises(ModelError, match=r"^mscn has no model yet; train it, or load one$"):
        Mscn().save(tmp_path)


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT * FROM badges", "table 'badges' is not in the schema"),
        ("SELECT * FROM users WHERE users.views = 1", "column users.views belongs to no relation"),
        (f"SELECT * FROM {', '.join(f'users u{number}' for number in range(12))}", "it has 12 relations, more than 11"),
        (
            "WITH q AS (SELECT 1) SELECT * FROM users",
            "'with' has no place in a plain conjunction over tables, so that only PostgreSQL knows its meaning",
        ),
    ],
)
def test_text_that_cannot_be_estimated_is_named(sql: str, reason: str) -> None:
    """An estimate of a text that is no join of known tables is an error of the model."""
    message = f"mscn cannot estimate this query without a database: {reason}; the query: {sql}"
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        model().estimate(sql)


def test_estimates_are_the_network_s() -> None:
    """The short way of inference computes what the network of training computes."""
    made, parsed = model(), queries(8)
    samples = labelled(featurizer(), counted(parsed))
    [batch] = samples.batches(2048, np.arange(8))
    with torch.no_grad():
        wanted = estimated(made.network, batch).double().exp().numpy()
    found = np.concatenate([made.rows(query, query.masks) for query in parsed])
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
