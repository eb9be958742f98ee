"""A small database on which indexes and knobs matter: customers and their orders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pytest_pilotscope.algorithms.knob.tuning import KnobOptions
from pytest_pilotscope.algorithms.model_files import Metadata, schema_fingerprint
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database
from pytest_pilotscope.provision.writes import given_writes
from pytest_pilotscope.queries.queries import Query, Workload

_STATEMENTS = (
    "CREATE TABLE customers (id int PRIMARY KEY, city int, name text)",
    "CREATE TABLE orders (id int PRIMARY KEY, customer int, placed int, amount int, note text)",
    "INSERT INTO customers SELECT i, i % 97, 'customer ' || i FROM generate_series(1, 2000) AS i",
    "INSERT INTO orders SELECT i, i * 7 % 2000 + 1, i * 31 % 20011, i % 50, repeat('x', 60) FROM generate_series(1, 20000) AS i",
    "CREATE INDEX orders_by_amount ON orders (amount)",
    "CREATE INDEX customers_in_city ON customers (city) WHERE city < 5",
)
_TEMPLATES = (
    "SELECT count(*) FROM orders AS o WHERE o.placed BETWEEN {n} AND {n} + 20",
    "SELECT count(*) FROM customers AS c JOIN orders AS o ON o.customer = c.id WHERE c.city = {n} AND c.id < 1000",
    "SELECT sum(amount) FROM orders WHERE customer = {n}",
)


@dataclass(frozen=True, kw_only=True)
class Shop:
    """2000 customers and 20,000 orders; secondary indexes that no query uses."""

    name: str = "shop"
    database: str = "shop"
    key: str = "shop-1"

    def load(self, session: Session) -> None:
        """Make and fill the tables."""
        for statement in _STATEMENTS:
            session.execute(statement)

    def workload(self) -> Workload:
        """Twelve training queries, three for validation, three for testing."""
        train, validation, test = (tuple(_queries(split, numbers)) for split, numbers in (("l", range(1, 5)), ("v", [7]), ("t", [9])))
        return Workload(dataset=self.name, train=train, validation=validation, test=test)


def _queries(split: str, numbers: range | list[int]) -> Iterator[Query]:
    for number in numbers:
        for position, template in enumerate(_TEMPLATES):
            yield Query(id=f"{split}{number}-{position}", sql=template.format(n=number))


@contextmanager
def training(
    name: str, database: Database, folder: Path, *, options: Mapping[str, object] | None = None, **settings: object
) -> Iterator[Training]:
    """Make the argument of `train`, with some settings and options that are not the default."""
    workload = Shop().workload()
    chosen = Settings(**{"results": folder / "results", **settings})  # type: ignore[arg-type]
    with database.session() as session:
        yield Training(
            algorithm=name,
            dataset="shop",
            queries=workload.train,
            validation=workload.validation,
            writes=given_writes(chosen),
            database=database,
            session=session,
            settings=chosen,
            options=builtin_registry().options(name, {name: options or {}}),
            folder=folder,
            progress=silent,
        )


def knob_options(**chosen: Any) -> KnobOptions:
    """The default options of knob tuning with some other ones."""
    return replace(KnobOptions(**builtin_registry().options("knob", {}), seed=0), **chosen)


def metadata_for(given: Training, model_id: str) -> Metadata:
    """Return the metadata of a model of this database."""
    schema = schema_fingerprint(given.schema)
    return Metadata(model_id=model_id, data_fingerprint=given.data_fingerprint, schema_fingerprint=schema, training={})
