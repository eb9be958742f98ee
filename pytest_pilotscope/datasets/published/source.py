"""The description of a published dataset: its address, tables and foreign keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Tables = Mapping[str, Mapping[str, str]]
"""Table -> column -> type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """
    One published dataset.

    `url` and `sha256` are of an archive that holds a dump of PostgreSQL. `tables` is the layout of the CSV files, which are named like
    the tables (in any case) and which PostgreSQL reads with the options `csv`; `header` tells whether their first line has names.
    Every table has the primary key `id`. `references` are the foreign keys: (table, column) -> table. An archive whose content is larger
    than `limit_bytes` is refused. `queries` says where the published queries are.
    """

    name: str
    url: str
    sha256: str
    tables: Tables
    references: Mapping[tuple[str, str], str]
    csv: str
    header: bool
    limit_bytes: int
    queries: str

    @property
    def archive(self) -> str:
        """The file name of the archive."""
        return self.url.rsplit("/", 1)[-1]
