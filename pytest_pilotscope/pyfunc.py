"""Serves a model of this suite as an MLflow pyfunc model: `loader_module` of every model that is logged."""

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
"""From SQL to rows by subplan; or to what the algorithm says in JSON of its own: the indexes, the settings, the choice of a plan."""


class _Serves(Protocol):
    @staticmethod
    def decider(folder: Path) -> Decide:
        """Return a function from SQL to the decision of the model in a folder, without a database."""


@dataclass(frozen=True, slots=True)
class PilotscopeModel:
    """What MLflow calls: one decision per statement."""

    decide: Decide

    def predict(self, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """
        Map the column `sql` to `decision`, a JSON object.

        From each subplan to its rows, keyed as for the library: the sorted aliases, blank between them, after the number of the query level
        where there are several ("2:a b"). Or what the algorithm says itself: `{"indexes": [...]}` as SQL, `{"settings": {...}}`, or of lero
        what was chosen and why, with `"cardinalities": {...}`.
        """
        import pandas as pd

        frame: pd.DataFrame = pd.DataFrame({"decision": [_json_of(self.decide(sql)) for sql in model_input["sql"]]})
        return frame


def _json_of(decision: Mapping[frozenset[str], float] | Mapping[str, Any]) -> str:
    return json.dumps({key if isinstance(key, str) else key_text(key): value for key, value in decision.items()})


def _load_pyfunc(path: str) -> PilotscopeModel:
    """Read a model that was logged by this suite (MLflow calls this); the algorithm is looked up among the built-in ones by name."""
    folder = Path(path)
    found = sorted((folder / "metadata").glob("*.json"))
    if len(found) != 1:
        raise ModelError(f"{folder} holds {len(found)} models (metadata/*.json); one is needed")
    name = found[0].stem.split("_")[0]
    algorithm: _Serves = builtin_registry().algorithm(name).resolve()  # type: ignore[assignment]
    return PilotscopeModel(algorithm.decider(folder))
