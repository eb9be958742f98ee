"""Fixtures that more than one folder of tests needs: real servers, empty databases, the data beside the checkout."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
from _pytest.pytester import SysModulesSnapshot

from pytest_pilotscope.errors import MissingServer, ServerError
from pytest_pilotscope.postgres.binaries import Binaries, available_binaries
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.extension.build import TRIED_MAJORS, build_library
from pytest_pilotscope.postgres.session import Session

hypothesis.settings.register_profile("suite", deadline=None)  # a machine that pauses is no failure
hypothesis.settings.load_profile("suite")

UNTRIED = tuple(binaries.major for binaries in available_binaries() if binaries.major > TRIED_MAJORS[-1])
MAJORS = (*dict.fromkeys(UNTRIED), 18, 16, 15)
"""PostgreSQL versions that tests run against: 18 and 16 from the pip package, 15 of Debian 12; newer ones where they are installed."""

ENDS = (*UNTRIED, 18, 15)
"""The newest and the oldest; what runs on a version between them is marked `slow`."""

WHOLE_RUNS = (
    "test_readme",
    "test_ci_jobs",
    "test_gate",
    "test_compare",
    "test_workload",
    "test_third_party",
    "test_index_and_knob",
    "test_remote",
    "test_parallel",
    "test_stopped",
    "test_somebody_elses",
    "test_broken",
)
"""Files whose tests start whole runs, by the beginning of their names: few tests that take long."""

PLACES = {name: os.environ.get(name) for name in ("PILOTSCOPE_CACHE", "XDG_CACHE_HOME", "HOME")}
"""The variables that decide where the cache folder is, before any test changes them."""

ServerOf = Callable[[int], EmbeddedServer]
LibraryOf = Callable[[EmbeddedServer], Path]
_names = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    """Leave the order of files to us, and Ctrl-C to Python: a shell that starts a program in the background makes it deaf to SIGINT."""
    config.option.loadscopereorder = False  # pytest-xdist would begin with the files of many tests and end waiting for one of few
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left with one at the end."""
    items.sort(key=lambda item: not item.path.name.startswith(WHOLE_RUNS))


class FoldersOnly:
    """Puts back the folders that modules are imported from, and leaves the finders."""

    def __init__(self) -> None:
        self._folders = list(sys.path)

    def restore(self) -> None:
        """Put them back."""
        sys.path[:] = self._folders


@pytest.fixture(autouse=True)
def store_of_the_test_only() -> Iterator[None]:
    """Forget the store that MLflow notes in the environment of this process when a whole run is within it."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    if before is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = before


@pytest.fixture(scope="session", autouse=True)
def libraries_stay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """
    Let pytester forget only the modules of its projects.

    By itself it forgets everything that is imported during its tests. A library that was imported in part is then there twice, and one
    half does not know the classes of the other; MLflow cannot even be imported twice. Nor may it forget the finders that a library has
    put in the place of Python's own: `importlib_metadata` does so, and without one no package has a version.
    """
    projects = str(tmp_path_factory.getbasetemp())

    def stays(name: str) -> bool:
        module = sys.modules[name]
        return module is not None and not str(getattr(module, "__file__", None)).startswith(projects)

    def snapshot(preserve: object = None) -> SysModulesSnapshot:
        return SysModulesSnapshot(preserve=stays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("_pytest.pytester.SysModulesSnapshot", snapshot)
        patch.setattr("_pytest.pytester.SysPathsSnapshot", FoldersOnly)
        yield


def _binaries(major: int) -> Binaries:
    for binaries in available_binaries():
        if binaries.major == major:
            return binaries
    pytest.skip(f"no PostgreSQL {major} on this machine")


@pytest.fixture(scope="session")
def server_of() -> Iterator[ServerOf]:
    """
    A function from a major version to one running server, started at the first call and shared by the whole session.

    It may be called first while a test has a cache folder of its own, which ends with that test. The server must not be in there.
    """
    running: dict[int, EmbeddedServer] = {}

    def get(major: int) -> EmbeddedServer:
        if major not in running:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in PLACES.items():
                    patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
                running[major] = EmbeddedServer(_binaries(major), why="for the tests")
        return running[major]

    yield get
    for server in running.values():
        server.stop()


@pytest.fixture(
    scope="session", params=[pytest.param(major, id=f"pg{major}", marks=[pytest.mark.slow] * (major not in ENDS)) for major in MAJORS]
)
def server(request: pytest.FixtureRequest, server_of: ServerOf) -> EmbeddedServer:
    """A running embedded server, once for every PostgreSQL version there is; do not restart or stop it."""
    return server_of(request.param)


@pytest.fixture(scope="session")
def newest_server(server_of: ServerOf) -> EmbeddedServer:
    """The running embedded server of the default version, for what does not depend on the version; do not restart or stop it."""
    newest = next(available_binaries(), None)
    if newest is None:
        pytest.skip(str(MissingServer("no PostgreSQL on this machine")))
    return server_of(newest.major)


@pytest.fixture(scope="session")
def library_of() -> LibraryOf:
    """
    A function from a running server to the library built for it, in the server's own folder.

    The cache that a library is built in may be closed to the account that servers run as.
    """

    @functools.cache
    def get(server: EmbeddedServer) -> Path:
        return server._placed(build_library(server.binaries.bindir))

    return get


_EVERY_TABLE = """
    SELECT string_agg(format('%I', relname), ', ') FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
"""
_CATALOGS = """
    SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND NOT relisshared
    AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'oid')
"""
_RIGHTS = """
    SELECT datacl, datconnlimit, datallowconn, shobj_description(oid, 'pg_database'),
        ARRAY(SELECT setconfig::text FROM pg_db_role_setting WHERE setdatabase = pg_database.oid),
        ARRAY(SELECT (oid, nspacl)::text FROM pg_namespace ORDER BY oid),
        (SELECT md5(string_agg((oid, relacl)::text, '' ORDER BY oid)) FROM pg_class),
        (SELECT md5(string_agg((oid, proacl)::text, '' ORDER BY oid)) FROM pg_proc)
    FROM pg_database WHERE datname = current_database()
"""


class EmptyDatabases:
    """Empty databases of a server. One that can be emptied without a trace is used again: making one takes longer than most tests."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._server = server
        self._free: list[str] = []
        self._rights: list[tuple[object, ...]] = []

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session in an empty database."""
        with self._server.connect() as administrator:
            name = self._free.pop() if self._free else self._new(administrator)
            with self._server.connect(name) as session:
                yield session
            administrator.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
            if self._emptied(name):
                self._free.append(name)
            else:
                administrator.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _new(self, administrator: Session) -> str:
        name = f"scratch_{next(_names)}"
        administrator.execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")  # faster than by way of the log
        if not self._rights:
            with self._server.connect(name) as session:
                self._rights = session.execute(_RIGHTS)
        return name

    def _emptied(self, name: str) -> bool:
        """Drop the tables of a database; tell whether it is then as one that was just made."""
        try:
            with self._server.connect(name) as session:
                session.execute("SET lock_timeout = '5s'")
                if tables := session.scalar(_EVERY_TABLE):
                    session.execute(f"DROP TABLE {tables} CASCADE")
                made = " UNION ALL ".join(f"SELECT FROM {catalog} WHERE oid >= 16384" for (catalog,) in session.execute(_CATALOGS))
                return session.execute(_RIGHTS) == self._rights and not session.scalar(f"SELECT EXISTS ({made})")
        except ServerError:
            return False


EmptyDatabasesOf = Callable[[EmbeddedServer], EmptyDatabases]


@pytest.fixture(scope="session")
def empty_databases() -> EmptyDatabasesOf:
    """Return a function from a server to its empty databases."""
    return functools.cache(EmptyDatabases)


@pytest.fixture
def scratch(server: EmbeddedServer, empty_databases: EmptyDatabasesOf) -> Iterator[Session]:
    """A session in an empty database of its own, once for every PostgreSQL version there is."""
    with empty_databases(server).session() as session:
        yield session


@pytest.fixture(scope="module")
def module_scratch(server: EmbeddedServer, empty_databases: EmptyDatabasesOf) -> Iterator[Session]:
    """Like `scratch`, but one database for all tests of a module."""
    with empty_databases(server).session() as session:
        yield session


@pytest.fixture
def newest_scratch(newest_server: EmbeddedServer, empty_databases: EmptyDatabasesOf) -> Iterator[Session]:
    """A session in an empty database of its own on the default PostgreSQL version."""
    with empty_databases(newest_server).session() as session:
        yield session


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference data beside the checkout; skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no reference data: {folder} is not there")
    return folder


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of cases beside the checkout; skips where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip(f"no cases: {folder} is not there")
    return folder


@contextmanager
def _cache_folder() -> Iterator[Path]:
    """Make an empty folder that every account can enter (pytest's own folders are closed to the one that servers run as)."""
    with tempfile.TemporaryDirectory(prefix="pilotscope-test-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder."""
    with _cache_folder() as folder:
        monkeypatch.setenv("PILOTSCOPE_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """One cache folder for all tests of a file, so that its whole runs load the data once."""
    with _cache_folder() as folder:
        yield folder


@pytest.fixture
def prepared_cache(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure with the cache `prepared`, a store in the folder of the run, and as nobody's worker."""
    monkeypatch.setenv("PILOTSCOPE_CACHE", str(prepared))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
