"""
A cache of prepared data directories on disk: made once, then copied for every server, except for large files (`largefiles.py`).

    <templates>/<key>/data            a cleanly stopped cluster
    <templates>/<key>/large           its large files
    <templates>/<key>/manifest.json   written last: how many files and bytes there have to be, and their checksum; each large file
    <templates>/<key>.partial/        being made, removed with its maker; whoever finds one while holding the lock may delete it
    <templates>/<key>.lock            held by the process that makes the entry; the others wait

Only the large files are synced to disk; all would take seconds. After a power cut unwritten files are missing or short. An entry that does
not fit its manifest is made again. The contents of a large file are read only if it has another time than in the manifest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_pilotscope.places.account import Account
from pytest_pilotscope.places.cacheentries import checksum, locked, remove
from pytest_pilotscope.places.folders import server_folder
from pytest_pilotscope.places.privatefiles import write_private
from pytest_pilotscope.postgres.binaries import Binaries, reachable_binaries
from pytest_pilotscope.postgres.clusters import make_cluster
from pytest_pilotscope.postgres.largefiles import LARGE, MANIFEST, Large, known_large_files, large_files, set_apart
from pytest_pilotscope.postgres.pinned import LAYOUT_VERSION
from pytest_pilotscope.postgres.process import Watchdog, run_program

logger = logging.getLogger(__name__)

_MANIFEST_VERSION = 3  # other versions of this suite find no damage in our entries, nor we in theirs


def cluster_key(name: str, content: str, binaries: Binaries) -> str:
    """Return the cache key of `content` (any text that identifies it) prepared by this build of PostgreSQL with the pinned settings."""
    build = (binaries.version, str(binaries.program.stat().st_size), platform.machine())
    identity = "\0".join((content, *build, str(LAYOUT_VERSION), str(_MANIFEST_VERSION)))
    return f"{name}-pg{binaries.major}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


class ClusterCache:
    """The prepared data directories of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self.folder = server_folder(account, "templates")

    def empty(self, binaries: Binaries) -> Path:
        """Return a cluster without a database of its own, as `initdb` leaves it."""
        key = cluster_key("empty", "", binaries)
        with self.missing(key, binaries) as data_folder:
            if data_folder is not None:
                make_cluster(binaries, data_folder, self._account)
        return self.data_folder(key)

    def data_folder(self, key: str) -> Path:
        """Return the data directory of `key`, which is whole after a block of `missing`."""
        return self.folder / key / "data"

    @contextmanager
    def missing(self, key: str, binaries: Binaries) -> Iterator[Path | None]:
        """
        Give the folder in which to make the data directory of `key`, or None if it is there, and whole.

        Two processes that want the same key at once: one makes it, the other waits. When the block raises or is killed, no entry is left.
        """
        entry = self.folder / key
        if _is_whole(entry):
            yield None
            return
        with locked(self.folder / f"{key}.lock", f"prepares {key}", logger) as lock:
            if _is_whole(entry):
                yield None
            else:
                with self._making(entry, lock, binaries) as data_folder:
                    yield data_folder

    @contextmanager
    def _making(self, entry: Path, lock: int, binaries: Binaries) -> Iterator[Path]:
        if entry.exists():
            logger.warning("the prepared data directory %s is damaged; it is made again", entry)
            remove(entry)
        partial = entry.with_name(f"{entry.name}.partial")
        remove(partial)
        with Watchdog(holding=[lock]) as process:
            process.make(partial, mode=self._account.entered_mode, gid=self._account.gid)
            yield partial / "data"
            # One WAL file is left instead of up to hundreds of MB of used ones.
            programs = reachable_binaries(binaries, self._account).bindir
            run_program([programs / "pg_resetwal", "-D", partial / "data"], self._account, partial)
            set_apart(partial, self._account)
            write_private(partial / MANIFEST, json.dumps(_manifest(partial, {})))
            partial.rename(entry)


def _manifest(entry: Path, known: Large) -> dict[str, Any]:
    """Count the files and bytes below the data directory of an entry, compute their checksum, and describe the large files."""
    data_folder = entry / "data"
    sizes = [os.lstat(os.path.join(folder, name)).st_size for folder, _, names in os.walk(data_folder) for name in names]
    return {"files": len(sizes), "bytes": sum(sizes), "sha256": checksum(data_folder), LARGE: large_files(entry, known)}


def _is_whole(entry: Path) -> bool:
    """Tell whether an entry fits its manifest; note new times of large files with the same contents, so that they are read only once."""
    try:
        manifest = json.loads((entry / MANIFEST).read_bytes())
        known = known_large_files(manifest)
        found = _manifest(entry, known)
    except (OSError, ValueError, RecursionError):
        return False
    if {name: (its[0], its[2]) for name, its in known.items()} != {name: (its[0], its[2]) for name, its in found[LARGE].items()}:
        return False
    if found[LARGE] != known:
        update = entry / f"{MANIFEST}.{secrets.token_hex(4)}"
        write_private(update, json.dumps(found))
        update.replace(entry / MANIFEST)
    return bool({**manifest, LARGE: {}} == {**found, LARGE: {}})
