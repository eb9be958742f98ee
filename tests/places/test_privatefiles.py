"""Files of ours are closed to other accounts, and a cache that others could change is refused."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.labels.atomicfiles import save, write
from pytest_pilotscope.labels.labelcache import Label, LabelCache
from pytest_pilotscope.places.folders import cache_folder, cache_subfolder
from pytest_pilotscope.places.privatefiles import check_owned, new_folder, open_private, private_folder, write_private

OTHER = 65534
"""The uid of somebody else; who it belongs to does not matter."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to somebody else")


@pytest.fixture(params=[0o000, 0o022, 0o277, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set a umask that would close too little, or too much."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    """Return the permissions of a path."""
    return path.stat().st_mode & 0o7777


@pytest.mark.usefixtures("umask")
def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    """Folders, their parents and files are closed to others; so is a file that existed."""
    folder = private_folder(tmp_path / "one" / "two")
    assert [mode(folder), mode(folder.parent)] == [0o700, 0o700]
    write_private(folder / "new", "text")
    assert (mode(folder / "new"), (folder / "new").read_text()) == (0o600, "text")
    (folder / "new").chmod(0o666)
    with open_private(folder / "new", "a") as file:
        file.write("!")
    assert (mode(folder / "new"), (folder / "new").read_text()) == (0o600, "text!")
    assert mode(new_folder(tmp_path / "entered", 0o711)) == 0o711


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """A folder of the user's is not closed, and a file in its place is an error."""
    tmp_path.chmod(0o755)
    assert mode(private_folder(tmp_path)) == 0o755
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="file"):
        private_folder(tmp_path / "file")


def given_away(path: Path) -> None:
    """Give a path to somebody else."""
    os.chown(path, OTHER, OTHER)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        pytest.param(
            lambda cache: given_away(cache),
            "it belongs to nobody (uid 65534), not to root (uid 0); delete it",
            marks=needs_root,
            id="owner",
        ),
        pytest.param(lambda cache: cache.chmod(0o757), "others may change it (mode 0757); run: chmod go-w {cache}", id="others"),
        pytest.param(lambda cache: cache.chmod(0o1777), "others may change it (mode 1777); run: chmod go-w {cache}", id="sticky"),
        pytest.param(
            lambda cache: cache.chmod(0o770), "others may change it (mode 0770); run: chmod go-w {cache}", marks=needs_root, id="group"
        ),
        pytest.param(
            lambda cache: cache.parent.chmod(0o777),
            "others may change its parent {cache.parent} (mode 0777); run: chmod go-w {cache.parent}",
            id="parent",
        ),
        pytest.param(
            lambda cache: given_away(cache.parent),
            "its parent {cache.parent} belongs to nobody (uid 65534), not to root; run: chown root {cache.parent}",
            marks=needs_root,
            id="parent's owner",
        ),
    ],
)
def test_a_cache_in_the_hands_of_others(spoil: Callable[[Path], None], problem: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the folder, what is wrong with it and what to do."""
    own = cache / "in" / "cache"
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(own))
    assert cache_folder() == own
    spoil(own)
    wanted = f"the cache folder {own} is not used: {problem.format(cache=own)}, or set PILOTSCOPE_CACHE to a folder of your own"
    with pytest.raises(ServerError, match=f"^{re.escape(wanted)}$"):
        cache_folder()


def test_a_sticky_parent_is_safe(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can rename what is not theirs in a folder such as /tmp."""
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(cache / "own"))
    cache.chmod(0o1777)
    assert cache_folder() == cache / "own"


def test_a_link_to_a_folder_that_others_may_replace(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parents of the real folder are looked at as well."""
    real = private_folder(cache / "open" / "real", 0o711)
    real.parent.chmod(0o777)
    (cache / "link").symlink_to(real)
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(cache / "link"))
    with pytest.raises(ServerError, match=rf"others may change its parent {real.parent} \(mode 0777\)"):
        cache_folder()


@needs_root
def test_a_link_of_somebody_else(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that its owner may point elsewhere is no cache of ours, wherever it leads."""
    (cache / "link").symlink_to(private_folder(cache / "real", 0o711))
    os.chown(cache / "link", OTHER, OTHER, follow_symlinks=False)
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(cache / "link"))
    with pytest.raises(ServerError, match=r"it belongs to nobody \(uid 65534\), not to root"):
        cache_folder()


@pytest.mark.parametrize("kind", ["extension", "labels", "workloads", "downloads"])
def test_a_folder_in_the_cache_that_others_may_change(kind: str, cache: Path) -> None:
    """Every folder is looked at, not only the uppermost one."""
    private_folder(cache / kind).chmod(0o777)
    with pytest.raises(ServerError, match=rf"^the cache folder {cache}/{kind} is not used: others may change it \(mode 0777\)"):
        cache_subfolder(kind)


@needs_root
def test_the_default_cache_of_root_is_not_below_somebody_elses_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container root's home may belong to the user of the host; then the cache is that of the system."""
    tmp_path.chmod(0o755)
    given_away(tmp_path)
    monkeypatch.delenv("PILOTSCOPE_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == Path("/var/cache/pilotscope")


def test_the_private_group_of_a_user_is_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the umask 002 of many systems a user's folders are writable for a group that only this user is in; root has none."""
    tmp_path.chmod(0o770)
    if os.geteuid() == 0:
        with pytest.raises(ServerError, match=r"\(mode 0770\)"):
            check_owned(tmp_path, "folder")
        monkeypatch.setattr("pytest_pilotscope.places.privatefiles._is_own_group", lambda gid: True)
    check_owned(tmp_path, "folder")


@pytest.mark.usefixtures("umask")
def test_labels_and_columns(tmp_path: Path) -> None:
    """The labels, SQLite's other files beside them, and the columns can be opened by their owner only."""
    folder = tmp_path / "labels"
    with LabelCache(folder, "fingerprint") as labels:
        labels.store({b"x": Label(rows=1, source="memory")})
        save(folder / "column.npy", [np.zeros(3)], size=3, dtype=float)
        write(folder / "rows.txt", b"3")
        found = {path.name: oct(mode(path)) for path in folder.iterdir()}
    assert len(found) >= 4
    assert set(found.values()) == {"0o600"}
    assert mode(folder) == 0o700
