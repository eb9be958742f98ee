"""Learned database components on stock PostgreSQL, steered and measured. This file has the public names, imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_pilotscope.builtins import load_test_sql as load_test_sql
    from pytest_pilotscope.builtins import load_workload as load_workload
    from pytest_pilotscope.learning.decision import Decision as Decision
    from pytest_pilotscope.notebook.measuring import benchmark as benchmark
    from pytest_pilotscope.notebook.results import Results as Results
    from pytest_pilotscope.notebook.results import read_results as read_results
    from pytest_pilotscope.options.settings import Settings as Settings
    from pytest_pilotscope.provision.database import PostgreSQLConfig as PostgreSQLConfig
    from pytest_pilotscope.provision.database import open_database as open_database
    from pytest_pilotscope.queries.queries import Query as Query
    from pytest_pilotscope.queries.queries import Workload as Workload
    from pytest_pilotscope.tracking.tracker import MLflowTracker as MLflowTracker

_HOMES = {
    "Decision": "learning.decision",
    "MLflowTracker": "tracking.tracker",
    "PostgreSQLConfig": "provision.database",
    "Query": "queries.queries",
    "Results": "notebook.results",
    "Settings": "options.settings",
    "Workload": "queries.queries",
    "benchmark": "notebook.measuring",
    "load_test_sql": "builtins",
    "load_workload": "builtins",
    "open_database": "provision.database",
    "read_results": "notebook.results",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that a pytest session with the installed plugin starts fast (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
