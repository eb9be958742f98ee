"""The Star Schema Benchmark as a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from pytest_pilotscope.datasets.columns import create_filled
from pytest_pilotscope.datasets.scaled import ScaledDataset

from .queries import make_workload
from .rows import Columns, generate
from .schema import TABLES, constraints

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.queries import Workload

VERSION = 1
"""Part of the key: raise it when rows, keys or indexes change."""


class SsbDataset(ScaledDataset):
    """
    The Star Schema Benchmark at any scale factor (1 is 6 M rows of lineorder; 0.1 without `scale`).

    The data is the same for every seed; `seed` chooses the parameters of the queries.
    """

    usual_name = "ssb"
    usual_scale = 0.1
    smallest, largest = 0.001, 100.0
    dates: ClassVar[Mapping[str, str]] = {"lineorder": "lo_orderdate"}

    @property
    def key(self) -> str:
        """Changes with the generator's version and the scale; the same data belongs to every seed."""
        return f"ssb-v{VERSION}-scale{self.scale!r}"

    def load(self, session: Session) -> None:
        """Generate and COPY all tables, then add keys and indexes."""
        made: dict[str, Columns] = {}

        def fill(table: str) -> None:
            create_filled(session, table, TABLES[table], made[table])

        self.take(
            [
                lambda: made.update(generate(self.scale)),
                *(partial(fill, table) for table in TABLES),
                *(partial(session.execute, statement) for statement in constraints()),
            ]
        )

    def workload(self) -> Workload:
        """Return the queries, with parameters of the seed."""
        return make_workload(self.name, seed=self.seed)
