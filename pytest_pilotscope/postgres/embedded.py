"""
Start PostgreSQL without installation, root or Docker: in a private folder, on a private socket, and never longer than this process lives.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pytest_pilotscope.errors import ServerError
from pytest_pilotscope.places.account import server_account
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.places.privatefiles import private_folder
from pytest_pilotscope.postgres.binaries import Binaries, reachable_binaries
from pytest_pilotscope.postgres.clustercache import ClusterCache
from pytest_pilotscope.postgres.clusters import SUPERUSER, ServerFolder, check_version, copy_cluster
from pytest_pilotscope.postgres.connecting import IDENTITY, connect, dsn_of
from pytest_pilotscope.postgres.largefiles import changed_files, lock_of
from pytest_pilotscope.postgres.pinned import base_settings, configuration, quoted_list
from pytest_pilotscope.postgres.process import Postmaster, Watchdog
from pytest_pilotscope.postgres.server import Capability, Provider, Server
from pytest_pilotscope.postgres.session import Session

logger = logging.getLogger(__name__)

PORT = 5432
"""Part of the socket's file name only: the folder is private and nothing listens on TCP."""


class EmbeddedServer(Server):
    """
    A running server on a copy of `template` (a stopped cluster), or on a new, empty cluster. It may use large files of a template in place.

    `settings` are on top of the pinned ones, `libraries` are loaded into every session, `why` says in the report how this server was
    chosen. Raises ServerError when it does not start, with the end of its log; then nothing is left behind.
    """

    provider: Provider = "embedded"
    capabilities = frozenset(Capability)

    def __init__(
        self,
        binaries: Binaries,
        *,
        template: Path | None = None,
        settings: Mapping[str, str] | None = None,
        libraries: Sequence[Path] = (),
        why: str = "",
    ) -> None:
        self._account = server_account()
        self.binaries = reachable_binaries(binaries, self._account)
        self.why = why or str(binaries)
        self._settings = dict(settings or {})
        self._token = secrets.token_hex()
        self._template = template or ClusterCache(self._account).empty(self.binaries)
        check_version(self._template, self.binaries)
        with lock_of(self._template) as holding:
            self._watchdog = Watchdog(holding)  # before there is anything to be left behind
        self._in_place = bool(holding)
        self._postmaster: Postmaster | None = None
        self._stopped = False
        try:
            self._folder = ServerFolder(self._account, self._watchdog)
            self._sockets = self._folder.sockets
            self._fill()
            self._libraries = [self._placed(library) for library in libraries]
            self._start(self._settings)
            with self.connect() as session:
                self.version_num = session.server_version
        except BaseException:
            self.stop()
            raise

    def __repr__(self) -> str:
        return f"EmbeddedServer({self.binaries}, {self._folder.data})"

    @property
    def data_folder(self) -> Path:
        """The data directory, gone after `stop`."""
        return self._folder.data

    @property
    def log(self) -> Path:
        """The server's log, gone after `stop`."""
        return self._folder.log

    @property
    def pid(self) -> int:
        """Process id of PostgreSQL itself, not of its watchdog."""
        assert self._postmaster is not None  # noqa: S101  # it was started with this object
        return self._postmaster.pid

    @property
    def dsn(self) -> Dsn:
        """The connection string; there is no password, only the private folder of the socket."""
        return dsn_of(host=str(self._sockets), port=PORT, user=SUPERUSER, options="")

    def connect(self, database: str | None = None) -> Session:
        """Open a session of the superuser in `database`, or in the empty database `postgres`."""
        return connect(self.dsn, token=self._token, dbname=database or "postgres")

    def restart(self, settings: Mapping[str, str]) -> None:
        """Restart with `settings` on top of the pinned ones, in place of those of the last restart; put the old ones back when it fails."""
        text = configuration(settings)  # refuses bad names before anything is stopped
        if self._postmaster is not None:
            self._postmaster.stop()
        try:
            self._start(settings)
        except ServerError as error:
            self._start(self._settings)
            raise ServerError(f"the old settings are back, these were refused: {text.strip()!r}: {error}") from error
        self._settings = dict(settings)

    def stop(self, *, keep_data: Path | None = None) -> None:
        """Shut down cleanly and delete everything, except that the data directory of a new cluster is moved to `keep_data` if given."""
        if self._stopped:
            return
        self._stopped = True
        try:
            if self._postmaster is not None and keep_data is not None:
                self._postmaster.stop()
                self._folder.data.rename(keep_data)
        finally:
            self._watchdog.end()
        if changed := self.changed_data():
            logger.warning("%s; the next run makes the prepared data directory again", changed)

    def changed_data(self) -> str:
        """Return the files of the loaded data that this run has changed, if it uses them where they are."""
        changed = changed_files(self._template.parent) if self._in_place else []
        many = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        return f"this run has changed tables or indexes of the loaded data in {self._template}: file {changed[0]}{many}" if changed else ""

    def _fill(self) -> None:
        copy_cluster(self._template, self._folder.data, self._account, in_place=self._in_place)
        if changed := changed_files(self._template.parent):  # since the cache has given it to us
            raise ServerError(
                f"another run has changed the prepared data directory {self._template} while it was copied: file {changed[0]}; "
                "start again, and it is made again"
            )

    def _placed(self, library: Path) -> Path:
        """Copy `library` to where the server's account can read it."""
        target = self._folder.path / "lib" / library.name
        private_folder(target.parent, 0o755)
        shutil.copyfile(library, target)
        target.chmod(0o755)
        return target

    def _start(self, settings: Mapping[str, str]) -> None:
        path = self._folder.path / "postgresql.conf"
        preloaded = {"session_preload_libraries": quoted_list(self._libraries)} if self._libraries else {}
        path.write_text(configuration({**base_settings(self._sockets), **preloaded, **settings, IDENTITY: self._token}))
        path.chmod(0o644)  # in a folder that only the server's account can enter
        command: list[str | Path] = [self.binaries.program, "-D", self._folder.data, "-c", f"config_file={path}"]
        self._postmaster = Postmaster(self._watchdog, command, log=self._folder.log, account=self._account)
        self._postmaster.wait_until_ready(lambda: self.connect().close())
