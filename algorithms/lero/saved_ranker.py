"""
A lero model on disk; `algorithms.model_files` has the layout and the checks.

    model/<model_id>/weights.safetensors   the network
    model/<model_id>/model.json            the meaning of features (operators, tables, scales), the sizes of the layers, and the policy
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pytest_pilotscope.algorithms.lero.candidates import Slot
from pytest_pilotscope.algorithms.lero.policy import PlannerTime, Policy
from pytest_pilotscope.algorithms.lero.scoring import TrainedModel
from pytest_pilotscope.algorithms.model_files import Metadata, json_object, one_line, read_files, read_metadata, to_json, write_files
from pytest_pilotscope.algorithms.plans.saved_features import features_json, features_of
from pytest_pilotscope.errors import ModelError

FORMAT = 2
WEIGHTS, MODEL = "weights.safetensors", "model.json"


def write_model(folder: Path, model: TrainedModel, metadata: Metadata) -> tuple[Path, Path]:
    """Write a model below a folder; return its own folder and its metadata file."""
    from safetensors import torch as tensors

    about = {**features_json(model.featurizer), "policy": _policy_json(model.policy)}
    contents = {WEIGHTS: tensors.save(model.network.state_dict()), MODEL: to_json(about, indent=2)}
    return write_files(folder, metadata, contents, format_number=FORMAT)


def model_metadata(folder: Path) -> Metadata:
    """Read the metadata of the one model in a folder; raises `ModelError`."""
    return read_metadata(folder, "lero", format_number=FORMAT)[0]


def read_model(folder: Path) -> TrainedModel:
    """Read a model that `write_model` wrote; `ModelError` names a file that is missing, broken or changed."""
    metadata, hashes = read_metadata(folder, "lero", format_number=FORMAT)
    inner = folder / "model" / metadata.model_id
    contents = read_files(folder, metadata, hashes, {WEIGHTS, MODEL})
    about = json_object(inner / MODEL, contents[MODEL])
    try:
        return _assembled(about, contents[WEIGHTS])
    except (KeyError, AttributeError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the files in {inner} do not make a lero model ({one_line(error)}); train again") from error


def _assembled(about: Mapping[str, Any], weights: bytes) -> TrainedModel:
    from safetensors import torch as tensors

    from pytest_pilotscope.algorithms.plans.network import PlanNetwork

    featurizer = features_of(about)
    network = PlanNetwork(featurizer.width)
    network.load_state_dict(tensors.load(weights))
    return TrainedModel(featurizer=featurizer, network=network, policy=_policy(about["policy"]))


def _policy_json(policy: Policy) -> dict[str, Any]:
    return {
        "factors": policy.factors,
        "max_candidates": policy.max_candidates,
        "slots": None if policy.slots is None else [[slot.factor, slot.size] for slot in policy.slots],
        "largest": policy.largest,
        "margin": policy.margin,
        "share": policy.share if isfinite(policy.share) else None,
        "intercept": policy.intercept,
        "slope": policy.slope,
        "planner_ms": {
            "by_signature": dict(policy.planner.by_signature),
            "by_size": {str(size): ms for size, ms in policy.planner.by_size.items()},
            "overall": policy.planner.overall,
        },
        "known": sorted(policy.known),
        "skipped": sorted(policy.skipped),
        "skip_unknown": policy.skip_unknown,
    }


def _policy(about: Mapping[str, Any]) -> Policy:
    planner = about["planner_ms"]
    return Policy(
        factors=tuple(float(factor) for factor in about["factors"]),
        max_candidates=int(about["max_candidates"]),
        slots=None if about["slots"] is None else tuple(Slot(float(factor), int(size)) for factor, size in about["slots"]),
        largest=int(about["largest"]),
        margin=float(about["margin"]),
        share=float("inf") if about["share"] is None else float(about["share"]),
        intercept=float(about["intercept"]),
        slope=float(about["slope"]),
        planner=PlannerTime(
            by_signature={str(signature): float(ms) for signature, ms in planner["by_signature"].items()},
            by_size={int(size): float(ms) for size, ms in planner["by_size"].items()},
            overall=float(planner["overall"]),
        ),
        known=frozenset(map(str, about["known"])),
        skipped=frozenset(map(str, about["skipped"])),
        skip_unknown=bool(about["skip_unknown"]),
    )
