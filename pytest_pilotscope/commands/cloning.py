"""`pilotscope clone`: make a dump of a database that one may only read, whole or a sample in which joins keep their rows."""

from __future__ import annotations

import argparse
import gzip
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from pytest_pilotscope.commands.given_server import given_server
from pytest_pilotscope.commands.output import show_json
from pytest_pilotscope.errors import DatasetError, UsageError, counted, named
from pytest_pilotscope.options import values
from pytest_pilotscope.places.privatefiles import open_private
from pytest_pilotscope.queries.predicates import quote_identifier

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.tables import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Clone:
    """The dump in `path`: the number of rows of each table, and each table that was left out with the reason."""

    path: Path
    role: str
    rows: Mapping[str, int]
    left_out: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sample:
    """The size of a sample: a `share` of the rows of each table, or at `most` so many of each."""

    share: float | None = None
    most: int | None = None

    @classmethod
    def read(cls, text: str) -> Sample:
        """Read `10%`, `0.1` or a number of rows; raise `argparse.ArgumentTypeError` for anything else."""
        try:
            if re.fullmatch(r"\d+", text):
                return cls(most=values.positive_int(text))
            share = values.share(text)
        except argparse.ArgumentTypeError:
            share = 0.0
        if not 0 < share <= 1:
            raise argparse.ArgumentTypeError(f"expected a share of the rows such as 10%, or a number of rows, got {values.shown(text)}")
        return cls(share=share)


def clone(address: str, output: Path, *, sample: Sample | None, seed: int, say: Callable[[str], None]) -> Clone:
    """
    Write a dump of the database of a connection string to `output` (gzipped if its name ends in .gz); nothing is written to the server.

    Tell `say` each table. Raise `UsageError` for a text that is no connection string and for a file that is there, `DatasetError` if the
    role may read no table or nothing can be written, and `ServerError` if the server or pg_dump fails.
    """
    from pytest_pilotscope.postgres.pgdump import begin_reading, schema_of, write_rows
    from pytest_pilotscope.postgres.sampling import sampled
    from pytest_pilotscope.postgres.tables import read_foreign_keys, read_tables

    if output.exists():
        raise UsageError(f"{output} is there already; name another file with -o")
    server = given_server(address)
    rows: dict[str, int] = {}
    with server.connect() as session:
        snapshot = begin_reading(session)
        tables = read_tables(session)
        hidden = [table for table in tables if table.hidden]
        readable = [table for table in tables if not table.hidden]
        if not readable:
            raise DatasetError(_nothing_to_read(tables, server.role, session.database))
        before, after = schema_of(server.dsn, session.server_version, snapshot, hidden)
        keys = read_foreign_keys(session, readable)
        taken = sampled(session, readable, keys, share=sample.share, most=sample.most, seed=seed) if sample is not None else {}
        with _written(output) as write:
            write(before)
            for table in (one for one in readable if not one.partitioned):
                rows[str(table)] = write_rows(session, table, taken.get(table.oid), write)
                say(f"{table}: {counted(rows[str(table)], 'row')}")
            write(after)
    return Clone(path=output, role=server.role, rows=rows, left_out={str(table): table.hidden or "" for table in hidden})


def show_clone(made: Clone, *, as_json: bool) -> None:
    """Show the number of rows, the tables that were left out, and the command that measures the clone."""
    if as_json:
        show_json(made)
        return
    click.echo(f"{made.path}: {counted(sum(made.rows.values()), 'row')} of {counted(len(made.rows), 'table')}")
    for name, reason in made.left_out.items():
        click.echo(f"left out: {name}, because of role {made.role!r}: {reason}")
    name, path = quote(made.path.name.partition(".")[0]), quote(str(made.path))
    click.echo(f"measure it with: pytest benchmarks --db {name} --dump {path} --queries-dir my_queries")


def _nothing_to_read(tables: Sequence[Table], role: str, database: str) -> str:
    """Return why there is nothing to clone, and the statements that change it."""
    if not tables:
        return f"database {database!r} has no tables; name another database in the connection string"
    reasons = named(f"{table}: {table.hidden}" for table in tables)
    schemas = ", ".join(quote_identifier(schema) for schema in sorted({table.schema for table in tables if not table.secured}))
    to = f"{schemas} TO {quote_identifier(role)}"
    remedy = (
        f"have the owner run GRANT USAGE ON SCHEMA {to}; GRANT SELECT ON ALL TABLES IN SCHEMA {to}"
        if schemas
        else "use a role that has BYPASSRLS"
    )
    return (
        f"role {role!r} may read no whole table of database {database!r} ({reasons}); {remedy}, or name another database in the connection "
        "string"
    )


@contextmanager
def _written(output: Path) -> Iterator[Callable[[bytes], object]]:
    """Give a function that writes a private file, which gets the name `output` at the end; raise DatasetError if that fails."""
    part = output.with_name(f"{output.name}.part")
    try:
        with open_private(part, "wb") as raw:
            if output.suffix == ".gz":
                with gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as file:
                    yield file.write
            else:
                yield raw.write
        os.replace(part, output)
    except OSError as error:
        raise DatasetError(f"{output} cannot be written: {error.strerror or error}; name another file with -o") from error
    finally:
        part.unlink(missing_ok=True)
