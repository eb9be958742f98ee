"""The registry of names and options."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import algorithms
import pytest_pilotscope.algorithms as packaged
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.errors import UnknownName, UsageError
from pytest_pilotscope.options.extras import install_line
from pytest_pilotscope.registry import Registry


def test_an_unknown_name_shows_near_matches_and_all_names() -> None:
    """The message for a typo suggests near names."""
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
    """Two targets under one name are rejected with both origins; the same target twice is accepted."""
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
    """The message has the origin of the broken entry."""
    registry = Registry()
    registry.add_algorithm("naru", target, origin="naru-pg 0.2")
    message = f"algorithm 'naru' (registered by naru-pg 0.2) cannot be imported from {target!r}: {reason}"
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        registry.algorithm("naru").resolve()


def test_every_builtin_name_can_be_imported() -> None:
    """Every built-in name can be imported."""
    registry = builtin_registry()
    assert [entry.name for entry in registry.algorithms][:1] == ["baseline"]
    for entry in (*registry.algorithms, *registry.datasets):
        assert callable(entry.resolve())


def test_an_option_has_the_type_of_its_default_or_one_of_its_choices() -> None:
    """Chosen values are read like those of the command line; all others are defaults."""
    registry = Registry()
    registry.add_option("naru", "layers", default=5, help="layers of the network")
    registry.add_option("naru", "rate", default=0.5, help="learning rate")
    registry.add_option("naru", "order", default="random", choices=("random", "sorted"), help="order of columns")
    registry.add_option("naru", "wildcards", default=True, help="learn without wildcards")
    assert registry.options("naru", {"naru": {"layers": 3, "rate": 1}, "other": {"layers": 1}}) == {
        "layers": 3,
        "rate": 1.0,
        "order": "random",
        "wildcards": True,
    }
    assert [option.name for option in registry.declared["naru"].values()] == ["naru-layers", "naru-rate", "naru-order", "naru-no-wildcards"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"layers": "3"}, "layers: expected 3, got '3'"),
        ({"layers": 1.5}, "layers: expected a whole number, got '1.5'"),
        ({"rate": float("nan")}, "rate: expected a number, got 'nan'"),
        ({"order": "none"}, "order: expected random or sorted, got 'none'"),
        ({"wildcards": 1}, "wildcards: expected True or False, got 1"),
        ({"day": "today"}, "day: expected YYYY-MM-DD, got 'today' (Invalid isoformat string: 'today')"),
        ({"layer": 3}, "unknown option 'layer' of naru; did you mean 'layers'? known: day, layers, order, rate, wildcards"),
    ],
)
def test_a_wrong_option_is_refused(chosen: dict[str, Any], message: str) -> None:
    """The message names the option and the expected value; a third party's reader may raise ValueError."""
    registry = Registry()
    registry.add_option("naru", "layers", default=5, help="layers of the network")
    registry.add_option("naru", "rate", default=0.5, help="learning rate")
    registry.add_option("naru", "order", default="random", choices=("random", "sorted"), help="order of columns")
    registry.add_option("naru", "wildcards", default=True, help="learn without wildcards")
    registry.add_option("naru", "day", default=None, parse=date.fromisoformat, metavar="YYYY-MM-DD", help="day of the data")
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        registry.options("naru", {"naru": chosen})


@pytest.mark.parametrize(
    ("algorithm", "name", "default", "message"),
    [
        ("gate", "delta", 3, "option 'delta' of algorithm 'gate': there is another option --gate-delta; rename one of them"),
        ("mscn", "batch_size", 3, "option 'batch_size' of algorithm 'mscn': there is another option --mscn-batch-size; rename one of them"),
        ("naru", "batch-size", 3, "option 'batch-size' of algorithm 'naru' must be a Python name such as batch_size"),
        ("naru", "order", "none", "default of option 'order' of algorithm 'naru': expected random or sorted, got 'none'"),
    ],
)
def test_an_option_that_cannot_be_declared(algorithm: str, name: str, default: object, message: str) -> None:
    """Two options cannot share a name on the command line, and the option must accept its own default."""
    choices = ("random", "sorted") if name == "order" else ()
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        builtin_registry().add_option(algorithm, name, default=default, choices=choices, help="")


def test_the_presets_of_a_checkout_are_those_of_the_package() -> None:
    """`from algorithms import ...` reads the same file as `pytest_pilotscope.algorithms`, and every algorithm is one of the package."""
    assert algorithms.__all__ == packaged.__all__
    assert Path(str(algorithms.__file__)).samefile(str(packaged.__file__))
    assert {entry.resolve().__module__.partition(".algorithms.")[0] for entry in builtin_registry().algorithms} == {"pytest_pilotscope"}


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch", "torch"),
        ("safetensors.torch", "torch"),
        ("ConfigSpace", "knob"),
        ("smac", "knob"),
        ("distributed", "dask"),
        ("duckdb", "tpcds"),
    ],
)
def test_the_extra_of_a_library(module: str, extra: str) -> None:
    """Every library of an extra has the command that installs it."""
    assert install_line(module) == f"pip install 'pytest-pilotscope[{extra}]'"


@pytest.mark.parametrize("module", ["numpy", "ruff", "hypothesis", "nowhere"])
def test_a_library_of_no_extra(module: str) -> None:
    """Libraries that are installed anyway, tools of developers and unknown names have none."""
    assert install_line(module) is None


def test_an_algorithm_whose_library_is_missing() -> None:
    """Library and command are named before anything starts, in a Python without PyTorch; another missing module is shown as it is."""
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from pytest_pilotscope.builtins import builtin_registry\n"
        "registry = builtin_registry()\n"
        "registry.add_algorithm('naru', 'naru_pg:Naru', origin='here')\n"
        "registry.add_algorithm('bare', 'bare_pg:Bare', origin='here', needs=('no_such_library',))\n"
        "for name in ('mscn', 'lero', 'hintset', 'naru', 'bare'):\n"
        "    try:\n        registry.algorithm(name).resolve()\n"
        "    except Exception as error:\n        print(type(error).__name__, error)\n"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.splitlines()
    needs = "needs torch, which is not installed; install it with: pip install 'pytest-pilotscope[torch]'"
    assert printed == [
        f"UsageError algorithm 'mscn' {needs}",
        f"UsageError algorithm 'lero' {needs}",
        f"UsageError algorithm 'hintset' {needs}",
        "UsageError algorithm 'naru' (registered by here) cannot be imported from 'naru_pg:Naru': No module named 'naru_pg'",
        "UsageError algorithm 'bare' needs no_such_library, which is not installed; install it with: pip install no_such_library",
    ]
