"""
From what the user asked for to a database that can be measured: a server, the dataset in it, and its fingerprint.

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

from pytest_pilotscope.errors import MissingExtension, MissingServer, UsageError
from pytest_pilotscope.places.dsn import Dsn, is_dsn

if TYPE_CHECKING:
    from pytest_pilotscope.datasets.base import Dataset
    from pytest_pilotscope.options.settings import Settings
    from pytest_pilotscope.postgres.fingerprint import Fingerprint
    from pytest_pilotscope.postgres.server import Server, ServerReport
    from pytest_pilotscope.postgres.session import Session

logger = logging.getLogger(__name__)

PROVIDERS = ("auto", "embedded", "container")


@dataclass(frozen=True, slots=True)
class PostgreSQLConfig:
    """
    Which database, on which PostgreSQL. `db=None` with a `dsn` is the database that the DSN names, as it is.

    `server` is `auto`, `embedded`, `container` or a DSN; `dsn` is another way to say the latter. `pg_bindir` and `pg_version` choose the
    embedded PostgreSQL, `settings` are PostgreSQL settings on top of the pinned ones, and the two of a container limit it. `data_dir` has a
    copy of a published dataset, `read_only` forbids to write anything to the server of the DSN. UsageError for what does not go together.
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
    read_only: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    container_memory_bytes: int | None = None
    container_cpus: float | None = None

    def __post_init__(self) -> None:
        from pytest_pilotscope.options.settings import checked

        for name in ("pg_version", "scale", "seed", "container_cpus"):
            checked(name, getattr(self, name))
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
        if self.read_only and not isinstance(chosen, Dsn):
            raise UsageError("--read-only is about a server of yours: name it with --server postgresql://user@host:port/database")
        if isinstance(chosen, Dsn) and self.settings:
            raise UsageError(f"the server {chosen} is not ours, so it cannot be started with {', '.join(sorted(self.settings))}")
        pointless = "--pg-bindir" if self.pg_bindir is not None else "--pg-version" if self.pg_version and isinstance(chosen, Dsn) else None
        if pointless and chosen not in ("auto", "embedded"):
            raise UsageError(f"{pointless} chooses nothing where the server is {str(chosen)!r}; leave one of the two out")
        if (self.container_memory_bytes or self.container_cpus) and chosen != "container":
            raise UsageError(
                f"--container-memory and --container-cpus limit a container, and the server is {str(chosen)!r}; add --server container"
            )

    @classmethod
    def from_settings(cls, settings: Settings, *, db: str | None) -> PostgreSQLConfig:
        """What the command line says, for one of its datasets."""
        return cls(
            db,
            server=settings.server,
            pg_bindir=settings.pg_bindir,
            pg_version=settings.pg_version,
            scale=settings.scale,
            seed=settings.seed,
            data_dir=settings.data_dir,
            container_memory_bytes=settings.container_memory_bytes,
            container_cpus=settings.container_cpus,
            read_only=settings.read_only,
        )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Provision the database, give a session in it, and stop the server afterwards if it is ours."""
        with open_database(self) as database, database.session() as session:
            yield session


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """
    A database to measure, named `name`, on `server`.

    `fingerprint` and `report` are as of opening. `pristine` is the idle database that copies are made from, or None when this database is
    the user's. `config` is what it was opened with. Sessions start with `session_settings`, in PostgreSQL's own units.
    """

    server: Server
    dataset: Dataset | None
    name: str
    fingerprint: Fingerprint
    report: ServerReport
    pristine: str | None = None
    config: PostgreSQLConfig | None = None
    session_settings: Mapping[str, str] = field(default_factory=dict)

    def session(self) -> Session:
        """A new session in this database; close it, or use it as a context manager."""
        from pytest_pilotscope.postgres.knobs import set_session_knobs

        session = self.server.connect(self.name)
        try:
            set_session_knobs(session, self.session_settings)
        except BaseException:
            session.close()
            raise
        return session

    def measuring_session(self) -> Session:
        """A session in which nothing can be written: a workload may change data unnoticed, and the database may be the user's."""
        return replace(self, session_settings={**self.session_settings, "default_transaction_read_only": "on"}).session()

    @contextmanager
    def copy(self) -> Iterator[Database]:
        """
        A copy of the data as it was loaded, with its statistics, that can be changed at will and is dropped on leaving.

        Sessions in this database may stay open, if there is something `pristine`. DatasetError when the server does not let us create
        databases.
        """
        from pytest_pilotscope.postgres.copies import temporary_copy

        with temporary_copy(self.server, self.pristine or self.name) as name:
            yield _described(self.server, self.dataset, name, self.pristine, self.config)

    @contextmanager
    def copyable(self) -> Iterator[Database]:
        """
        This database with something `pristine`: of the user's own an idle copy is made, which is dropped on leaving.

        DatasetError when the server does not let us create databases, and while somebody is connected to the user's.
        """
        from pytest_pilotscope.postgres.copies import temporary_copy

        if self.pristine is not None:
            yield self
            return
        with temporary_copy(self.server, self.name) as name:
            yield replace(self, pristine=name)

    @contextmanager
    def twin(self, settings: Mapping[str, str] | None = None) -> Iterator[Database]:
        """
        The same data on another server of the same kind, which is started with `settings` on top of its own and stopped on leaving.

        It can be restarted while sessions on this one stay open. UsageError when this server was not started here.
        """
        from pytest_pilotscope.postgres.server import Capability

        if self.config is None or Capability.RESTART not in self.server.capabilities:
            raise UsageError("the server was not started here, so there is no second one like it; use --server embedded or container")
        config = replace(self.config, settings={**self.config.settings, **(settings or {})})
        with open_database(config, self.dataset) as twin:
            yield twin


@contextmanager
def open_database(config: PostgreSQLConfig, dataset: Dataset | None = None) -> Iterator[Database]:
    """
    Provision a server with a dataset (made from `config.db` when it is not given) and give the database; what was started is stopped on
    leaving. On a server that was given, what a killed run had changed of its settings is put back first.

    MissingServer, ServerError, DatasetError and UnknownName say what is wrong and what to do.
    """
    from pytest_pilotscope.postgres.copies import make_copy, temporary_copy
    from pytest_pilotscope.postgres.knobs import restore_left_over
    from pytest_pilotscope.provision.loaded import load_database, pristine_name

    if dataset is None and config.db is not None:
        dataset = dataset_of(config)
    with ExitStack() as stack:
        server = open_server(config, dataset)
        stack.callback(server.stop)
        if server.provider == "given":  # before anything is read from its settings
            with server.connect() as session:
                restore_left_over(session)
        if dataset is None:
            with server.connect() as session:
                name = session.database
            yield _described(server, None, name, None, config)
            return
        load_database(server, dataset)
        pristine = pristine_name(dataset)
        if server.provider == "given":
            name = stack.enter_context(temporary_copy(server, pristine))
        else:  # it goes with the server
            name = dataset.database
            with server.connect() as keeper:
                make_copy(server, keeper, pristine, name)
        yield _described(server, dataset, name, pristine, config)


def dataset_of(config: PostgreSQLConfig) -> Dataset:
    """The registered dataset of `config.db`; UnknownName with the near matches."""
    from pytest_pilotscope.builtins import builtin_registry

    dataset: Dataset = (
        builtin_registry()
        .dataset(config.db or "")
        .resolve()(name=config.db, scale=config.scale, seed=config.seed, data_dir=config.data_dir)
    )
    return dataset


def open_server(config: PostgreSQLConfig, dataset: Dataset | None = None) -> Server:
    """Start or reach the server of `config`; an embedded one comes with `dataset` prepared."""
    if isinstance(config.server, Dsn):
        from pytest_pilotscope.postgres.given import GivenServer

        return GivenServer(config.server, read_only=config.read_only)
    if config.server == "container":
        return _container(config, why="--server container")
    try:
        return _embedded(config, dataset)
    except MissingServer as error:
        if config.server == "embedded" or config.pg_bindir is not None:
            raise
        return _container_instead(config, error)


def _embedded(config: PostgreSQLConfig, dataset: Dataset | None) -> Server:
    from pytest_pilotscope.postgres.binaries import find_binaries
    from pytest_pilotscope.postgres.embedded import EmbeddedServer
    from pytest_pilotscope.provision.loaded import prepared_template

    binaries = find_binaries(config.pg_bindir, config.pg_version)
    why = f"{binaries.origin}, --server {config.server}" if config.server != "auto" else f"{binaries.origin}, first choice of --server auto"
    template = prepared_template(dataset, binaries) if dataset is not None else None
    return EmbeddedServer(binaries, template=template, settings=config.settings, libraries=steering_libraries(binaries.bindir), why=why)


def steering_libraries(bindir: Path) -> tuple[Path, ...]:
    """The library that makes this PostgreSQL steerable; none, with a warning in the log, where it cannot be built."""
    from pytest_pilotscope.postgres.extension.build import build_library

    try:
        return (build_library(bindir),)
    except MissingExtension as error:
        logger.warning("%s; only what needs no steering can be measured", error)
        return ()


def _container_instead(config: PostgreSQLConfig, missing: MissingServer) -> Server:
    try:
        return _container(config, why=f"--server auto: {missing}")
    except MissingServer as error:
        raise MissingServer(f"nothing to start: {missing}; and no container: {error}") from error


def _container(config: PostgreSQLConfig, *, why: str) -> Server:
    from pytest_pilotscope.postgres.container import ContainerServer
    from pytest_pilotscope.postgres.containers import Limits
    from pytest_pilotscope.postgres.steering import has_extension

    limits = Limits(memory_bytes=config.container_memory_bytes, cpus=config.container_cpus)
    server = ContainerServer(version=config.pg_version, settings=config.settings, limits=limits, why=why)
    with server.connect() as session:
        if not has_extension(session):
            logger.warning(
                "image %s has no pilotscope library, so only what needs no steering can be measured; build one that has it from "
                "docker/postgres/Dockerfile and name it in PILOTSCOPE_IMAGE (docs/servers.md)",
                server.image,
            )
    return server


def _described(server: Server, dataset: Dataset | None, name: str, pristine: str | None, config: PostgreSQLConfig | None) -> Database:
    from pytest_pilotscope.postgres.fingerprint import fingerprint

    with server.connect(name) as session:
        found = fingerprint(session)
    report = replace(server.report(), statistics=found.statistics)
    return Database(server=server, dataset=dataset, name=name, fingerprint=found, report=report, pristine=pristine, config=config)
