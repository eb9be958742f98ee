"""The cache of generated workloads: generating one takes seconds, and gives the same queries every time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile

from pytest_pilotscope.places.folders import cache_subfolder
from pytest_pilotscope.places.privatefiles import private_folder
from pytest_pilotscope.queries.queries import SPLITS, Query, Workload


def cached_workload(key: str, make: Callable[[], Workload]) -> Workload:
    """
    Return the workload of a key; call `make` only if the cache does not have it.

    The key must change whenever the queries would. A file that cannot be read is replaced.
    """
    path = cache_subfolder("workloads") / f"{key}.json"
    known = _read(path)
    if known is not None:
        return known
    made = make()
    _write(path, made)
    return made


def source_hash(package: Path) -> str:
    """Hash the source and resource files of a generator's package: 12 hex digits that change with every edit."""
    digest = hashlib.sha256()
    for path in sorted(package.glob("*.*")):
        if path.suffix in (".py", ".json"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def _read(path: Path) -> Workload | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        splits = {split: [Query(id=id_, sql=sql) for id_, sql in content[split]] for split in SPLITS}
        return Workload(dataset=content["dataset"]).with_splits(splits)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, workload: Workload) -> None:
    """Write a temporary file and rename it, so that nobody reads half a file."""
    content = {split: [(query.id, query.sql) for query in workload.of(split)] for split in SPLITS}
    private_folder(path.parent)
    with NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump({"dataset": workload.dataset, **content}, file)
    os.replace(file.name, path)
