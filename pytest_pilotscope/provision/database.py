"""
Open the database that the user asked for: start or reach a server, load the dataset, take its fingerprint.

    with open_database(PostgreSQLConfig(db="stats_tiny")) as database, database.session() as session:
        ...
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import MissingExtension, MissingServer, UnknownName, UsageError
from pytest_pilotscope.places.dsn import Dsn, is_dsn

if TYPE_CHECKING:
    from pytest_pilotscope.datasets.base import Dataset
    from pytest_pilotscope.options.settings import Settings
    from pytest_pilotscope.postgres.binaries import Binaries
    from pytest_pilotscope.postgres.fingerprint import Fingerprint
    from pytest_pilotscope.postgres.server import Server, ServerReport
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.registry import Registry

logger = logging.getLogger(__name__)

PROVIDERS = ("auto", "embedded", "container")


@dataclass(frozen=True, slots=True)
class PostgreSQLConfig:
    """
    A database and the PostgreSQL that has it. `db=None` with a `dsn` is the database that the DSN names, as it is.

    `server` is `auto`, `embedded`, `container` or a DSN; `dsn` is another way to give a DSN. `pg_bindir` and `pg_version` choose the
    embedded PostgreSQL, `settings` are PostgreSQL settings on top of the pinned ones, sessions start with `session_settings`, the two of a
    container limit it. `data_dir` has a copy of a published dataset; `dump` is a dump of a database of the user's, to be called `db`.
    `allow_changes` are the kinds of changes allowed on the server of the DSN, `databases` and `settings`; `read_only` forbids to write
    anything there. Contradictory values raise UsageError.
    """

    db: str | None = "stats_tiny"
    _: KW_ONLY
    dsn: str | Dsn | None = None
    server: str | Dsn = "auto"
    pg_bindir: Path | None = None
    pg_version: int | None = None
    scale: float | None = None
    seed: int = 0
    data_dir: Path | None = None
    dump: Path | None = None
    read_only: bool = False
    allow_changes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    session_settings: Mapping[str, str] = field(default_factory=dict)
    container_memory_bytes: int | None = None
    container_cpus: float | None = None

    def __post_init__(self) -> None:
        from pytest_pilotscope.options.settings import checked

        for name in ("pg_version", "scale", "seed", "container_cpus", "allow_changes"):
            object.__setattr__(self, name, checked(name, getattr(self, name)))
        chosen = self.dsn if self.dsn is not None else self.server
        if isinstance(chosen, str) and (chosen is self.dsn or is_dsn(chosen)):
            chosen = Dsn(chosen)  # from here on its password shows nowhere
        object.__setattr__(self, "dsn", chosen if isinstance(chosen, Dsn) else None)
        object.__setattr__(self, "server", chosen)
        if not isinstance(chosen, Dsn) and chosen not in PROVIDERS:
            raise UsageError(
                f"unknown server {chosen!r}; known: {', '.join(PROVIDERS)}, or a connection string postgresql://user@host:port/database"
            )
        if self.db is None and not isinstance(chosen, Dsn):
            raise UsageError(
                "a server that is started here has no database of its own; name a dataset with --db, or give a DSN with --server"
            )
        if self.dump is not None:
            object.__setattr__(self, "dump", Path(self.dump))
            self._check_dump(self.dump)
        if self.read_only and not isinstance(chosen, Dsn):
            raise UsageError("--read-only needs a server of yours: name it with --server postgresql://user@host:port/database")
        if isinstance(chosen, Dsn) and self.settings:
            raise UsageError(f"the server {chosen} was not started here, so it cannot be restarted with {', '.join(sorted(self.settings))}")
        pointless = "--pg-bindir" if self.pg_bindir is not None else "--pg-version" if self.pg_version and isinstance(chosen, Dsn) else None
        if pointless and chosen not in ("auto", "embedded"):
            raise UsageError(f"{pointless} has no effect on the server {str(chosen)!r}; leave one of the two out")
        if (self.container_memory_bytes or self.container_cpus) and chosen != "container":
            raise UsageError(
                f"--container-memory and --container-cpus limit a container, and the server is {str(chosen)!r}; add --server container"
            )

    def _check_dump(self, dump: Path) -> None:
        pointless = "--data-dir" if self.data_dir is not None else "--scale" if self.scale is not None else None
        if pointless:
            raise UsageError(f"{pointless} has no effect on the dump {dump}; leave one of the two out")
        if self.db is None:
            raise UsageError(f"the data of the dump {dump} needs a name; give it one with --db")

    @classmethod
    def from_settings(cls, settings: Settings, *, db: str | None) -> PostgreSQLConfig:
        """Return the configuration that the command line gives for one of its datasets."""
        return cls(
            db,
            server=settings.server,
            pg_bindir=settings.pg_bindir,
            pg_version=settings.pg_version,
            scale=settings.scale,
            seed=settings.seed,
            data_dir=settings.data_dir,
            dump=settings.dump,
            container_memory_bytes=settings.container_memory_bytes,
            container_cpus=settings.container_cpus,
            read_only=settings.read_only,
            allow_changes=settings.allow_changes,
            session_settings=settings.session_settings,
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Provision the database, give a session in it, and afterwards stop the server if it was started here."""
        with open_database(self) as database, database.session() as session:
            yield session


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """
    A database to measure, named `name`, on `server`.

    `fingerprint` and `report` are as of opening. `copy_source` is the idle database that copies are made from, or None when this database
    is the user's. It was opened with `config`. Sessions start with `session_settings`, in PostgreSQL's own units. `variants` are the
    databases of the sides of `--variant`, by name.
    """

    server: Server
    dataset: Dataset | None
    name: str
    fingerprint: Fingerprint
    report: ServerReport
    copy_source: str | None = None
    config: PostgreSQLConfig | None = None
    session_settings: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, Database] = field(default_factory=dict)

    def session(self) -> Session:
        """Open a session in this database; close it, or use it as a context manager."""
        from pytest_pilotscope.postgres.knobs import set_session_knobs

        session = self.server.connect(self.name)
        try:
            set_session_knobs(session, self.session_settings)
        except BaseException:
            session.close()
            raise
        return session

    def measuring_session(self) -> Session:
        """Open a session that cannot write: a workload may change data unnoticed, and the database may be the user's."""
        session = self.session()
        session.refuse_writing()
        return session

    @contextmanager
    def copy(self) -> Iterator[Database]:
        """
        Copy the data as it was loaded, with its statistics, give the copy to be changed at will, and drop it at the end of the block.

        Sessions in this database may stay open if it has a `copy_source`. Raise DatasetError when databases may not be made here.
        """
        from pytest_pilotscope.postgres.databases import temporary_copy

        with temporary_copy(self.server, self.copy_source or self.name) as name:
            copy = _described(self.server, self.dataset, name, self.copy_source, self.config)
            yield replace(copy, session_settings=self.session_settings)

    @contextmanager
    def copyable(self) -> Iterator[Database]:
        """
        Give this database with a `copy_source`: that of the user's own database is an idle copy, dropped at the end of the block.

        Raise DatasetError when databases may not be made here, and while somebody is connected to the user's database.
        """
        from pytest_pilotscope.postgres.databases import temporary_copy

        if self.copy_source is not None:
            yield self
            return
        with temporary_copy(self.server, self.name) as name:
            yield replace(self, copy_source=name)

    @contextmanager
    def twin(self, settings: Mapping[str, str] | None = None) -> Iterator[Database]:
        """
        Start another server of the same kind with the same data and indexes, and `settings` on top of its own; stop it at the end of the
        block.

        It can be restarted while sessions on this one stay open. Raise UsageError when this server was not started here.
        """
        from pytest_pilotscope.postgres.fingerprint import fingerprint
        from pytest_pilotscope.postgres.indexes import match_indexes
        from pytest_pilotscope.postgres.server import Capability

        if self.config is None or Capability.RESTART not in self.server.capabilities:
            raise UsageError("the server was not started here, so there is no second one like it; use --server embedded or container")
        chosen = settings or {}
        others = {name: value for name, value in self.session_settings.items() if name not in chosen}
        config = replace(self.config, settings={**self.config.settings, **chosen})
        with open_database(config, self.dataset) as twin:
            with self.session() as ours, twin.session() as theirs:
                if match_indexes(ours, theirs):
                    twin = replace(twin, fingerprint=fingerprint(theirs))
            yield replace(twin, session_settings=others)


@contextmanager
def open_database(config: PostgreSQLConfig, dataset: Dataset | None = None) -> Iterator[Database]:
    """
    Provision a server with a dataset (that of `config.db` when it is None) and give the database; stop a server started here at the end.

    On a given server, first put back the settings that a killed run had changed. Raise MissingServer, ServerError, DatasetError or
    UnknownName.
    """
    from pytest_pilotscope.postgres.databases import make_copy, our_name, temporary_copy
    from pytest_pilotscope.postgres.knobs import restore_left_over
    from pytest_pilotscope.provision.loading import load_database, loaded_name

    if dataset is None and config.db is not None:
        dataset = dataset_of(config)
    with ExitStack() as stack:
        server = open_server(config, dataset)
        stack.callback(server.stop)
        if server.provider == "given":  # before anything is read from its settings
            restore_left_over(server)
        if dataset is None:
            with server.connect() as session:
                name = session.database
            yield _described(server, None, name, None, config)
            return
        source, name = loaded_name(dataset), our_name(dataset.database)
        if server.provider != "embedded":  # that one started on a data directory with both
            load_database(server, dataset)
        if server.provider == "given":
            name = stack.enter_context(temporary_copy(server, source))
        elif server.provider == "container":  # the copy is deleted with its server
            with server.connect() as keeper:
                make_copy(server, keeper, source, name)
        yield _described(server, dataset, name, source, config)


def dataset_of(config: PostgreSQLConfig, registry: Registry | None = None) -> Dataset:
    """
    Return the registered dataset of `config.db`, or the one in its dump.

    Raise UnknownName with the near matches, and UsageError for a dump under the name of a registered dataset.
    """
    from pytest_pilotscope.builtins import builtin_registry

    registry, name = registry or builtin_registry(), config.db or ""
    if config.dump is not None:
        from pytest_pilotscope.datasets.dumped import DumpedDataset

        if name in {entry.name for entry in registry.datasets}:
            raise UsageError(f"{name!r} is a dataset with data of its own; give the data of the dump {config.dump} another name with --db")
        return DumpedDataset(name=name, path=config.dump)
    known = {entry.name for entry in registry.datasets}
    if name not in known:
        yours = f"name a database of yours with --server postgresql://HOST/{name}, or its dump with --dump"
        raise UnknownName("dataset", name, known, otherwise=yours)
    dataset: Dataset = registry.dataset(name).resolve()(name=name, scale=config.scale, seed=config.seed, data_dir=config.data_dir)
    return dataset


def open_server(config: PostgreSQLConfig, dataset: Dataset | None = None) -> Server:
    """Start or reach the server of `config`; an embedded one starts with `dataset` loaded."""
    if isinstance(config.server, Dsn):
        from pytest_pilotscope.postgres.given import GivenServer

        return GivenServer(config.server, read_only=config.read_only, allow_changes=config.allow_changes)
    if config.server == "container":
        return _container(config, why="--server container")
    from pytest_pilotscope.postgres.binaries import find_binaries

    try:
        binaries = find_binaries(config.pg_bindir, config.pg_version)
    except MissingServer as error:
        if config.server == "embedded" or config.pg_bindir is not None:
            raise
        return _container_instead(config, error)
    return _embedded(config, binaries, dataset)


def _embedded(config: PostgreSQLConfig, binaries: Binaries, dataset: Dataset | None) -> Server:
    from pytest_pilotscope.postgres.embedded import EmbeddedServer
    from pytest_pilotscope.provision.loading import prepared_cluster

    why = f"{binaries.origin}, --server {config.server}" if config.server != "auto" else f"{binaries.origin}, first choice of --server auto"
    template = prepared_cluster(dataset, binaries) if dataset is not None else None
    return EmbeddedServer(binaries, template=template, settings=config.settings, libraries=steering_libraries(binaries.bindir), why=why)


def steering_libraries(bindir: Path) -> tuple[Path, ...]:
    """Return the library that makes this PostgreSQL steerable; none, with a warning in the log, where it cannot be built."""
    from pytest_pilotscope.postgres.extension.build import build_library

    try:
        return (build_library(bindir),)
    except MissingExtension as error:
        logger.warning("%s; only algorithms that do not steer can be measured", error)
        return ()


def _container_instead(config: PostgreSQLConfig, missing: MissingServer) -> Server:
    try:
        return _container(config, why=f"--server auto: {missing}")
    except MissingServer as error:
        raise MissingServer(f"nothing to start: {missing}; and no container: {error}") from error


def _container(config: PostgreSQLConfig, *, why: str) -> Server:
    from pytest_pilotscope.postgres.container_server import ContainerServer
    from pytest_pilotscope.postgres.containers import Limits
    from pytest_pilotscope.postgres.steering import has_extension

    limits = Limits(memory_bytes=config.container_memory_bytes, cpus=config.container_cpus)
    server = ContainerServer(version=config.pg_version, settings=config.settings, limits=limits, why=why)
    with server.connect() as session:
        if not has_extension(session):
            logger.warning(
                "image %s has no pilotscope library, so only algorithms that do not steer can be measured; build one that has it from "
                "docker/postgres/Dockerfile and name it in PILOTSCOPE_IMAGE (docs/servers.md)",
                server.image,
            )
    return server


def _described(server: Server, dataset: Dataset | None, name: str, source: str | None, config: PostgreSQLConfig | None) -> Database:
    from pytest_pilotscope.postgres.fingerprint import fingerprint

    with server.connect(name) as session:
        found = fingerprint(session)
    report = replace(server.report(), statistics=found.statistics)
    return Database(
        server=server,
        dataset=dataset,
        name=name,
        fingerprint=found,
        report=report,
        copy_source=source,
        config=config,
        session_settings=dict(config.session_settings) if config is not None else {},
    )
