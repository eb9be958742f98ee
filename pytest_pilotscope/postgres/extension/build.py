"""
Build the library for one PostgreSQL, or take it from the cache.

Building needs the server's headers and a C compiler (`compiling`). There is one library per build of a PostgreSQL major version, because
structures of the planner change between major versions only.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.places.environment import clean_environment
from pytest_pilotscope.postgres.binaries import available_binaries
from pytest_pilotscope.postgres.extension.compiling import cached_library, find_compiler, portable_flags

SUPPORTED_MAJORS = range(13, 20)
TRIED_MAJORS = range(13, 19)
"""The versions that the library was tried on; for later ones it is written by their sources."""

_SOURCES = Path(__file__).parent
_LINUX_FLAGS = ("-O2", "-fPIC", "-shared")
_MACOS_FLAGS = ("-O2", "-fPIC", "-bundle", "-undefined", "dynamic_lookup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Headers:
    """The folder with `postgres.h` that fits a server, and the server's major version."""

    folder: Path
    major: int


def build_library(bindir: Path, cache: Path | None = None) -> Path:
    """
    Return the path of the library for the PostgreSQL whose programs are in `bindir`; it is compiled at most once.

    `cache` is the folder to keep it in, by default the one of all of pilotscope. The file can be read by everybody and is there either
    whole or not at all, also when several processes build it at once. Raises `MissingExtension`, which names what is missing and the
    command that fixes it, and `ServerError` for a library that somebody else owns or may change.
    """
    return build_with(find_headers(bindir), cache)


def build_with(headers: Headers, cache: Path | None = None) -> Path:
    """Return the path of the library for the server of these headers, as `build_library` does."""
    compiler = find_compiler()
    made_from = [*sorted(_SOURCES.glob("*.[ch]")), *sorted(headers.folder.glob("pg_config*.h"))]
    failed = f"the pilotscope library could not be compiled for PostgreSQL {headers.major} with {shlex.join(compiler)}"
    command = partial(compile_command, compiler, headers.folder)
    return cached_library(f"pilotscope-pg{headers.major}", command, made_from, cache, failed)


def find_headers(bindir: Path) -> Headers:
    """Find the server headers that belong to the programs in `bindir`; MissingExtension when there are none for a supported version."""
    major = _major(bindir)
    if major not in SUPPORTED_MAJORS:
        raise MissingExtension(
            f"PostgreSQL {major} in {bindir} cannot be steered: the pilotscope library supports "
            f"{SUPPORTED_MAJORS[0]} to {SUPPORTED_MAJORS[-1]}; use a server of one of these versions"
        )
    for folder in _header_folders(bindir, major):
        if (folder / "postgres.h").is_file() and _header_major(folder) == major:
            return Headers(folder=folder, major=major)
    raise MissingExtension(
        f"the pilotscope library cannot be built for PostgreSQL {major} in {bindir}: its server headers (postgres.h) are not there; "
        f"install them, on Debian and Ubuntu with: apt-get install postgresql-server-dev-{major}"
    )


def headers_of(major: int) -> Headers:
    """Find server headers of a major version on this machine, for a server that is elsewhere; MissingExtension when there are none."""
    if major not in SUPPORTED_MAJORS:
        raise MissingExtension(
            f"PostgreSQL {major} cannot be steered: the pilotscope library supports {SUPPORTED_MAJORS[0]} to {SUPPORTED_MAJORS[-1]}; use a "
            "server of one of these versions"
        )
    bindirs = [binaries.bindir for binaries in available_binaries() if binaries.major == major]
    for folder in (*(folder for bindir in bindirs for folder in _header_folders(bindir, major)), *_system_header_folders(major)):
        if (folder / "postgres.h").is_file() and _header_major(folder) == major:
            return Headers(folder=folder, major=major)
    raise MissingExtension(
        f"the pilotscope library cannot be built for PostgreSQL {major}: its server headers (postgres.h) are not on this machine; install "
        f"them, on Debian and Ubuntu with: apt-get install postgresql-server-dev-{major}, or name their PostgreSQL with --pg-bindir"
    )


def compile_command(compiler: tuple[str, ...], headers: Path, target: Path) -> list[str]:
    """Return the command that compiles all sources into `target`."""
    flags: tuple[str, ...] = _MACOS_FLAGS if sys.platform == "darwin" else _LINUX_FLAGS
    flags += portable_flags(compiler)
    sources = map(str, sorted(_SOURCES.glob("*.c")))
    return [*compiler, *flags, "-isystem", str(headers), "-o", str(target), *sources]


def _header_folders(bindir: Path, major: int) -> list[Path]:
    """List folders that may have the headers: beside the programs, then `pg_config`'s, Debian's and Red Hat's."""
    root = bindir.parent
    folders = [root / "include" / "postgresql" / "server", root / "include" / "server"]
    said = _output([str(bindir / "pg_config"), "--includedir-server"])
    if said:
        folders.append(Path(said))
    return [*folders, *_system_header_folders(major)]


def _system_header_folders(major: int) -> list[Path]:
    return [Path(f"/usr/include/postgresql/{major}/server"), Path(f"/usr/pgsql-{major}/include/server")]


def _major(bindir: Path) -> int:
    text = _output([str(bindir / "postgres"), "--version"])
    match = re.search(r"\(PostgreSQL\) (\d+)", text)
    if match is None:
        raise MissingExtension(f"the pilotscope library cannot be built: there is no PostgreSQL server program in {bindir}")
    return int(match[1])


def _header_major(folder: Path) -> int | None:
    """Return the major version in the headers; Debian splits them into one file per word size."""
    for path in sorted(folder.glob("pg_config*.h")):
        match = re.search(r'^#define PG_MAJORVERSION "(\d+)"', path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
        if match:
            return int(match[1])
    return None


def _output(command: list[str]) -> str:
    """Return the output of a program, or "" when it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True, env=clean_environment()).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
