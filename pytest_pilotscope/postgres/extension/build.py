"""
Build the library for one PostgreSQL, or take it from the cache.

Building needs the server's headers and a C compiler: `$CC` or `cc`, or else the one in the ziglang package from PyPI. There is one library
per build of a PostgreSQL major version, because structures of the planner change between major versions only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.places.cacheentries import checksum, locked, remove, usable_folder
from pytest_pilotscope.places.environment import COMPILING, clean_environment
from pytest_pilotscope.places.privatefiles import check_owned
from pytest_pilotscope.postgres.binaries import available_binaries
from pytest_pilotscope.postgres.process import temporary_folder

_LOG = logging.getLogger(__name__)

SUPPORTED_MAJORS = range(13, 20)
TRIED_MAJORS = range(13, 19)
"""The versions that the library was tried on; for later ones it is written by their sources."""

_SOURCES = Path(__file__).parent
_TIMEOUT_S = 300
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
    folder = cache if cache is not None else _default_cache()
    name = f"pilotscope-pg{headers.major}-{_key(headers, compiler)}"
    target = _built(folder, name)
    if target is None:
        with locked(usable_folder(folder), f"builds a library in {folder}", _LOG):
            target = _built(folder, name, damaged=_remove_damaged) or _compile(compiler, headers, folder, name)
    check_owned(target, "library")
    return target


def _built(folder: Path, name: str, *, damaged: Callable[[Path], None] = lambda path: None) -> Path | None:
    """Return the library of this name, whose file name ends with its checksum; call `damaged` with each that does not fit its own."""
    for path in sorted(folder.glob(f"{name}*")):
        if path.name == _file_name(name, path):
            return path
        damaged(path)
    return None


def _remove_damaged(path: Path) -> None:
    _LOG.warning("the library %s is damaged; it is built again", path)
    remove(path)


def _file_name(name: str, path: Path) -> str:
    try:
        return f"{name}-{checksum(path)[:16]}.so"
    except OSError:
        return ""


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


def find_compiler() -> tuple[str, ...]:
    """Return the command that compiles C: `$CC`, `cc`, or `python -m ziglang cc`; MissingExtension when there is none."""
    chosen = shlex.split(os.environ.get("CC", ""))
    if chosen and shutil.which(chosen[0]):
        return tuple(chosen)
    if shutil.which("cc"):
        return ("cc",)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    raise MissingExtension(
        "the pilotscope library cannot be built: there is neither a C compiler (cc) nor the ziglang package; "
        "install one, for instance with: pip install ziglang"
    )


def compile_command(compiler: tuple[str, ...], headers: Path, target: Path) -> list[str]:
    """Return the command that compiles all sources into `target`."""
    flags: tuple[str, ...] = _MACOS_FLAGS if sys.platform == "darwin" else _LINUX_FLAGS
    if "ziglang" in compiler:
        flags += ("-fno-sanitize=undefined", *_zig_target())
    sources = map(str, sorted(_SOURCES.glob("*.c")))
    return [*compiler, *flags, "-isystem", str(headers), "-o", str(target), *sources]


def _zig_target() -> tuple[str, ...]:
    """Compile against an old C library, so that the result loads wherever the server does."""
    return ("-target", f"{platform.machine()}-linux-gnu.2.17") if sys.platform == "linux" else ()


def _compile(compiler: tuple[str, ...], headers: Headers, folder: Path, name: str) -> Path:
    """Compile into a temporary file and give it its name when it is complete; return its path."""
    with temporary_folder(folder, "building-") as temporary:
        made = temporary / f"{name}.so"
        environment = {**clean_environment(*COMPILING), "ZIG_GLOBAL_CACHE_DIR": str(temporary), "ZIG_LOCAL_CACHE_DIR": str(temporary)}
        command = compile_command(compiler, headers.folder, made)
        result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=_TIMEOUT_S, check=False)
        if result.returncode != 0:
            raise MissingExtension(
                f"the pilotscope library could not be compiled for PostgreSQL {headers.major} with {shlex.join(compiler)} "
                f"(exit status {result.returncode}): {result.stderr.strip()[-2000:]}"
            )
        made.chmod(0o755)
        target = folder / _file_name(name, made)
        os.replace(made, target)
    _LOG.info("built %s", target)
    return target


def _key(headers: Headers, compiler: tuple[str, ...]) -> str:
    """Return 16 hex digits of everything the library is made from: its sources, the server's configuration, the command."""
    digest = hashlib.sha256()
    for path in [*sorted(_SOURCES.glob("*.[ch]")), *sorted(headers.folder.glob("pg_config*.h"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update("\0".join(compile_command(compiler, headers.folder, Path("library"))).encode())
    return digest.hexdigest()[:16]


def _default_cache() -> Path:
    from pytest_pilotscope.places.folders import cache_subfolder

    return cache_subfolder("extension")


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
