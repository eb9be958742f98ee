"""The better direction of a metric, from the words in its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Direction = Literal["lower", "higher"]

_HIGHER = frozenset({"speedup", "wins", "accuracy", "throughput", "hits", "steered"})
_LOWER = frozenset(
    {"time", "seconds", "s", "ms", "error", "qerror", "perror", "loss", "losses", "timeout", "cost", "bytes", "calls", "even", "regret"}
)
_EXACT: Mapping[str, Direction] = {"query_count": "higher"}
"""A higher count is better here: more of the planned queries ran to the end."""


def direction(metric: str, *, target: str | None = None) -> Direction | None:
    """
    Tell whether lower or higher is better, or None if neither is: more rounds are not better rounds. The prefix `test_` is optional.

    `best_performance` has the unit of the metric that a knob search optimized, so it needs the parameter `target_metric` as `target`.
    """
    name = metric.removeprefix("test_")
    if name == "best_performance":
        return direction(target) if target else None
    words = set(name.split("_"))
    if name in _EXACT:
        return _EXACT[name]
    if words & _HIGHER:
        return "higher"
    return "lower" if words & _LOWER else None
