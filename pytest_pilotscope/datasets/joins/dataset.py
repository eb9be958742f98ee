"""The generated joins as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.datasets.columns import create_filled
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.options.progress import ShowProgress, silent

from .queries import make_workload
from .rows import Rows
from .schema import TABLES

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.queries import Workload

SCALE = 1.0
SMALLEST, LARGEST = 0.1, 100.0
ENTITIES = 2_000
"""At scale 1."""

VERSION = 1
"""Part of the key: raise it when rows, keys or indexes change."""


class JoinsDataset:
    """
    107 tables and queries that join 8 to 40 of them: chains, cycles, stars, snowflakes and cliques.

    `scale` 1 is 2,000 entities, each with a row in most tables. Data and queries are functions of scale and seed alone; `data_dir` is
    accepted, as by every dataset, and not used.
    """

    def __init__(self, *, name: str = "joins", scale: float | None = None, seed: int = 0, data_dir: Path | None = None) -> None:
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
        """Changes with the generator's version, the scale and the seed, and with nothing else."""
        return f"joins-v{VERSION}-scale{self.scale!r}-seed{self.seed}"

    def load(self, session: Session) -> None:
        """Generate and COPY all tables, with an index on every key."""
        rows = self._rows()
        with self.show_progress(f"loading {self.name} at scale {self.scale:g}", len(TABLES)) as advance:
            for table in TABLES.values():
                create_filled(session, table.name, table.definition, rows.of(table))
                for statement in table.constraints():
                    session.execute(statement)
                advance(1)

    def workload(self) -> Workload:
        """Return the queries of the same scale and seed."""
        return make_workload(self.name, self._rows(), seed=self.seed)

    def _rows(self) -> Rows:
        return Rows(entities=int(ENTITIES * self.scale), seed=self.seed)
