"""The hooks this plugin calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_pilotscope.registry import Registry


@pytest.hookspec(historic=True)
def pytest_pilotscope_register(registry: Registry) -> None:
    """
    Register algorithms, their options, and datasets.

    Write it in a conftest.py or in an installed plugin; the built-in algorithms come in through the same hook::

        def pytest_pilotscope_register(registry):
            registry.add_algorithm("naru", "naru_pg:Naru", origin="naru-pg 0.2")
            registry.add_option("naru", "layers", default=5, help="layers of the network")
            registry.add_dataset("orders", "orders_data:Orders", origin="naru-pg 0.2")

    The hook is historic: a conftest.py that pytest meets after start-up still counts. Its options are not on the command line: pytest has
    read that by then. They are read from the ini file (`pilotscope_naru_layers`), and Python has them in any case.
    """
