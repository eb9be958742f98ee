"""Unpacking tar archives into one flat folder, so that no name in them leads out of it."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from pathlib import Path, PurePosixPath

from pytest_pilotscope.datasets.published.download import free_bytes
from pytest_pilotscope.errors import DatasetError
from pytest_pilotscope.places.privatefiles import open_private

MEMBERS = 1000
"""An archive of more files is refused."""


def is_archive(path: Path) -> bool:
    """Tell whether a file is a tar archive, compressed or not."""
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error):  # cut off, or no archive at all
        return False


def unpack(archive: Path, folder: Path, *, limit_bytes: int) -> None:
    """
    Write the regular files of a tar archive into `folder`, by the last part of their names.

    Raise DatasetError for names that lead out of the archive, links, devices, two files of one name, more than `limit_bytes`, a full disk,
    and an archive that is cut off. The caller deletes what was written by then.
    """
    try:
        with tarfile.open(archive) as tar:
            _extract(tar, archive, folder, limit_bytes)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DatasetError(f"{archive} is broken: {error or 'it ends too early'}; fetch it again") from error


def _extract(tar: tarfile.TarFile, archive: Path, folder: Path, limit_bytes: int) -> None:
    written = count = 0
    for member in tar:
        count += 1
        if count > MEMBERS:
            raise DatasetError(f"{archive} holds more than {MEMBERS} files; it is no dataset")
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise DatasetError(f"{archive} holds {member.name!r}, which leads out of its folder; it was not unpacked")
        if member.isdir() or name.name.startswith("."):
            continue
        if not member.isfile():
            raise DatasetError(f"{archive} holds {member.name!r}, which is a link or a device; it was not unpacked")
        written += member.size
        _check_room(archive, folder, member.size, written, limit_bytes)
        target = folder / name.name
        if target.exists():
            raise DatasetError(f"{archive} holds two files called {name.name!r}; unpack it yourself and name the folder with --data-dir")
        content = tar.extractfile(member)
        if content is not None:
            with open_private(target, "xb") as file:
                shutil.copyfileobj(content, file, 1 << 20)


def _check_room(archive: Path, folder: Path, size: int, written: int, limit_bytes: int) -> None:
    if written > limit_bytes:
        raise DatasetError(f"{archive} unpacks to more than the {limit_bytes} bytes that this dataset may have; it was not unpacked")
    if size > free_bytes(folder):
        raise DatasetError(
            f"no room to unpack {archive}: the next file has {size} bytes and {free_bytes(folder)} are free in {folder}; "
            "make room, or set PILOTSCOPE_CACHE to a folder on a larger disk"
        )
