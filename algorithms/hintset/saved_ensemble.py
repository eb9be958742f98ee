"""
A hintset model on disk; `algorithms.model_files` has the layout and the checks.

    model/<model_id>/weights.safetensors   the networks
    model/<model_id>/model.json            the arms, the meaning of features, the sizes of the layers, and the policy
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from pytest_pilotscope.algorithms.hintset.arms import Arm
from pytest_pilotscope.algorithms.hintset.policy import Policy
from pytest_pilotscope.algorithms.model_files import Metadata, json_object, one_line, read_files, read_metadata, to_json, write_files
from pytest_pilotscope.algorithms.plans.saved_features import features_json, features_of
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.record import json_values

if TYPE_CHECKING:
    from pytest_pilotscope.algorithms.hintset.ensemble import Ensemble

FORMAT = 1
WEIGHTS, MODEL = "weights.safetensors", "model.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainedModel:
    """The arms, PostgreSQL's own plan first, the ensemble, and the policy."""

    arms: tuple[Arm, ...]
    ensemble: Ensemble
    policy: Policy


def write_model(folder: Path, model: TrainedModel, metadata: Metadata) -> tuple[Path, Path]:
    """Write a model below a folder; return its own folder and its metadata file."""
    from safetensors import torch as tensors

    ensemble = model.ensemble
    about = {
        "arms": model.arms,
        **features_json(ensemble.featurizer),
        "networks": len(ensemble.networks),
        "center": ensemble.center,
        "policy": json_values.to_json(model.policy, "policy"),
    }
    weights = {
        f"{number}.{name}": tensor for number, network in enumerate(ensemble.networks) for name, tensor in network.state_dict().items()
    }
    contents = {WEIGHTS: tensors.save({name: tensor.contiguous() for name, tensor in weights.items()}), MODEL: to_json(about, indent=2)}
    return write_files(folder, metadata, contents, format_number=FORMAT)


def read_model(folder: Path) -> tuple[TrainedModel, Metadata]:
    """Read a model that `write_model` wrote; `ModelError` names a file that is missing, broken or changed."""
    metadata, hashes = read_metadata(folder, "hintset", format_number=FORMAT)
    inner = folder / "model" / metadata.model_id
    contents = read_files(folder, metadata, hashes, {WEIGHTS, MODEL})
    about = json_object(inner / MODEL, contents[MODEL])
    try:
        return _assembled(about, contents[WEIGHTS]), metadata
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the files in {inner} do not make a hintset model ({one_line(error)}); train again") from error


def _assembled(about: Mapping[str, Any], weights: bytes) -> TrainedModel:
    from safetensors import torch as tensors

    from pytest_pilotscope.algorithms.hintset.ensemble import Ensemble, network_of

    featurizer = features_of(about)
    found, count = tensors.load(weights), int(about["networks"])
    parts = [{name.partition(".")[2]: tensor for name, tensor in found.items() if name.startswith(f"{each}.")} for each in range(count)]
    networks = tuple(network_of(part, featurizer.width) for part in parts)
    arms = tuple({str(name): str(value) for name, value in arm.items()} for arm in about["arms"])
    policy = json_values.from_json(Policy, about["policy"])
    if not networks or not arms or max([*policy.arms, *(known.arm for known in policy.known.values())], default=0) >= len(arms):
        raise ValueError("it has no networks, or an arm is missing")
    return TrainedModel(
        arms=arms, ensemble=Ensemble(featurizer=featurizer, networks=networks, center=float(about["center"])), policy=policy
    )
