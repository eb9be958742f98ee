"""Learned database components on stock PostgreSQL, steered and measured. The public names; each is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytest_pilotscope.core.queries import Query as Query
    from pytest_pilotscope.core.queries import Workload as Workload
    from pytest_pilotscope.core.settings import Settings as Settings
    from pytest_pilotscope.provision import PostgreSQLConfig as PostgreSQLConfig
    from pytest_pilotscope.provision import open_database as open_database
    from pytest_pilotscope.registry import load_workload as load_workload
    from pytest_pilotscope.tracking.tracker import MLflowTracker as MLflowTracker

_HOMES = {
    "MLflowTracker": "tracking.tracker",
    "PostgreSQLConfig": "provision",
    "Query": "core.queries",
    "Settings": "core.settings",
    "Workload": "core.queries",
    "load_workload": "registry",
    "open_database": "provision",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that installing the plugin costs a pytest session nothing (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Return the public names."""
    return list(__all__)
