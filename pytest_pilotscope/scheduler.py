"""An algorithm at work without pytest: give it SQL, get rows and times."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.core.queries import Query
from pytest_pilotscope.core.results import BASELINE
from pytest_pilotscope.core.settings import Settings
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.registry import builtin_registry

if TYPE_CHECKING:
    from pytest_pilotscope.measurement.clocks import Clock
    from pytest_pilotscope.measurement.sides import Side
    from pytest_pilotscope.provision import PostgreSQLConfig
    from pytest_pilotscope.tracking.tracker import MLflowTracker


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """
    The answer to one statement and what it took.

    `planning_ms` and `execution_ms` are the server's own figures, `inference_ms` is client wall clock: asking the algorithm and steering.
    """

    rows: list[tuple[Any, ...]]
    planning_ms: float
    execution_ms: float
    inference_ms: float
