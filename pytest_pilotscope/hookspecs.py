"""The hooks this plugin calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pilotscope.registry import Registry


@pytest.hookspec(historic=True)
def pytest_pilotscope_register(registry: Registry) -> None:
    """
    Register algorithms and datasets.

    Write it in a conftest.py or in an installed plugin; the built-in algorithms come in through the same hook::

        def pytest_pilotscope_register(registry):
            registry.add_algorithm("naru", "naru_pg:Naru", origin="naru-pg 0.2")
            registry.add_dataset("orders", "orders_data:Orders", origin="naru-pg 0.2")

    The hook is historic: a conftest.py that pytest meets after start-up still counts.
    """
