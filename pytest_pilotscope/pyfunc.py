"""Serve a model of this suite as an MLflow pyfunc model. Stored models name this file as their `loader_module`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import ModelError
from pytest_pilotscope.postgres.subplans import key_text

if TYPE_CHECKING:
    import pandas as pd

Decide = Callable[[str], Mapping[frozenset[str], float] | Mapping[str, Any]]
"""A function from SQL to rows by subplan, or to the algorithm's own JSON: indexes, settings, the choice of a plan."""


class _Serves(Protocol):
    @staticmethod
    def decider(folder: Path) -> Decide:
        """Return a function from SQL to the decision of the model in a folder, without a database."""


@dataclass(frozen=True, slots=True)
class PilotscopeModel:
    """A model as MLflow calls it: one decision per statement."""

    decide: Decide

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """
        Map the column `sql` to `decision`, a JSON object.

        An estimator maps each subplan to its rows. The key is that of the C library: the sorted aliases, separated by blanks, after the
        number of the query level if there are several ("2:a b"). Other algorithms return `{"indexes": [...]}` as SQL,
        `{"settings": {...}}`, or for lero the choice and its reasons, with `"cardinalities": {...}`.
        """
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame({"decision": [_json_of(self.decide(sql)) for sql in model_input["sql"]]})
        return frame


def _json_of(decision: Mapping[frozenset[str], float] | Mapping[str, Any]) -> str:
    return json.dumps({key if isinstance(key, str) else key_text(key): value for key, value in decision.items()})


def _load_pyfunc(path: str) -> PilotscopeModel:
    """Read a model of this suite for MLflow. The name of its file tells the built-in algorithm."""
    folder = Path(path)
    found = sorted((folder / "metadata").glob("*.json"))
    if len(found) != 1:
        raise ModelError(f"{folder} holds {len(found)} models (metadata/*.json); one is needed")
    name = found[0].stem.split("_")[0]
    algorithm: _Serves = builtin_registry().algorithm(name).resolve()  # type: ignore[assignment]
    return PilotscopeModel(algorithm.decider(folder))
