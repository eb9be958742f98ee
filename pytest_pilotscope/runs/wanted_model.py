"""The folder of the model that the user named with `--load-model`, fetched if it is in MLflow."""

from __future__ import annotations

from pathlib import Path

from pytest_pilotscope.learning.algorithm import Algorithm, Persistent
from pytest_pilotscope.learning.training import Training


def wanted_model(algorithm: Algorithm, training: Training) -> Path | None:
    """Return the folder; None if the user named no model, or the algorithm has none. Raise `ModelError` for a model that is missing."""
    reference = training.settings.load_model
    if reference is None or not isinstance(algorithm, Persistent):
        return None
    from pytest_pilotscope.tracking.models import fetch_model

    return fetch_model(
        reference,
        training.folder / "loaded",
        experiment=f"{training.algorithm}_{training.dataset}",
        selection=getattr(algorithm, "selection", None),
        data_fingerprint=training.data_fingerprint,
        tracking_uri=training.settings.tracking_uri,
    )
