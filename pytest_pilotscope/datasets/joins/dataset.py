"""The generated joins as a dataset."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from pytest_pilotscope.datasets.columns import create_filled
from pytest_pilotscope.datasets.scaled import ScaledDataset

from .queries import make_workload
from .rows import Rows
from .schema import TABLES, Table

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.queries import Workload

ENTITIES = 2_000
"""At scale 1."""

VERSION = 1
"""Part of the key: raise it when rows, keys or indexes change."""


class JoinsDataset(ScaledDataset):
    """
    107 tables and queries that join 8 to 40 of them: chains, cycles, stars, snowflakes and cliques.

    `scale` 1 is 2,000 entities, each with a row in most tables. Data and queries are functions of scale and seed alone.
    """

    usual_name = "joins"
    usual_scale = 1.0
    smallest, largest = 0.1, 100.0

    @property
    def key(self) -> str:
        """Changes with the generator's version, the scale and the seed, and with nothing else."""
        return f"joins-v{VERSION}-scale{self.scale!r}-seed{self.seed}"

    def load(self, session: Session) -> None:
        """Generate and COPY all tables, with an index on every key."""
        rows = self._rows()

        def fill(table: Table) -> None:
            create_filled(session, table.name, table.definition, rows.of(table))
            for statement in table.constraints():
                session.execute(statement)

        self.take([partial(fill, table) for table in TABLES.values()])

    def workload(self) -> Workload:
        """Return the queries of the same scale and seed."""
        return make_workload(self.name, self._rows(), seed=self.seed)

    def _rows(self) -> Rows:
        return Rows(entities=int(ENTITIES * self.scale), seed=self.seed)
