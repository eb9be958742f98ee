"""Which way a metric is good, told by the words of its name; None where neither way is: more rounds are not better rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

Direction = Literal["lower", "higher"]

_HIGHER = frozenset({"speedup", "wins", "accuracy", "throughput", "hits", "steered"})
_LOWER = frozenset(
    {"time", "seconds", "s", "ms", "error", "qerror", "perror", "loss", "losses", "timeout", "cost", "bytes", "calls", "even", "regret"}
)
_EXACT: Mapping[str, Direction] = {"query_count": "higher"}
"""More of the queries that were asked for really ran to the end."""


def direction(metric: str, *, target: str | None = None) -> Direction | None:
    """
    Whether lower or higher is better, or None. The prefix `test_` may be left out.

    `best_performance` is measured in whatever a knob search was after, so it needs the parameter `target_metric` as `target`.
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
