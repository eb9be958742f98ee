"""References to models: the texts that `--load-model` takes."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_pilotscope.errors import UsageError

REGISTERED = re.compile(r"models:/([^/]+)/(\d+)")
"""A model of MLflow's registry: its name and version."""

_RUN_ID = re.compile(r"[0-9a-f]{32}")


def check_reference(reference: str) -> None:
    """Raise `UsageError` unless the reference is `best`, a run id, `models:/NAME/VERSION`, or the path of an existing folder."""
    if reference != "best" and not (_RUN_ID.fullmatch(reference) or REGISTERED.fullmatch(reference) or Path(reference).is_dir()):
        raise UsageError(
            f"no model {reference!r}: give best, a run id of 32 hex digits, models:/NAME/VERSION, or the path of an existing folder"
        )
