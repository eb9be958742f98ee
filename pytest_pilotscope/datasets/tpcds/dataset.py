"""TPC-DS as a dataset; DuckDB's extension generates its data and has its queries, without a network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.datasets.columns import create_from_file
from pytest_pilotscope.datasets.scaled import ScaledDataset
from pytest_pilotscope.datasets.tpcds.queries import make_workload
from pytest_pilotscope.datasets.tpcds.schema import DATES, constraints, referred
from pytest_pilotscope.errors import DatasetError
from pytest_pilotscope.places.folders import cache_folder
from pytest_pilotscope.postgres.process import temporary_folder

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.queries import Workload

VERSION = 1
"""Part of the key: raise it when tables, keys or indexes change."""

_EXTENSION = "duckdb_extension_tpcds"
_COLUMNS = """
    SELECT table_name, column_name, data_type FROM duckdb_columns()
    WHERE NOT internal AND schema_name = 'main' ORDER BY table_name, column_index
"""


class TpcdsDataset(ScaledDataset):
    """
    TPC-DS at any scale factor (1 is about 1 GB of rows; 0.1 without `scale`), with its 99 queries.

    The data is the same for every seed; `seed` chooses years and months of the queries. Raise
    DatasetError if DuckDB or its extension is not installed.
    """

    usual_name = "tpcds"
    usual_scale = 0.1
    largest = 1000.0
    dates = DATES

    @cached_property
    def key(self) -> str:
        """Changes with the generator's version and the scale; the same data belongs to every seed."""
        return f"tpcds-v{VERSION}-duckdb{self._duckdb.__version__}-scale{self.scale!r}"

    @property
    def references(self) -> Mapping[tuple[str, str], str]:
        """The table that a column refers to, by table and column: the keys are known, and not declared."""
        with self._generator() as generator:
            columns = generator.execute(_COLUMNS).fetchall()
        return {(table, column): parent for table, column, _ in columns if (parent := referred(table, column)) is not None}

    def load(self, session: Session) -> None:
        """Generate and COPY all tables, then add keys and indexes."""
        with self._generator(scale=self.scale) as generator:
            columns: dict[str, dict[str, str]] = {}
            for table, column, column_type in generator.execute(_COLUMNS).fetchall():
                columns.setdefault(table, {})[column] = column_type
            statements = constraints({table: list(types) for table, types in columns.items()})
            self.take(
                [
                    *(partial(self._copy, generator, session, table, types) for table, types in columns.items()),
                    *(partial(session.execute, statement) for statement in statements),
                ]
            )

    def workload(self) -> Workload:
        """Return the 99 queries, with years and months of the seed."""
        with self._generator() as generator:
            texts = generator.execute("SELECT query_nr, query FROM tpcds_queries() ORDER BY query_nr").fetchall()
        return make_workload(self.name, dict(texts), seed=self.seed)

    def _copy(self, generator: Any, session: Session, table: str, types: Mapping[str, str]) -> None:
        listed = ", ".join(f"{column} {_postgresql_type(column_type)}" for column, column_type in types.items())
        with temporary_folder(cache_folder(), f"{self.name}-") as folder:
            path = folder / f"{table}.csv"
            generator.execute(f"COPY {table} TO '{path}' (FORMAT csv, HEADER)")
            create_from_file(session, table, listed, path)

    @property
    def _duckdb(self) -> Any:
        try:
            import duckdb
        except ImportError as error:
            raise DatasetError(self._missing("DuckDB")) from error
        return duckdb

    @contextmanager
    def _generator(self, *, scale: float | None = None) -> Iterator[Any]:
        """Give a DuckDB in memory with the tables of a scale, without rows if it is None."""
        duckdb = self._duckdb
        spec = find_spec(_EXTENSION)
        found = (
            []
            if spec is None or spec.origin is None
            else sorted(Path(spec.origin).parent.rglob(f"v{duckdb.__version__}/*.duckdb_extension"))
        )
        if not found:
            raise DatasetError(self._missing(f"the extension tpcds of DuckDB {duckdb.__version__}"))
        with closing(duckdb.connect()) as connection:
            connection.execute(f"LOAD '{found[0]}'")
            connection.execute(f"CALL dsdgen(sf={0 if scale is None else scale!r})")
            yield connection

    def _missing(self, what: str) -> str:
        return f"dataset {self.name!r} needs {what}; install it with: pip install 'pytest-pilotscope[tpcds]'"


def _postgresql_type(duckdb_type: str) -> str:
    """Return PostgreSQL's name of a type; integers of both sizes are `integer`, as in the specification."""
    if duckdb_type in ("BIGINT", "INTEGER"):
        return "integer"
    return {"VARCHAR": "text", "DATE": "date"}.get(duckdb_type, duckdb_type.lower().replace("decimal", "numeric"))
