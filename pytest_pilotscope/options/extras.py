"""The extras of this package: what to install for a library that is missing."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires

DISTRIBUTION = "pytest-pilotscope"

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+).*; *extra *== *[\"'](?P<extra>[\w-]+)[\"']")
_OTHERS = ("all", "test", "lint", "type", "docs")


def install_line(module: str) -> str | None:
    """Return the command that installs the extra with a module (`torch`, `smac`, ...); None for a module that no extra has."""
    try:
        requirements = requires(DISTRIBUTION) or ()
    except PackageNotFoundError:
        return None
    wanted = _normal(module.partition(".")[0])
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        if found and _normal(found["name"]) == wanted and found["extra"] not in _OTHERS:
            return f"pip install '{DISTRIBUTION}[{found['extra']}]'"
    return None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
