"""The Star Schema Benchmark as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.datasets.columns import create_filled
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options.progress import ShowProgress, silent

from .queries import make_workload
from .rows import generate
from .schema import TABLES, constraints

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.queries import Workload

SCALE = 0.1
SMALLEST, LARGEST = 0.001, 100.0

VERSION = 1
"""Part of the key: raise it when rows, keys or indexes change."""


class SsbDataset:
    """
    The Star Schema Benchmark at any scale factor (1 is 6 M rows of lineorder; 0.1 without `scale`).

    The data is the same for every seed; `seed` chooses the parameters of the queries. `data_dir` is accepted, as by every dataset, and not
    used.
    """

    def __init__(self, *, name: str = "ssb", scale: float | None = None, seed: int = 0, data_dir: Path | None = None) -> None:
        self.name = name
        self.scale = SCALE if scale is None else scale
        if not SMALLEST <= self.scale <= LARGEST:
            raise UsageError(f"scale {self.scale:g} of dataset {name!r} is out of range; choose one between {SMALLEST} and {LARGEST:g}")
        self.seed = seed
        self.show_progress: ShowProgress = silent

    @property
    def database(self) -> str:
        """The name of the dataset, so that it is recognised in psql."""
        return self.name

    @property
    def key(self) -> str:
        """Changes with the generator's version and the scale; the same data belongs to every seed."""
        return f"ssb-v{VERSION}-scale{self.scale!r}"

    def load(self, session: Session) -> None:
        """Generate and COPY all tables, then add keys and indexes."""
        statements = list(constraints())
        with self.show_progress(f"loading {self.name} at scale {self.scale:g}", len(TABLES) + len(statements)) as advance:
            for table, columns in generate(self.scale).items():
                create_filled(session, table, TABLES[table], columns)
                advance(1)
            for statement in statements:
                session.execute(statement)
                advance(1)

    def workload(self) -> Workload:
        """Return the queries, with parameters of the seed."""
        return make_workload(self.name, seed=self.seed)
