"""
What lies in the cache folder, and its removal.

Only what we know to be ours by its place is listed and removed. A cache folder that somebody pointed at a folder full of other things by
mistake loses nothing else.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import click

from pytest_pilotscope.commands.output import Column, moment, show_json, show_table, size

KINDS = (
    ("prepared database", "uid-*/templates/*"),
    ("server", "uid-*/servers/server-*"),
    ("copied PostgreSQL", "binaries/*"),
    ("steering library", "libraries/*"),
    ("steering library", "extension/*"),
    ("labels", "labels/*"),
)
"""What there can be and where, below the cache folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing in the cache; `changed_at` is when its folder was last changed."""

    kind: str
    path: Path
    size_bytes: int
    changed_at: datetime
    in_use: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaning:
    """What was found and, if it was asked for, what became of it: `failures` maps a path to the reason why it is still there."""

    folder: Path
    entries: tuple[Entry, ...]
    removed: tuple[Path, ...]
    failures: dict[str, str]


def clean(folder: Path, *, remove: bool) -> Cleaning:
    """List what is in the cache folder, and remove what is not in use if `remove` says so."""
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
    Everything of ours in the cache folder. While a server of ours runs, whatever servers are made from is in use as well.

    Symbolic links are never followed: what they point to is not ours.
    """
    root = folder.resolve()
    paths = [(kind, path) for kind, pattern in KINDS for path in sorted(folder.glob(pattern)) if _is_inside(path, root)]
    running = {path for kind, path in paths if kind == "server" and _is_locked(path / "lock")}
    for kind, path in paths:
        own_lock = path.with_name(f"{path.name.removesuffix('.partial')}.lock")
        in_use = path in running if kind == "server" else bool(running) or _is_locked(own_lock)
        yield Entry(
            kind=kind,
            path=path,
            size_bytes=size_bytes(path),
            changed_at=datetime.fromtimestamp(path.lstat().st_mtime, timezone.utc),
            in_use=in_use,
        )


def size_bytes(path: Path) -> int:
    """The bytes of a file, or of all files below a folder; what vanishes meanwhile does not count."""
    if not path.is_dir():
        return path.lstat().st_size
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size
            except FileNotFoundError:
                continue
    return total


def show_cleaning(cleaning: Cleaning, *, remove: bool, as_json: bool) -> None:
    """What there is, and what was done or what to do."""
    if as_json:
        show_json(cleaning)
        return
    click.echo(f"cache folder {cleaning.folder}")
    if not cleaning.entries:
        click.echo("nothing in it")
        return
    columns = (Column("what"), Column("size", number=True), Column("changed (UTC)"), Column("state"), Column("where"))
    show_table(columns, [_row(entry, cleaning) for entry in cleaning.entries])
    free = [entry for entry in cleaning.entries if not entry.in_use]
    if remove:
        done = [entry for entry in cleaning.entries if entry.path in cleaning.removed]
        click.echo(f"\nremoved {_count(done)}")
    elif free:
        click.echo(f"\nnothing was removed; `pilotscope clean --yes` removes {_count(free)}; what is needed again is made again")
    else:
        click.echo("\nnothing was removed; all of it is in use")
    for path, reason in cleaning.failures.items():
        click.echo(f"{path} is still there: {reason}", err=True)


def _row(entry: Entry, cleaning: Cleaning) -> tuple[str, ...]:
    state = "removed" if entry.path in cleaning.removed else "in use" if entry.in_use else "there"
    return (entry.kind, size(entry.size_bytes), moment(entry.changed_at), state, str(entry.path.relative_to(cleaning.folder)))


def _count(entries: Sequence[Entry]) -> str:
    many = "entry" if len(entries) == 1 else "entries"
    return f"{len(entries)} {many}, {size(sum(entry.size_bytes for entry in entries))}"


def _is_inside(path: Path, root: Path) -> bool:
    return not path.is_symlink() and path.suffix != ".lock" and path.resolve().is_relative_to(root)


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # another account's: let it be
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _remove(path: Path) -> None:
    """Out of its place first, so that nobody takes what is half removed for whole."""
    doomed = path.rename(path.with_name(f"{path.name}.removed"))
    if doomed.is_dir():
        shutil.rmtree(doomed)
    else:
        doomed.unlink()
