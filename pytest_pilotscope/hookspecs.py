"""The hooks that this plugin calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pilotscope.registry import Registry


@pytest.hookspec(historic=True)
def pytest_pilotscope_register(registry: Registry) -> None:
    """
    Register algorithms, their options, and datasets.

    Write it in a conftest.py or in an installed plugin. The built-in algorithms use the same hook::

        def pytest_pilotscope_register(registry):
            registry.add_algorithm("naru", "naru_pg:Naru", origin="naru-pg 0.2")
            registry.add_option("naru", "layers", default=5, help="layers of the network")
            registry.add_dataset("orders", "orders_data:Orders", origin="naru-pg 0.2")

    The hook is historic: pytest also calls it in a conftest.py that it finds after start-up. By then it has read the command line, so set
    the options of such an algorithm in the ini file (`pilotscope_naru_layers`) or in Python.
    """
