"""The queries that a command works on: those of a dataset, or of the user's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import MissingWorkload
from pytest_pilotscope.queries.queries import SPLITS, Split

if TYPE_CHECKING:
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.queries.queries import Query


def queries_of(database: Database, path: Path | None, splits: Sequence[Split] = tuple(reversed(SPLITS))) -> Sequence[Query]:
    """Return the queries of some splits: of the files of `path`, else of the dataset. Raise `MissingWorkload` if there are none."""
    from pytest_pilotscope.datasets.files import load_workload_files

    if path is not None:
        workload = load_workload_files(path, database.name, None)
    elif database.dataset is not None:
        workload = database.dataset.workload()
    else:
        raise MissingWorkload(f"database {database.name!r} has no queries of its own; name them with --queries-dir")
    return [query for split in splits for query in workload.of(split)]
