"""What is known about a published dataset: where it is, what its tables are, and what refers to what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Tables = Mapping[str, Mapping[str, str]]
"""Table -> column -> type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """
    One published dataset.

    `url` and `sha256` are of an archive with a dump of PostgreSQL in it. `tables` is the layout of its CSV files, whose names are those of
    the tables (in any case) and whose rows PostgreSQL reads with the options `csv`; `header` says whether their first line has names.
    Every table has the primary key `id`. `references` are its foreign keys: (table, column) -> table. An archive whose content is larger
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
