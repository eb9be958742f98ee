"""
The settings of a search, on disk; `algorithms.model_files` has the layout and the checks.

    model/<model_id>/knobs.json    the settings, in their own units
    metadata/<model_id>.json       fingerprints of the data, the parameters of the search, and the SHA-256 of the file
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_pilotscope.algorithms.knob.catalogue import CATALOGUE
from pytest_pilotscope.algorithms.model_files import Metadata, read_json_model, write_json_model
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.postgres.knobs import read_knobs
from pytest_pilotscope.postgres.session import Session

FILE = "knobs.json"
FORMAT = 1


def save_values(folder: Path, values: Mapping[str, str], metadata: Metadata) -> tuple[Path, Path]:
    """Write settings below a folder; return the model's own folder and its metadata file."""
    return write_json_model(folder, metadata, FILE, {"settings": dict(values)}, format_number=FORMAT)


def load_values(folder: Path) -> tuple[dict[str, str], Metadata]:
    """
    Read settings; `ModelError` for a broken file and for settings outside the catalogue.

    So a foreign model cannot switch off durability.
    """
    metadata, content = read_json_model(folder, "knob", FILE, format_number=FORMAT)
    settings = content.get("settings")
    if not isinstance(settings, dict) or not all(isinstance(value, str) for value in settings.values()):
        raise ModelError(f"model {metadata.model_id} holds no settings with values as text; it was not written by knob tuning")
    foreign = sorted(settings.keys() - CATALOGUE.keys())
    if foreign:
        raise ModelError(
            f"model {metadata.model_id} has settings that are not tuned: {', '.join(foreign)}; it was not written by knob tuning"
        )
    return settings, metadata


def check_known(values: Mapping[str, str], metadata: Metadata, session: Session) -> None:
    """Raise `ModelError` for settings that this server does not have."""
    missing = sorted(values.keys() - read_knobs(session, list(values)).keys())
    if missing:
        raise ModelError(
            f"model {metadata.model_id} has settings that this server does not know: {', '.join(missing)}; "
            "it belongs to another PostgreSQL version"
        )
