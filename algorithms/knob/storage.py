"""Settings that were found, on disk as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from algorithms.knob.catalogue import CATALOGUE
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.postgres.knobs import read_knobs
from pytest_pilotscope.postgres.session import Session

FILE = "knobs.json"


def save_values(folder: Path, values: Mapping[str, str]) -> None:
    """Write settings, in their own units."""
    (folder / FILE).write_text(json.dumps({"settings": dict(values)}, indent=2) + "\n")


def load_values(folder: Path, session: Session) -> dict[str, str]:
    """
    Read settings; `ModelError` for a broken file, for settings that this server does not have, and for any that is not tuned.

    A model that came from elsewhere cannot switch off durability.
    """
    path = folder / FILE
    try:
        settings = json.loads(path.read_text())["settings"]
        values = {str(name): str(value) for name, value in settings.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not a saved set of settings: {type(error).__name__}: {error}") from error
    foreign = sorted(values.keys() - CATALOGUE.keys())
    if foreign:
        raise ModelError(f"{path} has settings that are not tuned: {', '.join(foreign)}; it was not written by knob tuning")
    missing = sorted(values.keys() - read_knobs(session, list(values)).keys())
    if missing:
        raise ModelError(
            f"{path} has settings that this server does not know: {', '.join(missing)}; it belongs to another PostgreSQL version"
        )
    return values
