"""Lero's models on disk: what is read is what was written, and everything else is an error that names the file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import torch as tensors

from pytest_pilotscope.algorithms.devices import seeded
from pytest_pilotscope.algorithms.lero.candidates import Slot
from pytest_pilotscope.algorithms.lero.policy import PlannerTime, Policy
from pytest_pilotscope.algorithms.lero.saved_ranker import model_metadata, read_model, write_model
from pytest_pilotscope.algorithms.lero.scoring import TrainedModel
from pytest_pilotscope.algorithms.model_files import Metadata
from pytest_pilotscope.algorithms.plans.featurize import Featurizer, Scales
from pytest_pilotscope.algorithms.plans.network import PlanNetwork
from pytest_pilotscope.errors import ModelError

from .lero_example import SUBPLANS, TABLES, random_plans

ID = "lero_pair_20260102_030405"
POLICIES = {
    "paper": Policy(factors=(0.1, 10.0), max_candidates=5),
    "learned": Policy(
        factors=(0.01, 0.1, 1.0, 10.0, 100.0),
        max_candidates=20,
        slots=(Slot(100.0, 2), Slot(0.1, 3)),
        largest=4,
        margin=0.25,
        share=0.1,
        intercept=-1.5,
        slope=0.7,
        planner=PlannerTime(by_signature={"a.x=b.y": 2.5}, by_size={2: 1.0, 3: 2.0}, overall=1.5),
        known=frozenset({"a.x=b.y", "b.y=c.z"}),
        skipped=frozenset({"b.y=c.z"}),
        skip_unknown=True,
    ),
}


def model(policy: Policy = POLICIES["learned"]) -> TrainedModel:
    """A model with random weights."""
    featurizer = Featurizer(TABLES, Scales(rows=(0.0, 9.0), width=(1.0, 4.0)))
    with seeded(5):
        network = PlanNetwork(featurizer.width)
    return TrainedModel(featurizer=featurizer, network=network, policy=policy)


METADATA = Metadata(model_id=ID, data_fingerprint="d1", schema_fingerprint="s1", training={"epochs": 3})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a saved model."""
    write_model(tmp_path, model(), METADATA)
    return tmp_path


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_loaded_model_is_the_saved_one(tmp_path: Path, policy: Policy) -> None:
    """The policy is equal, and scores are the same bit for bit."""
    saved = model(policy)
    write_model(tmp_path, saved, METADATA)
    loaded = read_model(tmp_path)
    assert loaded.policy == policy
    plans = random_plans(5)
    assert loaded.scores(plans, SUBPLANS).tolist() == saved.scores(plans, SUBPLANS).tolist()
    assert model_metadata(tmp_path) == METADATA


def test_the_files_are_safetensors_and_json(folder: Path) -> None:
    """Nothing else is written; the metadata has their hashes."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert names == [f"metadata/{ID}.json", f"model/{ID}/model.json", f"model/{ID}/weights.safetensors"]
    about = json.loads((folder / names[0]).read_text(encoding="utf-8"))
    assert about["sha256"] == {Path(name).name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names[1:]}
    assert "first.weight" in tensors.load((folder / names[2]).read_bytes())


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_a_file_that_was_changed_is_named(folder: Path, name: str) -> None:
    """One flipped byte is seen before anything is made of the file."""
    path = folder / "model" / ID / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=f"^{re.escape(str(path))} is not the file that was saved: its SHA-256 is "):
        read_model(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_a_file_that_is_missing_is_named(folder: Path, name: str) -> None:
    """Half of a model is none."""
    path = folder / "model" / ID / name
    path.unlink()
    text = f"{path} cannot be read (No such file or directory); train again, or fetch the model again"
    with pytest.raises(ModelError, match=f"^{re.escape(text)}$"):
        read_model(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.pop("policy"),
        lambda about: about["policy"].update(slots=[[1]]),
        lambda about: about["policy"].update(margin="wide"),
        lambda about: about.update(operators=["Seq Scan"]),
        lambda about: about.update(tables=["one"]),
        lambda about: about["scales"].pop("rows"),
    ],
)
def test_files_that_do_not_fit_together_make_no_model(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Also with hashes that are right, what is in the files is checked."""
    path = folder / "model" / ID / "model.json"
    about = json.loads(path.read_text(encoding="utf-8"))
    change(about)
    _replace(folder, path, json.dumps(about).encode())
    text = f"the files in {path.parent} do not make a lero model ("
    with pytest.raises(ModelError, match=f"^{re.escape(text)}.*{re.escape('); train again')}$"):
        read_model(folder)


def _replace(folder: Path, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    metadata = folder / "metadata" / f"{ID}.json"
    about = json.loads(metadata.read_text(encoding="utf-8"))
    about["sha256"][path.name] = hashlib.sha256(content).hexdigest()
    metadata.write_text(json.dumps(about), encoding="utf-8")


@pytest.mark.parametrize("number", [1, 3])
def test_another_format_is_refused(folder: Path, number: int) -> None:
    """A model of a later version is not half understood, nor one of a version whose policy did not know how large its queries were."""
    path = folder / "metadata" / f"{ID}.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "format": number}), encoding="utf-8")
    text = f"{path} has model format {number}, and this version reads format 2; train again"
    with pytest.raises(ModelError, match=f"^{re.escape(text)}$"):
        read_model(folder)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """The message says where it looked."""
    text = f"{tmp_path} holds 0 lero models (metadata/lero_*.json); name a folder that holds one"
    with pytest.raises(ModelError, match=f"^{re.escape(text)}$"):
        read_model(tmp_path)
