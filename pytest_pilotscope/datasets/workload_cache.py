"""The cache of generated workloads: generating one takes seconds, and gives the same queries every time."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from pytest_pilotscope.places.cacheentries import remove, usable_folder
from pytest_pilotscope.places.folders import cache_subfolder
from pytest_pilotscope.queries.queries import SPLITS, Query, Workload

logger = logging.getLogger(__name__)


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
    """Return the workload in a file; None if there is none, or, with a warning, if it is damaged."""
    try:
        found = json.loads(path.read_bytes())
        if found.pop("sha256") != _sha256(found):
            raise ValueError
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        logger.warning("the workload %s is damaged; it is made again", path)
        return None
    splits = {split: [Query(id=id_, sql=sql) for id_, sql in found[split]] for split in SPLITS}
    return Workload(dataset=found["dataset"]).with_splits(splits)


def _write(path: Path, workload: Workload) -> None:
    """Write a temporary file and rename it, so that nobody reads half a file."""
    content: dict[str, Any] = {split: [(query.id, query.sql) for query in workload.of(split)] for split in SPLITS}
    content["dataset"] = workload.dataset
    usable_folder(path.parent)
    with NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        json.dump({"sha256": _sha256(content), **content}, file)
    if path.is_dir():
        remove(path)
    os.replace(file.name, path)


def _sha256(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
