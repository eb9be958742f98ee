"""
Write subplans in the notation of the library.

A key of a setting consists of the aliases of a subplan, separated by blanks, maybe after the number of a query level: "a b", "2:x y".
"""

from __future__ import annotations

import re

from pytest_pilotscope.queries.joins import LeveledSubplan

__all__ = ["LeveledSubplan", "alias_text", "key_text"]

_PLAIN_ALIAS = re.compile(r"[^\s\",:|()]+")


def alias_text(alias: str) -> str:
    """Return an alias as the library reads it: in double quotes if it has characters of the notation."""
    return alias if _PLAIN_ALIAS.fullmatch(alias) else '"' + alias.replace('"', '""') + '"'


def key_text(subplan: frozenset[str]) -> str:
    """Return a subplan as a key of the library's settings."""
    text = " ".join(alias_text(alias) for alias in sorted(subplan))
    return f"{subplan.level}:{text}" if isinstance(subplan, LeveledSubplan) else text
