"""Names, and what they stand for."""

from __future__ import annotations

import re

import pytest

from pytest_pilotscope.errors import UnknownName, UsageError
from pytest_pilotscope.registry import Registry, builtin_registry


def test_an_unknown_name_shows_near_matches_and_all_names() -> None:
    """A typo is answered with what was probably meant."""
    registry = Registry()
    for name in ("baseline", "mscn", "index"):
        registry.add_algorithm(name, "x:Y", origin="here")
    message = "unknown algorithm 'mscnn'; did you mean 'mscn'? known: baseline, index, mscn"
    with pytest.raises(UnknownName, match=f"^{re.escape(message)}$"):
        registry.algorithm("mscnn")
    message = "unknown dataset 'zzz'; known: "
    with pytest.raises(UnknownName, match=f"^{re.escape(message)}$"):
        registry.dataset("zzz")


def test_a_name_belongs_to_one() -> None:
    """Two different things under one name are refused with both origins; the same thing twice is fine."""
    registry = Registry()
    registry.add_algorithm("naru", "naru_pg:Naru", origin="naru-pg 0.2")
    registry.add_algorithm("naru", "naru_pg:Naru", origin="naru-pg 0.2")
    message = "algorithm 'naru' is registered twice: by naru-pg 0.2 and by conftest; rename one of them"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        registry.add_algorithm("naru", "other:Naru", origin="conftest")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_module:X", "No module named 'no_such_module'"),
        ("json:Nothing", "module 'json' has no attribute 'Nothing'"),
    ],
)
def test_a_target_that_cannot_be_imported_names_who_registered_it(target: str, reason: str) -> None:
    """The message carries the offending origin."""
    registry = Registry()
    registry.add_algorithm("naru", target, origin="naru-pg 0.2")
    message = f"algorithm 'naru' (registered by naru-pg 0.2) cannot be imported from {target!r}: {reason}"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        registry.algorithm("naru").resolve()


def test_every_builtin_name_can_be_imported() -> None:
    """No registered name is a promise only."""
    registry = builtin_registry()
    assert [entry.name for entry in registry.algorithms][:1] == ["baseline"]
    for entry in (*registry.algorithms, *registry.datasets):
        assert callable(entry.resolve())
