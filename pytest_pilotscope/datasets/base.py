"""The protocol of a dataset: tables that can be loaded into an empty database, and the queries that belong to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from pytest_pilotscope.options.progress import ShowProgress
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.queries import Workload


class Dataset(Protocol):
    """
    Data with a workload.

    `name` is what users type, `database` the name of the database it is loaded into. `key` identifies the loaded bytes: it changes whenever
    they would (generator version, scale, seed, the source's checksum) and never otherwise, because the prepared database is cached by it.

    Optional: `references` are foreign keys that its tables do not declare ((table, column) -> the table whose key is `id`), and `dates` the
    columns that say when the rows of a table came (table -> column), for `--drift time`.
    """

    @property
    def name(self) -> str:
        """The name after `--db`."""

    @property
    def database(self) -> str:
        """Name of the database that it becomes, a lower-case identifier of at most 30 characters."""

    @property
    def key(self) -> str:
        """Identity of the loaded bytes, for the cache."""

    def load(self, session: Session) -> None:
        """
        Fill the empty database of `session`: tables, rows, constraints, indexes.

        The caller runs VACUUM and ANALYZE, with statistics that read every row.
        """

    def workload(self) -> Workload:
        """Return the queries, split into training, validation and test."""


@runtime_checkable
class ShowsProgress(Protocol):
    """A dataset that takes long to load and reports its progress to `show_progress`."""

    show_progress: ShowProgress
