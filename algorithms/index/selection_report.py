"""The report of index selection: series, figures and one artifact per update. The names are fixed; users' scripts read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_pilotscope.algorithms.index.advisor import StartingPoint
from pytest_pilotscope.algorithms.index.costs import UsedSetCosts
from pytest_pilotscope.algorithms.index.extend import Selection
from pytest_pilotscope.algorithms.index.whatif import OpenWhatIf
from pytest_pilotscope.places.privatefiles import private_folder, write_private
from pytest_pilotscope.postgres.indexes import Index


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """One selection, the number of its queries, and its duration."""

    number: int
    queries: int
    duration_s: float
    selection: Selection


def metrics(updates: Sequence[Update]) -> dict[str, list[float]]:
    """Return series with one value per update."""
    return {
        "index_optimization_time_seconds": [update.duration_s for update in updates],
        "num_indexes_selected": [len(update.selection.indexes) for update in updates],
        "num_queries": [update.queries for update in updates],
    }


def scalars(last: Update, costs: UsedSetCosts, start: StartingPoint) -> dict[str, int | float]:
    """Return the final figures; the questions are those of all updates together."""
    return {
        "whatif_calls": costs.calls,
        "whatif_cache_hits": costs.hits,
        "estimated_cost_before": last.selection.cost_before,
        "estimated_cost_after": last.selection.cost_after,
        "index_size_bytes": last.selection.size_bytes,
        "num_indexes_dropped": len(start.dropped),
    }


def described(index: Index) -> dict[str, Any]:
    """Return an index as JSON values."""
    return {"table": index.table, "columns": list(index.columns)}


def write_update(folder: Path, update: Update, start: StartingPoint, what_if: OpenWhatIf) -> Path:
    """Write `index_config_iteration_<n>.json`: the selected indexes, their estimated gain, and the starting point."""
    selection = update.selection
    content = {
        "iteration": update.number,
        "num_queries": update.queries,
        "what_if": what_if.name,
        "estimated_cost_before": selection.cost_before,
        "estimated_cost_after": selection.cost_after,
        "size_bytes": selection.size_bytes,
        "indexes": [{**described(index), "size_bytes": what_if.size_bytes(index), "sql": index.statement} for index in selection.indexes],
        "kept": [existing.definition for existing in start.kept],
        "dropped": [existing.definition for existing in start.dropped],
        "steps": [
            {
                "added": str(step.added),
                "replaced": str(step.replaced) if step.replaced is not None else None,
                "estimated_cost": step.cost,
                "size_bytes": step.size_bytes,
            }
            for step in selection.steps
        ],
    }
    path = folder / f"index_config_iteration_{update.number}.json"
    private_folder(folder)
    write_private(path, json.dumps(content, indent=2) + "\n")
    return path
