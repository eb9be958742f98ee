"""
Read and write subplans in the notation of the library.

A key of a setting consists of the aliases of a subplan, separated by blanks, maybe after the number of a query level: "a b", "2:x y".
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

from pytest_pilotscope.queries.joins import LeveledSubplan

__all__ = ["LeveledSubplan", "alias_text", "key_text", "parse_aliases", "parse_subplans"]

_PLAIN_ALIAS = re.compile(r"[^\s\",:|()]+")
_WRITTEN_ALIAS = re.compile(r'"((?:[^"]|"")+)"(?!\S)|\S+')


def alias_text(alias: str) -> str:
    """Return an alias as the library reads it: in double quotes if it has characters of the notation."""
    return alias if _PLAIN_ALIAS.fullmatch(alias) else '"' + alias.replace('"', '""') + '"'


def parse_aliases(text: str) -> frozenset[str]:
    """Return the aliases in a text with blanks between them, which are written as `alias_text` does or plainly."""
    return frozenset(found[1].replace('""', '"') if found[1] else found[0] for found in _WRITTEN_ALIAS.finditer(text))


@lru_cache(maxsize=1 << 14)
def key_text(subplan: frozenset[str]) -> str:
    """Return a subplan as a key of the library's settings."""
    text = " ".join(alias_text(alias) for alias in sorted(subplan))
    return f"{subplan.level}:{text}" if isinstance(subplan, LeveledSubplan) else text


def parse_subplans(shown: str) -> dict[frozenset[str], float]:
    """Return the rows in the library's report, `pilotscope.subplans`, by subplan: plain sets for a statement of one level."""
    considered = json.loads(shown)
    leveled = any(entry["level"] != 1 for entry in considered)
    return {
        LeveledSubplan(entry["level"], entry["rels"]) if leveled else frozenset(entry["rels"]): float(entry["rows"]) for entry in considered
    }
