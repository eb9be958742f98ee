"""Reading the description of a stream (`--stream FILE`)."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.places.givenfiles import read_given
from pytest_pilotscope.queries.statements import NeverEnds, split_statements
from pytest_pilotscope.queries.streams import StreamSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest needs it there, too

_TRANSACTION = re.compile(r"(begin|start|commit|end|rollback|abort|savepoint|release|prepare\s+transaction)\b", re.IGNORECASE)
_STREAM = {"queries": int, "repeated": float, "exact": float, "seed": int}
_WRITES = {"every": int, "statements": list, "file": str}


def read_stream(path: Path) -> StreamSpec:
    """Return the stream that a TOML file describes; raise `UsageError`, which begins with the file and says what was expected."""
    try:
        found = tomllib.loads(read_given(path).decode())
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--stream {path}: it cannot be read as TOML ({reason})") from error
    found = dict(found)
    writes = found.pop("writes", None)
    _check(path, "", found, _STREAM, needed=("queries", "repeated"))
    given: dict[str, Any] = {**found, "name": path.stem}
    if writes is not None:
        _check(path, "writes.", writes, _WRITES, needed=("every",))
        given |= {"write_every": writes["every"], "writes": _statements(path, writes)}
    for name, least, most in (("queries", 2, None), ("repeated", 0, 1), ("exact", 0, 1), ("seed", 0, None), ("write_every", 1, None)):
        if name in given and not (least <= given[name] and (most is None or given[name] <= most)):
            spelled = "writes.every" if name == "write_every" else name
            bounds = f"at least {least}" if most is None else f"from {least} to {most}"
            raise UsageError(f"--stream {path}: expected {spelled} to be {bounds}, got {given[name]!r}")
    return StreamSpec(**given)


def _check(path: Path, prefix: str, found: object, known: Mapping[str, type], *, needed: tuple[str, ...]) -> None:
    if not isinstance(found, dict):
        raise UsageError(f"--stream {path}: expected a table [writes], got {found!r}")
    for name, value in found.items():
        if name not in known:
            raise UsageError(f"--stream {path}: unknown {prefix}{name}; known: {', '.join(prefix + each for each in known)}")
        wanted = (int, float) if known[name] is float else known[name]
        if not isinstance(value, wanted) or isinstance(value, bool):
            kinds = {int: "a whole number", float: "a number", list: "a list of statements", str: "the name of a file"}
            raise UsageError(f"--stream {path}: expected {prefix}{name} to be {kinds[known[name]]}, got {value!r}")
    if missing := [prefix + name for name in needed if name not in found]:
        raise UsageError(f"--stream {path}: {missing[0]} is missing")


def _statements(path: Path, writes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the statements of the description, or of the file that it names, which is looked for beside it."""
    if ("file" in writes) == ("statements" in writes):
        raise UsageError(f"--stream {path}: expected either writes.statements or writes.file")
    texts = writes.get("statements", ())
    if not all(isinstance(text, str) for text in texts):
        raise UsageError(f"--stream {path}: expected writes.statements to be a list of statements, got {texts!r}")
    origin = path
    try:
        if "file" in writes:
            origin = path.parent / writes["file"]
            texts = [read_given(origin).decode()]
        found = tuple(statement.sql for text in texts for statement in split_statements(text))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"--stream {path}: the writes in {origin} cannot be read ({reason})") from error
    except NeverEnds as error:
        raise UsageError(f"--stream {path}: the writes in {origin} cannot be read ({error})") from error
    if not found:
        raise UsageError(f"--stream {path}: there is no statement in the writes of {origin}")
    if control := [statement for statement in found if _TRANSACTION.match(statement)]:
        raise UsageError(f"--stream {path}: each write is a transaction of its own, so {control[0]!r} would change nothing; leave it out")
    return found
