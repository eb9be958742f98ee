"""
Run tasks on Dask workers, each with its own PostgreSQL that has the same data.

    with open_pool("local:2", database) as pool:
        for number, argument in enumerate(arguments):
            pool.submit(str(number), function, argument)
        for _ in arguments:
            key, result = pool.next()

A task calls a function with a `Worker` and one picklable value. Every worker must be able to repeat it: Dask repeats it when a worker dies,
and the pool runs it a second time when it takes much longer than the others while a worker is idle.
"""

from __future__ import annotations

import logging
import queue
import re
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import PilotscopeError, ServerError, UsageError
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.postgres.process import temporary_folder

if TYPE_CHECKING:
    from distributed import Client, Future

    from pytest_pilotscope.datasets.base import Dataset
    from pytest_pilotscope.provision.database import Database, PostgreSQLConfig

ANSWER_LIMIT_S = 10.0
WORKERS_LIMIT_S = 60.0
STOP_LIMIT_S = 5.0
STRAGGLER = 2.0
"""A task that takes more than this many times the median is run a second time, on an idle worker."""
LOOK_EVERY_S = 1.0
LEAST_STRAGGLER_S = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSetup:
    """
    The configuration of a worker's server, and the fingerprint that its database must have.

    Each has a `name` of its own: tasks of one pool may have changed the settings of their servers, so the next pool starts new ones.
    """

    config: PostgreSQLConfig
    dataset: Dataset
    fingerprint: Mapping[str, str]
    name: str = field(default_factory=lambda: uuid.uuid4().hex)


@dataclass(slots=True, kw_only=True)
class Worker:
    """A worker that runs tasks one after the other on its own database; `kept` holds values that one task leaves for the next."""

    database: Database
    stack: ExitStack
    kept: dict[str, Any] = field(default_factory=dict)


TaskFunction = Callable[[Worker, Any], Any]


@dataclass(slots=True)
class _Task:
    function: TaskFunction
    argument: Any
    futures: list[Future] = field(default_factory=list)
    since_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class _Failed:
    """The exception of a task, as text: not every exception can be pickled."""

    reason: str


class _NotFetched(Exception):
    """The worker that holds the result of a finished task does not answer."""


class WorkerPool:
    """The workers of a Dask scheduler, for one database."""

    def __init__(self, client: Client, setup: WorkerSetup, address: str) -> None:
        self._client = client
        self._address = address
        self._setup = setup  # sent with each task: scattered data can be lost with a worker
        self._tasks: dict[str, _Task] = {}
        self._keys: dict[str, str] = {}
        self._done: queue.SimpleQueue[Future] = queue.SimpleQueue()
        self._took_s: list[float] = []
        self._gone_since_s: float | None = None

    @property
    def size(self) -> int:
        """The number of workers now, at least one."""
        return max(1, len(self._client.nthreads()))

    def submit(self, key: str, function: TaskFunction, argument: Any) -> None:
        """Submit a task; `next` returns `key` with its result."""
        task = self._tasks[key] = _Task(function, argument)
        self._launch(key, task)

    def next(self) -> tuple[str, Any]:
        """
        Wait for any task to finish and return its key and result; each task is returned once.

        Raise ServerError when a task failed, when it took down every worker that ran it, when the scheduler is gone, and when all workers
        have been gone for `WORKERS_LIMIT_S`.
        """
        while True:
            try:
                future = self._done.get(timeout=LOOK_EVERY_S)
            except queue.Empty:
                self._look()
                continue
            self._gone_since_s = None
            key = self._keys[future.key]
            if key not in self._tasks or all(future is not ours for ours in self._tasks[key].futures):
                continue  # returned already; a new task may have its key by now
            try:
                return key, self._result(key, future)
            except _NotFetched:
                self._retry_on_another_worker(key, future)

    def close(self) -> None:
        """Cancel unfinished tasks and make the workers stop their servers."""
        for task in self._tasks.values():
            self._client.cancel(task.futures, force=True)
        self._tasks.clear()
        if self._client.status == "running":
            self._stop_servers()

    def _stop_servers(self) -> None:
        from distributed import TimeoutError

        try:
            self._client.run(stop_server, on_error="ignore", callback_timeout=STOP_LIMIT_S)
        except TimeoutError:  # do not wait for a machine that hangs
            logger.warning("not every Dask worker answers; each stops its server as soon as it answers again")

    def _launch(self, key: str, task: _Task, workers: list[str] | None = None) -> None:
        name = f"pilotscope-{uuid.uuid4().hex}"
        self._keys[name] = key
        future = self._client.submit(_run, self._setup, task.function, task.argument, key=name, pure=False, workers=workers)
        task.futures.append(future)
        future.add_done_callback(self._done.put)

    def _result(self, key: str, future: Future) -> Any:
        try:
            result = future.result(timeout=ANSWER_LIMIT_S)
        except Exception as error:
            if future.status in ("pending", "finished"):
                raise _NotFetched from error
            raise ServerError(f"task {key!r} on Dask was lost ({_why(future)}); finished tasks are kept: start again to go on") from error
        task = self._tasks.pop(key)
        self._took_s.append(time.monotonic() - task.since_s)
        for other in task.futures:
            if other is not future:
                other.cancel(force=True)
        if isinstance(result, _Failed):
            raise ServerError(f"task {key!r} on Dask failed on its worker: {result.reason}")
        return result

    def _retry_on_another_worker(self, key: str, future: Future) -> None:
        """Run a task again when the worker that holds its result died or hangs; the first answer of the two counts."""
        future.add_done_callback(self._done.put)
        has = {worker for workers in self._client.who_has([future]).values() for worker in workers}
        others = [worker for worker in self._client.nthreads() if worker not in has]
        if len(self._tasks[key].futures) == 1 and others:
            self._launch(key, self._tasks[key], workers=others)

    def _look(self) -> None:
        """Check that there are workers, and give idle ones the slowest task."""
        processing: dict[str, Any] = {}
        with suppress(OSError):  # the scheduler is gone: every future reports it
            processing = self._client.processing()
        if processing:
            self._gone_since_s = None
            self._help([worker for worker, keys in processing.items() if not keys])
            return
        self._gone_since_s = self._gone_since_s or time.monotonic()
        if time.monotonic() - self._gone_since_s > WORKERS_LIMIT_S:
            raise ServerError(
                f"all workers of the Dask scheduler at {self._address} have been gone for {WORKERS_LIMIT_S:.0f} s, and {len(self._tasks)} "
                f"tasks are left; finished tasks are kept: start workers with: dask worker {self._address}, and start again to go on"
            )

    def _help(self, idle: list[str]) -> None:
        """Run the slowest task a second time, on an idle worker."""
        if not self._took_s or not self._tasks or not idle:
            return
        key, task = min(self._tasks.items(), key=lambda item: item[1].since_s)
        age_s = time.monotonic() - task.since_s
        if len(task.futures) > 1 or age_s < max(LEAST_STRAGGLER_S, STRAGGLER * statistics.median(self._took_s)):
            return
        logger.info("task %r has taken %.0f s; %s runs it, too", key, age_s, idle[0])
        self._launch(key, task, workers=idle[:1])


@contextmanager
def open_pool(address: str, database: Database) -> Iterator[WorkerPool]:
    """
    Open the pool of `--dask` for tasks on the data of `database`: `local:N` starts N processes here, else `address` is a scheduler's.

    Workers start their servers with the first task and stop them at the end of the block. Raise UsageError when workers cannot have servers
    of their own.
    """
    if database.config is None or database.dataset is None or isinstance(database.config.server, Dsn):
        raise UsageError("--dask gives every worker a server of its own with a dataset of the suite; use --server embedded or container")
    setup = WorkerSetup(config=database.config, dataset=database.dataset, fingerprint=database.fingerprint.as_mapping())
    with _client(address) as client:
        pool = WorkerPool(client, setup, address)
        try:
            yield pool
        finally:
            pool.close()


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
            folder = stack.enter_context(temporary_folder(Path(tempfile.gettempdir()), "pilotscope-dask-"))  # Dask leaves its own behind
            there = {"local_directory": str(folder)}
            quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.ERROR, "scheduler_kwargs": there, **there}
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
"""Tasks share the worker's server and would disturb each other's measurements: even a worker with several threads runs one at a time."""

_workers: dict[str, Worker] = {}
"""The worker of this process by the name of its setup; at most one."""


def _run(setup: WorkerSetup, function: TaskFunction, argument: Any) -> Any:
    """Run a task, in the worker's process."""
    with _ONE_AT_A_TIME:
        try:
            return function(_worker(setup), argument)
        except PilotscopeError as error:
            return _Failed(f"{type(error).__name__}: {error}")


def _worker(setup: WorkerSetup) -> Worker:
    from pytest_pilotscope.provision.database import open_database

    if setup.name not in _workers:
        _close_workers()
        with ExitStack() as stack:
            database = stack.enter_context(open_database(setup.config, setup.dataset))
            found = database.fingerprint.as_mapping()
            different = sorted(part for part in found if found[part] != setup.fingerprint[part])
            if different:
                raise ServerError(
                    f"the worker's server has other {', '.join(different)} than the server of the run ({database.report.header()})"
                )
            _workers[setup.name] = Worker(database=database, stack=stack.pop_all())
    return _workers[setup.name]


def stop_server() -> None:
    """Stop the server of this worker's process after the running task. Return at once: Dask calls this where it must not wait."""
    threading.Thread(target=_close_workers, daemon=True).start()


def _close_workers() -> None:
    with _ONE_AT_A_TIME:
        for worker in _workers.values():
            worker.stack.close()
        _workers.clear()


def _why(future: Future) -> str:
    if future.status == "error":
        return str(future.exception())
    return f"it was {future.status}: the scheduler is gone, or somebody cancelled it"
