"""
Work on many machines: Dask workers, each with a PostgreSQL of its own that has the same data.

    with open_crew("local:2", database) as crew:
        for number, task in enumerate(tasks):
            crew.submit(str(number), work, task)
        for _ in tasks:
            key, result = crew.next()

A unit of work is a function of a `Place` and plain values. It must be possible to do it again, anywhere: Dask does, when a worker dies, and
so do we, when one takes much longer than the others while somebody has nothing to do.
"""

from __future__ import annotations

import logging
import queue
import re
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import PilotscopeError, ServerError, UsageError
from pytest_pilotscope.places.dsn import Dsn

if TYPE_CHECKING:
    from distributed import Client, Future

    from pytest_pilotscope.datasets.base import Dataset
    from pytest_pilotscope.provision.database import Database, PostgreSQLConfig

ANSWER_LIMIT_S = 10.0
WORKERS_LIMIT_S = 60.0
GOODBYE_LIMIT_S = 5.0
STRAGGLER = 2.0
"""A unit that takes more than this many times the median is tried a second time, where somebody is idle."""
LOOK_EVERY_S = 1.0
LEAST_STRAGGLER_S = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """
    What a worker needs to provision its server, and what its database must be: all that bears on plans, as a fingerprint.

    Each has a `name` of its own, since one crew's work may have changed the settings of its servers.
    """

    config: PostgreSQLConfig
    dataset: Dataset
    fingerprint: Mapping[str, str]
    name: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(slots=True, kw_only=True)
class Place:
    """Where units are done, one after the other: a database of the worker's own; `kept` is what one unit leaves there for the next."""

    database: Database
    stack: ExitStack
    kept: dict[str, Any] = field(default_factory=dict)


Work = Callable[[Place, Any], Any]


@dataclass(slots=True)
class _Unit:
    work: Work
    task: Any
    futures: list[Future] = field(default_factory=list)
    since_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _Failed:
    """What a unit raised, as text: not every exception can travel."""

    reason: str


class _NotFetched(Exception):
    """A unit is done, and its result is not to be had from the worker that did it."""


class Crew:
    """The workers of a scheduler, for one database."""

    def __init__(self, client: Client, opening: Opening, address: str) -> None:
        self._client = client
        self._address = address
        self._opening = opening  # sent with each unit: what is scattered can be lost with a worker
        self._units: dict[str, _Unit] = {}
        self._keys: dict[str, str] = {}
        self._done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._took_s: list[float] = []
        self._gone_since_s: float | None = None

    @property
    def size(self) -> int:
        """How many workers there are now, at least one."""
        return max(1, len(self._client.nthreads()))

    def submit(self, key: str, work: Work, task: Any) -> None:
        """Have a unit done; `key` is given back with its result."""
        unit = self._units[key] = _Unit(work, task)
        self._launch(key, unit)

    def next(self) -> tuple[str, Any]:
        """
        Wait for the next unit that is done, whichever it is; each is given back once.

        ServerError for what a unit raised, for one that took every worker down that tried it, for a scheduler that is gone, and when all
        workers have been gone for a while.
        """
        while True:
            try:
                future = self._done.get(timeout=LOOK_EVERY_S)
            except queue.Empty:
                self._look()
                continue
            self._gone_since_s = None
            key = self._keys[future.key]
            if key not in self._units or all(future is not ours for ours in self._units[key].futures):
                continue  # done already, perhaps with another unit of that key since
            try:
                return key, self._result(key, future)
            except _NotFetched:
                self._try_elsewhere(key, future)

    def close(self) -> None:
        """Give up what is not done yet, and have the workers stop their servers."""
        for unit in self._units.values():
            self._client.cancel(unit.futures, force=True)
        self._units.clear()
        if self._client.status == "running":
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        from distributed import TimeoutError

        try:
            self._client.run(leave_places, on_error="ignore", callback_timeout=GOODBYE_LIMIT_S)
        except TimeoutError:  # a machine that stands still: not what anybody should wait for
            logger.warning("not every Dask worker answers; one that does later stops its server then")

    def _launch(self, key: str, unit: _Unit, workers: list[str] | None = None) -> None:
        name = f"pilotscope-{uuid.uuid4().hex}"
        self._keys[name] = key
        future = self._client.submit(_do, self._opening, unit.work, unit.task, key=name, pure=False, workers=workers)
        unit.futures.append(future)
        future.add_done_callback(self._done.put)

    def _result(self, key: str, future: Future) -> Any:
        try:
            result = future.result(timeout=ANSWER_LIMIT_S)
        except Exception as error:
            if future.status in ("pending", "finished"):
                raise _NotFetched from error
            raise ServerError(
                f"unit {key!r} of the work on Dask was lost ({_why(future)}); what is done is kept: start again to go on"
            ) from error
        unit = self._units.pop(key)
        self._took_s.append(time.monotonic() - unit.since_s)
        for other in unit.futures:
            if other is not future:
                other.cancel(force=True)
        if isinstance(result, _Failed):
            raise ServerError(f"unit {key!r} of the work on Dask failed on its worker: {result.reason}")
        return result

    def _try_elsewhere(self, key: str, future: Future) -> None:
        """The worker that has the result died or stands still: see who is first, that one or another."""
        future.add_done_callback(self._done.put)
        has = {worker for workers in self._client.who_has([future]).values() for worker in workers}
        others = [worker for worker in self._client.nthreads() if worker not in has]
        if len(self._units[key].futures) == 1 and others:
            self._launch(key, self._units[key], workers=others)

    def _look(self) -> None:
        """See whether anybody is there, and whether somebody has nothing to do."""
        processing: dict[str, Any] = {}
        with suppress(OSError):  # a scheduler that is gone: every future says so
            processing = self._client.processing()
        if processing:
            self._gone_since_s = None
            self._help([worker for worker, keys in processing.items() if not keys])
            return
        self._gone_since_s = self._gone_since_s or time.monotonic()
        if time.monotonic() - self._gone_since_s > WORKERS_LIMIT_S:
            raise ServerError(
                f"all workers of the Dask scheduler at {self._address} have been gone for {WORKERS_LIMIT_S:.0f} s, and {len(self._units)} "
                f"units are left; what is done is kept: start some with: dask worker {self._address}, and start again to go on"
            )

    def _help(self, idle: list[str]) -> None:
        """Try the slowest unit again where somebody has nothing to do."""
        if not self._took_s or not self._units or not idle:
            return
        key, unit = min(self._units.items(), key=lambda item: item[1].since_s)
        age_s = time.monotonic() - unit.since_s
        if len(unit.futures) > 1 or age_s < max(LEAST_STRAGGLER_S, STRAGGLER * statistics.median(self._took_s)):
            return
        logger.info("unit %r takes %.0f s; it is tried on %s as well", key, age_s, idle[0])
        self._launch(key, unit, workers=idle[:1])


@contextmanager
def open_crew(address: str, database: Database) -> Iterator[Crew]:
    """
    The workers behind `--dask`, for units of work on the data of `database`: `local:N` starts N processes here, else a scheduler's address.

    Workers start their servers with the first unit and stop them on leaving. UsageError where there cannot be a server for each.
    """
    if database.config is None or database.dataset is None or isinstance(database.config.server, Dsn):
        raise UsageError("--dask gives every worker a server of its own with a dataset of the suite; use --server embedded or container")
    opening = Opening(config=database.config, dataset=database.dataset, fingerprint=database.fingerprint.as_mapping())
    with _client(address) as client:
        crew = Crew(client, opening, address)
        try:
            yield crew
        finally:
            crew.close()


@contextmanager
def _client(address: str) -> Iterator[Client]:
    try:
        from distributed import Client, LocalCluster, TimeoutError  # before Python 3.11 it is not the built-in one
    except ImportError as error:
        raise UsageError(f"--dask needs Dask ({error}); install it with: pip install 'pytest-pilotscope[dask]'") from error
    local = re.fullmatch(r"local:(\d+)", address)
    with ExitStack() as stack:
        where: Any = address
        if local:
            quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.ERROR}
            where = stack.enter_context(LocalCluster(n_workers=int(local[1]), threads_per_worker=1, processes=True, **quiet))
        try:
            client = stack.enter_context(Client(where, timeout=ANSWER_LIMIT_S, set_as_default=False))
        except (OSError, TimeoutError) as error:
            raise ServerError(f"no Dask scheduler answers at {address} ({error}); start one with: dask scheduler") from error
        try:
            client.wait_for_workers(1, timeout=WORKERS_LIMIT_S)
        except TimeoutError as error:
            raise ServerError(f"the Dask scheduler at {address} has no workers; start some with: dask worker {address}") from error
        yield client


_ONE_AT_A_TIME = threading.RLock()
"""Units share the worker's server, and what they measure: also where a worker has several threads, one is done after the other."""

_places: dict[str, Place] = {}


def _do(opening: Opening, work: Work, task: Any) -> Any:
    """On the worker: do a unit, at the place for it."""
    with _ONE_AT_A_TIME:
        try:
            return work(_place(opening), task)
        except PilotscopeError as error:
            return _Failed(f"{type(error).__name__}: {error}")


def _place(opening: Opening) -> Place:
    from pytest_pilotscope.provision.database import open_database

    if opening.name not in _places:
        _close_places()
        with ExitStack() as stack:
            database = stack.enter_context(open_database(opening.config, opening.dataset))
            found = database.fingerprint.as_mapping()
            different = sorted(part for part in found if found[part] != opening.fingerprint[part])
            if different:
                raise ServerError(
                    f"the worker's server has other {', '.join(different)} than the one that asks ({database.report.header()})"
                )
            _places[opening.name] = Place(database=database, stack=stack.pop_all())
    return _places[opening.name]


def leave_places() -> None:
    """On the worker: stop its servers once nothing is being done there. Returns at once: it is called where Dask itself must not wait."""
    threading.Thread(target=_close_places, daemon=True).start()


def _close_places() -> None:
    with _ONE_AT_A_TIME:
        for place in _places.values():
            place.stack.close()
        _places.clear()


def _why(future: Future) -> str:
    if future.status == "error":
        return str(future.exception())
    return f"it was {future.status}: the scheduler is gone, or somebody cancelled it"
