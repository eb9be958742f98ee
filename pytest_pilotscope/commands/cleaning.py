"""
List the cache folder, and remove its entries.

Only paths where this suite writes are listed and removed. If a user sets the cache to a wrong folder, its files stay.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import click

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.commands.output import Column, moment, say, show_json, show_table, size

KINDS = (
    ("prepared database", "uid-*/templates/*"),
    ("server", "uid-*/servers/server-*"),
    ("copied PostgreSQL", "binaries/*"),
    ("steering library", "libraries/*"),
    ("steering library", "extension/*"),
    ("labels", "labels/*"),
    ("collected queries", "lero/*"),
    ("collected queries", "hintset/*"),
    ("generated queries", "workloads/*"),
    ("downloaded data", "downloads/*"),
    ("calibration", "calibrations/*"),
    ("old settings", "settings/*.json"),
    ("unfinished files", "smac-*"),
    *(("unfinished files", f"{dataset.name}-*") for dataset in builtin_registry().datasets),
)
"""The kinds of entries, and where they are below the cache folder."""


_DAY_S = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One entry of the cache; `changed_at` is the last change of its folder."""

    kind: str
    path: Path
    size_bytes: int
    changed_at: datetime
    in_use: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """The entries found and removed; `failures` maps a path to the reason why it could not be removed."""

    folder: Path
    entries: tuple[Entry, ...]
    removed: tuple[Path, ...]
    failures: dict[str, str]


def clean(folder: Path, *, remove: bool) -> Cleaning:
    """List the entries of the cache folder; with `remove`, remove those not in use."""
    entries = tuple(entries_of(folder))
    removed: list[Path] = []
    failures: dict[str, str] = {}
    for entry in entries if remove else ():
        if entry.in_use:
            continue
        try:
            _remove(entry.path)
            removed.append(entry.path)
        except OSError as error:
            failures[str(entry.path)] = error.strerror or str(error)
    return Cleaning(folder=folder, entries=entries, removed=tuple(removed), failures=failures)


def entries_of(folder: Path) -> Iterator[Entry]:
    """
    Yield the entries of the cache folder. While a server of ours runs, all data and binaries that servers start from are in use as well.

    Leave out what another process removes meanwhile.
    Never follow symbolic links: their targets are not ours.
    """
    root = folder.resolve()
    paths = [(kind, path) for kind, pattern in KINDS for path in sorted(folder.glob(pattern)) if _is_inside(path, root)]
    running = {path for kind, path in paths if kind == "server" and _is_locked(path / "lock")}
    for kind, path in paths:
        own_lock = path.with_name(f"{path.name.removesuffix('.partial')}.lock")
        with suppress(FileNotFoundError):
            if kind == "server":
                in_use = path in running
            else:  # old settings wait for their server, which a killed run left with others
                in_use = bool(running) or _is_locked(own_lock) or kind == "old settings" or _is_young(kind, path)
            changed_at = datetime.fromtimestamp(path.lstat().st_mtime, timezone.utc)
            yield Entry(kind=kind, path=path, size_bytes=size_bytes(path), changed_at=changed_at, in_use=in_use)


def _is_young(kind: str, path: Path) -> bool:
    """Tell whether unfinished files may still belong to a process, which removes them itself unless the machine stops."""
    return kind == "unfinished files" and time.time() - path.lstat().st_mtime < _DAY_S


def size_bytes(path: Path) -> int:
    """
    Return the bytes of a file, or of all files below a folder; files that vanish meanwhile do not count.

    The bytes of a file with several names are divided among these, so that the sum over all entries is what they take.
    """
    if not path.is_dir():
        return path.lstat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):
                status = os.lstat(os.path.join(folder, name))
                total += status.st_size // status.st_nlink
    return total


def show_cleaning(cleaning: Cleaning, *, remove: bool, as_json: bool) -> None:
    """Show the entries, and how many were removed or can be."""
    if as_json:
        show_json(cleaning)
        return
    click.echo(f"cache folder {cleaning.folder}")
    if not cleaning.entries:
        click.echo("it is empty")
        return
    columns = (Column("what"), Column("size", number=True), Column("changed (UTC)"), Column("state"), Column("where"))
    show_table(columns, [_row(entry, cleaning) for entry in cleaning.entries], first_to_go=("changed (UTC)", "state"))
    free = [entry for entry in cleaning.entries if not entry.in_use]
    if remove:
        done = [entry for entry in cleaning.entries if entry.path in cleaning.removed]
        click.echo(f"\nremoved {_count(done)}")
    elif free:
        say(f"\nnothing was removed; `pilotscope clean --yes` removes {_count(free)}; a run makes again what it needs")
    else:
        click.echo("\nnothing was removed; every entry is in use")
    for path, reason in cleaning.failures.items():
        click.echo(f"{path} could not be removed: {reason}", err=True)


def _row(entry: Entry, cleaning: Cleaning) -> tuple[str, ...]:
    state = "removed" if entry.path in cleaning.removed else "in use" if entry.in_use else "there"
    return (entry.kind, size(entry.size_bytes), moment(entry.changed_at), state, str(entry.path.relative_to(cleaning.folder)))


def _count(entries: Sequence[Entry]) -> str:
    many = "entry" if len(entries) == 1 else "entries"
    return f"{len(entries)} {many}, {size(sum(entry.size_bytes for entry in entries))}"


def _is_inside(path: Path, root: Path) -> bool:
    return not path.is_symlink() and path.suffix not in (".lock", ".sha256") and path.resolve().is_relative_to(root)


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # another account's lock: leave its entry alone
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _remove(path: Path) -> None:
    """Remove an entry. Rename it first, so that nobody uses a half-removed one."""
    doomed = path.rename(path.with_name(f"{path.name}.removed"))
    if doomed.is_dir():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()
    path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
