"""The generated STATS data as a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.datasets.scaled import ScaledDataset
from pytest_pilotscope.errors import UsageError

from .drawn_queries import make_workload
from .generate import GENERATOR_VERSION, LARGEST, SMALLEST, generate
from .schema import DATES, create_indexes, definition

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.queries import Workload

SCALES = {"stats_tiny": 0.1, "stats_small": 0.3, "stats_synthetic": 1.0}


class StatsDataset(ScaledDataset):
    """
    A generated STATS database of 8 tables with 1000 training, 100 validation and 146 test queries.

    `name` chooses the scale (stats_tiny 0.1, stats_small 0.3, stats_synthetic 1.0: 1.03 M rows) unless `scale` is given.
    Data and queries are functions of scale and seed alone.
    """

    usual_name = "stats_tiny"
    smallest, largest = SMALLEST, LARGEST
    dates = DATES

    def __init__(self, *, name: str = usual_name, scale: float | None = None, seed: int = 0, data_dir: Path | None = None) -> None:
        if scale is None and name not in SCALES:
            raise UsageError(f"dataset {name!r} has no scale of its own; choose one of {', '.join(SCALES)}, or give a scale")
        super().__init__(name=name, scale=SCALES[name] if scale is None else scale, seed=seed, data_dir=data_dir)

    @property
    def key(self) -> str:
        """Changes with the generator's version, the scale and the seed, and with nothing else."""
        return f"stats-v{GENERATOR_VERSION}-scale{round(self.scale * 1_000_000)}e-6-seed{self.seed}"

    def load(self, session: Session) -> None:
        """Generate, COPY and index all tables into the empty database of `session`."""
        import pyarrow as arrow

        from pytest_pilotscope.datasets.columns import create_filled

        for name, table in generate(self.scale, self.seed).items():
            columns = {key: arrow.array(column.values, mask=column.nulls) for key, column in table.columns.items()}
            create_filled(session, name, definition(name), columns)
            for statement in create_indexes(name):
                session.execute(statement)

    def workload(self) -> Workload:
        """Return the queries of the same scale and seed; the cache keeps them for this version of the generator's code."""
        from pytest_pilotscope.datasets.workload_cache import cached_workload, source_hash

        return cached_workload(
            f"{self.name}-{self.key}-{source_hash(Path(__file__).parent)}",
            lambda: make_workload(self.name, generate(self.scale, self.seed), scale=self.scale, seed=self.seed),
        )
