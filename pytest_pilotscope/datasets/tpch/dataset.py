"""TPC-H as a dataset."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.datasets.columns import create_from_file
from pytest_pilotscope.datasets.scaled import ScaledDataset
from pytest_pilotscope.errors import DatasetError, UsageError
from pytest_pilotscope.places.environment import clean_environment
from pytest_pilotscope.places.folders import cache_folder
from pytest_pilotscope.postgres.process import temporary_folder

from .queries import make_workload
from .schema import TABLES, constraints, definition

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.queries import Workload

PROGRAM = "tpchgen-cli"

VERSION = 1
"""Part of the key: raise it when tables, keys or indexes change."""

_SUPPLIERS, _PARTS = 10_000, 200_000
"""At scale 1."""


class TpchDataset(ScaledDataset):
    """
    TPC-H at any scale factor (1 is about 1 GB of rows; 0.1 without `scale`).

    The data is the same for every seed, as the specification demands; `seed` chooses the parameters of the queries. Raise
    DatasetError if tpchgen-cli is not installed.
    """

    usual_name = "tpch"
    usual_scale = 0.1
    largest = 1000.0

    def __init__(self, *, name: str | None = None, scale: float | None = None, seed: int = 0, data_dir: Path | None = None) -> None:
        super().__init__(name=name, scale=scale, seed=seed, data_dir=data_dir)
        if _repeats_suppliers(self.scale):
            raise UsageError(
                f"at scale {self.scale:g} dataset {self.name!r} would have the same supplier twice for a part, because its rules are made "
                "for larger ones; choose 0.01, 0.1, or anything from 0.025"
            )

    @cached_property
    def key(self) -> str:
        """Changes with the generator's version and the scale; the same data belongs to every seed."""
        command = [self._program, "--version"]
        version = subprocess.run(command, capture_output=True, text=True, check=True, env=clean_environment()).stdout.split()[-1]
        return f"tpch-v{VERSION}-tpchgen{version}-scale{self.scale!r}"

    @cached_property
    def _program(self) -> str:
        found = shutil.which(PROGRAM, path=str(Path(sys.executable).parent)) or shutil.which(PROGRAM)
        if found is None:
            raise DatasetError(f"dataset {self.name!r} needs {PROGRAM}; install it with: pip install 'pytest-pilotscope[tpch]'")
        return found

    def load(self, session: Session) -> None:
        """Generate and COPY all tables, then add keys and indexes."""
        with self._files() as folder:
            self.take(
                [
                    *(partial(create_from_file, session, table, definition(table), folder / f"{table}.csv") for table in TABLES),
                    *(partial(session.execute, statement) for statement in constraints()),
                ]
            )

    def workload(self) -> Workload:
        """Return the queries, with parameters of the seed."""
        return make_workload(self.name, scale=self.scale, seed=self.seed)

    @contextmanager
    def _files(self) -> Iterator[Path]:
        """
        Generate a temporary folder with a CSV file for each table.

        One process generates them all, because it needs seconds to start; it has one thread, so that rows come in order.
        """
        with temporary_folder(cache_folder(), f"{self.name}-") as folder:
            command: list[str | Path] = [
                self._program,
                "csv",
                "--scale-factor",
                repr(self.scale),
                "--output-dir",
                folder,
                "--quiet",
                "--num-threads",
                "1",
            ]
            answer = subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment())
            if answer.returncode != 0:
                raise DatasetError(f"{PROGRAM} could not make dataset {self.name!r} in {folder}: {answer.stderr.strip()}")
            yield folder


def _repeats_suppliers(scale: float) -> bool:
    """Tell whether two of the four suppliers of a part, `(part + i * (S / 4 + (part - 1) / S)) mod S` in clause 4.2.3, can be the same."""
    suppliers = int(_SUPPLIERS * scale)
    steps = (suppliers // 4 + offset for offset in range(_PARTS // _SUPPLIERS))
    return suppliers < 1 or any(count * step % suppliers == 0 for step in steps for count in (1, 2, 3))
