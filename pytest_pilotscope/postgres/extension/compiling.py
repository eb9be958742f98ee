"""
Compile C into a shared library, once for everything that it is made from, and keep it in the cache.

The compiler is `$CC` or `cc`, or else the one in the ziglang package from PyPI.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import MissingExtension
from pytest_pilotscope.places.cacheentries import checksum, locked, remove, usable_folder
from pytest_pilotscope.places.environment import COMPILING, clean_environment
from pytest_pilotscope.places.folders import cache_subfolder
from pytest_pilotscope.places.privatefiles import check_owned
from pytest_pilotscope.postgres.process import temporary_folder

if TYPE_CHECKING:
    import numpy.typing as npt

_LOG = logging.getLogger(__name__)
_TIMEOUT_S = 300


def find_compiler(what: str = "the pilotscope library") -> tuple[str, ...]:
    """Return the command that compiles C: `$CC`, `cc`, or `python -m ziglang cc`; MissingExtension when there is none."""
    chosen = shlex.split(os.environ.get("CC", ""))
    if chosen and shutil.which(chosen[0]):
        return tuple(chosen)
    if shutil.which("cc"):
        return ("cc",)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    raise MissingExtension(
        f"{what} cannot be built: there is neither a C compiler (cc) nor the ziglang package; "
        "install one, for instance with: pip install ziglang"
    )


def portable_flags(compiler: tuple[str, ...]) -> tuple[str, ...]:
    """Make zig compile against an old C library, so that the result loads wherever the server does."""
    if "ziglang" not in compiler:
        return ()
    target = ("-target", f"{platform.machine()}-linux-gnu.2.17") if sys.platform == "linux" else ()
    return ("-fno-sanitize=undefined", *target)


def load_compiled(name: str, source: Path, what: str) -> ctypes.CDLL:
    """Load a library of our own functions, compiled once for each version of its source; `MissingExtension` if it cannot be compiled."""
    compiler = find_compiler(what)

    def command(target: Path) -> list[str]:
        return [*compiler, "-O3", "-fPIC", "-shared", *portable_flags(compiler), "-o", str(target), str(source), "-lm"]

    path = cached_library(name, command, [source], None, f"{what} could not be compiled with {shlex.join(compiler)}")
    return ctypes.CDLL(str(path))


def address_of(array: npt.NDArray[Any]) -> int:
    """Return the address of an array's first value, for a function of ours; `array.ctypes` takes ten times as long."""
    at: int = array.__array_interface__["data"][0]
    return at


def cached_library(name: str, command: Callable[[Path], list[str]], made_from: Iterable[Path], folder: Path | None, failed: str) -> Path:
    """
    Return the library that a command compiles into the path that it is given; it is compiled at most once for the same contents of the
    files `made_from`.

    `folder` is the one to keep it in, by default that of all of pilotscope. The file can be read by everybody and is there either whole or
    not at all, also when several processes build it at once. Raise `MissingExtension`, which begins with `failed`, if the compiler fails,
    and `ServerError` for a library that somebody else owns or may change.
    """
    folder = cache_subfolder("extension") if folder is None else folder
    name = f"{name}-{_key(command(Path('library')), made_from)}"
    target = _built(folder, name)
    if target is None:
        with locked(usable_folder(folder), f"builds a library in {folder}", _LOG):
            target = _built(folder, name, damaged=_remove_damaged) or _compile(command, folder, name, failed)
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


def _compile(command: Callable[[Path], list[str]], folder: Path, name: str, failed: str) -> Path:
    """Compile into a temporary file and give it its name when it is complete; return its path."""
    with temporary_folder(folder, "building-") as temporary:
        made = temporary / f"{name}.so"
        environment = {**clean_environment(*COMPILING), "ZIG_GLOBAL_CACHE_DIR": str(temporary), "ZIG_LOCAL_CACHE_DIR": str(temporary)}
        result = subprocess.run(command(made), capture_output=True, text=True, env=environment, timeout=_TIMEOUT_S, check=False)
        if result.returncode != 0:
            raise MissingExtension(f"{failed} (exit status {result.returncode}): {result.stderr.strip()[-2000:]}")
        made.chmod(0o755)
        target = folder / _file_name(name, made)
        os.replace(made, target)
    _LOG.info("built %s", target)
    return target


def _key(command: list[str], made_from: Iterable[Path]) -> str:
    """Return 16 hex digits of everything that a library is made from: files and the command."""
    digest = hashlib.sha256()
    for path in made_from:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update("\0".join(command).encode())
    return digest.hexdigest()[:16]
