"""Harmless archives are unpacked, harmful ones are refused."""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path

import pytest

from pytest_pilotscope.datasets.published.unpack import is_archive, unpack
from pytest_pilotscope.errors import DatasetError

LIMIT = 1 << 20


def archive(folder: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """Return a .tar.gz with these members."""
    path = folder / "a.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """Return the header of a member."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, target
    return made


def fails(path: Path, folder: Path, message: str, limit: int = LIMIT) -> None:
    """Check that unpacking raises exactly this, in which {path} stands for the archive."""
    with pytest.raises(DatasetError, match=f"^{re.escape(message.format(path=path))}$"):
        unpack(path, folder, limit_bytes=limit)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Make an empty folder within the test's own."""
    made = tmp_path / "target"
    made.mkdir()
    return made


def test_files_lie_flat(tmp_path: Path, target: Path) -> None:
    """Folders of the archive are not made, and a Mac's hidden files are left out."""
    path = archive(
        tmp_path, (member("./imdb", tarfile.DIRTYPE), b""), (member("./imdb/title.csv"), b"1,2\n"), (member("imdb/._title.csv"), b"x")
    )
    assert is_archive(path)
    unpack(path, target, limit_bytes=LIMIT)
    assert {file.name: file.read_bytes() for file in target.iterdir()} == {"title.csv": b"1,2\n"}


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", "/escaped"])
def test_names_that_lead_out(tmp_path: Path, target: Path, name: str) -> None:
    """A name with .. or from the root is refused, not repaired."""
    fails(archive(tmp_path, (member(name), b"x")), target, f"{{path}} holds {name!r}, which leads out of its folder; it was not unpacked")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path: Path, target: Path, kind: bytes) -> None:
    """Whatever is no file is refused."""
    path = archive(tmp_path, (member("x", kind, "/etc/passwd"), b""))
    fails(path, target, "{path} holds 'x', which is a link or a device; it was not unpacked")
    assert list(target.iterdir()) == []


def test_too_much(tmp_path: Path, target: Path) -> None:
    """The limit is on what comes out: 100 kB of zeros are a few bytes in the archive, and are never written."""
    path = archive(tmp_path, (member("a"), b"x"), (member("b"), bytes(100_000)))
    fails(path, target, "{path} unpacks to more than the 1000 bytes that this dataset may have; it was not unpacked", limit=1000)
    assert [file.name for file in target.iterdir()] == ["a"]


def test_one_name_twice(tmp_path: Path, target: Path) -> None:
    """Nothing is overwritten."""
    path = archive(tmp_path, (member("a/x.csv"), b"1"), (member("b/x.csv"), b"2"))
    fails(path, target, "{path} holds two files called 'x.csv'; unpack it yourself and name the folder with --data-dir")


def test_cut_off(tmp_path: Path, target: Path) -> None:
    """Half an archive is broken."""
    path = archive(tmp_path, (member("x"), bytes(range(256)) * 100))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DatasetError, match=f"^{re.escape(str(path))} is broken: .*; fetch it again$"):
        unpack(path, target, limit_bytes=LIMIT)
