"""A dump of the user's own database, as a dataset."""

from __future__ import annotations

import hashlib
import logging
import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.datasets.published.byte_progress import WHOLE
from pytest_pilotscope.datasets.published.download import sha256_of
from pytest_pilotscope.datasets.published.dump import restore
from pytest_pilotscope.datasets.published.dump_text import dump_files, is_dump, is_of_cluster
from pytest_pilotscope.errors import DatasetError, MissingWorkload, named
from pytest_pilotscope.options.progress import ShowProgress, silent
from pytest_pilotscope.queries.predicates import quote_identifier

if TYPE_CHECKING:
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.queries.queries import Workload

VERSION = 1
"""Part of the key: raise it when the same dump would be restored differently."""

_LONGEST = 30  # characters of the name of a database

_SCHEMAS = """
    SELECT nspname::text FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'
    ORDER BY nspname <> 'public', nspname
"""

logger = logging.getLogger(__name__)


class DumpedDataset:
    """The tables in a dump of pg_dump (SQL, maybe gzipped; custom, directory or tar format), under the `name` that the user gives it."""

    def __init__(self, *, name: str, path: Path) -> None:
        if not path.exists():
            raise DatasetError(f"there is no dump {path}; make it with pg_dump or pilotscope clone, and name it with --dump")
        if not (path.is_dir() or path.is_file()) or not is_dump(path):  # reading a pipe that nobody fills would never end
            raise DatasetError(f"{path} is no dump of PostgreSQL; --dump names a file or folder that pg_dump or pilotscope clone has made")
        if is_of_cluster(path):
            raise DatasetError(f"{path} is of pg_dumpall, with all databases of a server; make a dump of a single database with pg_dump")
        self.name = name
        self.path = path
        self.show_progress: ShowProgress = silent

    @property
    def database(self) -> str:
        """The name, as far as the name of a database may have it."""
        return re.sub(r"\W", "_", self.name.lower(), flags=re.ASCII)[:_LONGEST]

    @cached_property
    def key(self) -> str:
        """The checksum of the files."""
        digest = hashlib.sha256()
        for path in dump_files(self.path):
            digest.update(f"{path.name if self.path.is_dir() else ''}\0{sha256_of(path)}\0".encode())
        return f"dump-v{VERSION}-{digest.hexdigest()}"

    def load(self, session: Session) -> None:
        """Restore the tables without a superuser's rights, name what was left out, and put every schema into the search path."""
        left_out: list[str] = []
        with self.show_progress(f"loading {self.name}, in %", WHOLE) as advance:
            restore(session, self.path, advance, left_out)
        if left_out:
            logger.warning(
                "%s: only tables are restored, with the indexes and constraints that hold for them alone; left out: %s",
                self.path,
                named(left_out),
            )
        schemas = [quote_identifier(name) for (name,) in session.execute(_SCHEMAS)]
        if schemas != ['"public"']:
            session.execute(f"ALTER DATABASE {quote_identifier(session.database)} SET search_path TO {', '.join(schemas)}")

    def workload(self) -> Workload:
        """Raise `MissingWorkload`: a dump has no queries."""
        raise MissingWorkload(f"the dump {self.path} has no queries; name yours with --queries-dir")
