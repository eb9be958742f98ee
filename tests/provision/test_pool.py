"""Units of work on real Dask workers, each a process with a PostgreSQL of its own."""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from pytest_pilotscope.errors import DatasetError, ServerError, UsageError
from pytest_pilotscope.labels import cardinalities, read_schema
from pytest_pilotscope.places.dsn import Dsn
from pytest_pilotscope.provision import pool as cluster
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.provision.pool import Worker, WorkerPool, open_pool
from pytest_pilotscope.queries.queries import Query
from tests.postgres.children import wait_for_end
from tests.toy import Toy

JOIN = "SELECT count(*) FROM a JOIN b ON b.a = a.id WHERE a.id < %d"


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Open the toy dataset on an embedded server."""
    with open_database(PostgreSQLConfig("toy", server="embedded"), Toy()) as opened:
        yield opened


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Return the address of a scheduler with two worker processes."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL
    ) as local:
        yield str(local.scheduler_address)


def where(worker: Worker, number: int) -> tuple[int, int, str]:
    """Count something, and say where: process, PostgreSQL's process, and the count's text."""
    with worker.database.session() as session:
        counted = session.scalar(JOIN % number)
        return os.getpid(), int(session.scalar("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")), str(counted)


def dies_once(worker: Worker, task: tuple[int, Path]) -> tuple[int, str]:
    """Like `where`, but the first one that gets number 3 kills its process, after it has written down which PostgreSQL it had."""
    number, note = task
    process, checkpointer, counted = where(worker, number)
    if number == 3 and not note.exists():
        note.write_text(str(checkpointer))
        os.kill(process, signal.SIGKILL)
    return process, counted


def hangs_once(worker: Worker, task: tuple[int, Path]) -> int:
    """Give the number back; the first one that gets number 3 waits for what never comes."""
    number, note = task
    if number == 3 and not note.exists():
        note.write_text("")
        threading.Event().wait(300)
    return number


def freezes_once(worker: Worker, task: tuple[int, Path]) -> int:
    """Give the number back; the first process that gets number 3 stands still, as a machine may that swaps or has lost its network."""
    number, note = task
    if number == 3 and not note.exists():
        note.write_text(str(os.getpid()))
        os.kill(os.getpid(), signal.SIGSTOP)
    return number


def freezes_afterwards(worker: Worker, task: tuple[int, Path]) -> int:
    """Give the number back; the first process that gets one stands still soon after."""
    number, note = task
    with suppress(FileExistsError):
        note.touch(exist_ok=False)
        note.write_text(str(os.getpid()))
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGSTOP)).start()
    return number


def wait_until_stopped(note: Path) -> int:
    """Return the process whose number is in `note`, once it hangs."""
    for _ in range(300):
        time.sleep(0.1)
        if note.exists() and (pid := note.read_text()) and "(stopped)" in Path(f"/proc/{pid}/status").read_text():
            return int(pid)
    raise AssertionError("no process stood still")


def fails(worker: Worker, number: int) -> int:
    """Raise what a unit may raise."""
    raise DatasetError(f"number {number} is not to be had")


@pytest.mark.slow
def test_every_worker_has_its_own_server(database: Database, scheduler: str) -> None:
    """Two processes, two servers, none of them ours; every unit comes back once; afterwards the servers are gone."""
    with open_pool(scheduler, database) as pool:
        assert pool.size == 2
        for number in range(8):
            pool.submit(str(number), where, number)
        results = dict(pool.next() for _ in range(8))
    with database.session() as session:
        assert {int(key): int(counted) for key, (_, _, counted) in results.items()} == {n: session.scalar(JOIN % n) for n in range(8)}
        ours = session.scalar("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
    processes = {process for process, _, _ in results.values()}
    checkpointers = {checkpointer for _, checkpointer, _ in results.values()}
    assert len(processes) == len(checkpointers) == 2
    assert os.getpid() not in processes
    assert ours not in checkpointers
    assert all(wait_for_end(checkpointer) for checkpointer in checkpointers)


def test_a_killed_worker(database: Database, scheduler: str, tmp_path: Path) -> None:
    """Another worker repeats its task, nothing is lost or doubled, and its PostgreSQL does not outlive it."""
    note = tmp_path / "note"
    with open_pool(scheduler, database) as pool:
        for number in range(8):
            pool.submit(str(number), dies_once, (number, note))
        results = [pool.next() for _ in range(8)]
    assert wait_for_end(int(note.read_text()))
    assert sorted(int(key) for key, _ in results) == list(range(8))
    with database.session() as session:
        assert {int(key): int(counted) for key, (_, counted) in results} == {n: session.scalar(JOIN % n) for n in range(8)}


@pytest.mark.slow
def test_a_straggler_does_not_block_the_end(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A unit that hangs is done by somebody who is idle; workers can be processes of our own."""
    monkeypatch.setattr(cluster, "LEAST_STRAGGLER_S", 0.0)
    with open_pool("local:2", database) as pool:
        for number in range(4):
            pool.submit(str(number), hangs_once, (number, tmp_path / "note"))
        assert sorted(pool.next() for _ in range(4)) == [(str(number), number) for number in range(4)]


@pytest.mark.slow
def test_a_worker_that_stands_still(
    database: Database, scheduler: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The other worker repeats its task, and nobody waits for it at the end."""
    monkeypatch.setattr(cluster, "LEAST_STRAGGLER_S", 0.0)
    monkeypatch.setattr(cluster, "STOP_LIMIT_S", 0.5)
    note = tmp_path / "note"
    try:
        with open_pool(scheduler, database) as pool:
            for number in range(4):
                pool.submit(str(number), freezes_once, (number, note))
            results = sorted(pool.next() for _ in range(4))
    finally:
        os.kill(int(note.read_text()), signal.SIGKILL)  # Dask starts it again
    assert results == [(str(number), number) for number in range(4)]
    assert [message for _, level, message in caplog.record_tuples if level == logging.WARNING and "Dask" in message] == [
        "not every Dask worker answers; each stops its server as soon as it answers again"
    ]


@pytest.mark.slow
def test_a_result_that_cannot_be_fetched(database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A worker stood still before its result was fetched: another one does the unit."""
    if sys.platform != "linux":
        pytest.skip("whether a process stands still is read from /proc (Linux)")
    monkeypatch.setattr(cluster, "ANSWER_LIMIT_S", 1.0)
    monkeypatch.setattr(cluster, "STOP_LIMIT_S", 0.5)
    note = tmp_path / "note"
    with open_pool("local:2", database) as pool:
        pool.submit("0", freezes_afterwards, (0, note))
        frozen = wait_until_stopped(note)
        try:
            assert pool.next() == ("0", 0)
        finally:
            os.kill(frozen, signal.SIGKILL)


def test_a_failing_task(database: Database, scheduler: str) -> None:
    """Its exception arrives as text, with the key of the task."""
    expected = "task 'one' on Dask failed on its worker: DatasetError: number 7 is not to be had"
    with open_pool(scheduler, database) as pool:
        pool.submit("one", fails, 7)
        with pytest.raises(ServerError, match=f"^{re.escape(expected)}$"):
            pool.next()


def test_a_worker_with_other_data(database: Database, scheduler: str) -> None:
    """It does nothing."""
    other = dataclasses.replace(database, fingerprint=dataclasses.replace(database.fingerprint, data="other", build="too"))
    expected = (
        r"^task '1' on Dask failed on its worker: ServerError: the worker's server has other build, data than the server of the run "
        r"\(embedded PostgreSQL .*\)$"
    )
    with open_pool(scheduler, other) as pool:
        pool.submit("1", where, 1)
        with pytest.raises(ServerError, match=expected):
            pool.next()


def test_nobody_answers(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The address and what to start are in the message."""
    monkeypatch.setattr(cluster, "ANSWER_LIMIT_S", 0.5)
    expected = r"^no Dask scheduler answers at tcp://127\.0\.0\.1:9 \(.*\); start one with: dask scheduler$"
    with pytest.raises(ServerError, match=expected), open_pool("tcp://127.0.0.1:9", database):
        pass


@pytest.mark.slow
def test_nobody_works(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler without workers is said to be one, at the start, and when the last one has gone for good."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "WORKERS_LIMIT_S", 1.0)
    local = distributed.LocalCluster(n_workers=0, threads_per_worker=1, dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL)
    with local:
        address = local.scheduler_address
        none = f"the Dask scheduler at {address} has no workers; start some with: dask worker {address}"
        with pytest.raises(ServerError, match=f"^{re.escape(none)}$"), open_pool(address, database):
            pass
        monkeypatch.setattr(cluster, "WORKERS_LIMIT_S", 30.0)
        local.scale(1)
        gone = (
            f"all workers of the Dask scheduler at {address} have been gone for 0 s, and 2 tasks are left; finished tasks are kept: "
            f"start workers with: dask worker {address}, and start again to go on"
        )
        with open_pool(address, database) as pool:
            local.scale(0)
            local.sync(local._correct_state)
            monkeypatch.setattr(cluster, "WORKERS_LIMIT_S", 0.0)
            for number in range(2):
                pool.submit(str(number), where, number)
            with pytest.raises(ServerError, match=f"^{re.escape(gone)}$"):
                pool.next()


def test_one_server_for_all_is_refused(database: Database) -> None:
    """Times taken side by side on one server would be noise."""
    config = dataclasses.replace(PostgreSQLConfig("toy"), server=Dsn("postgresql://me@db/x"))
    expected = "--dask gives every worker a server of its own with a dataset of the suite; use --server embedded or container"
    with (
        pytest.raises(UsageError, match=f"^{re.escape(expected)}$"),
        open_pool("local:1", dataclasses.replace(database, config=config)),
    ):
        pass


@pytest.mark.slow
def test_labels(database: Database, scheduler: str, tmp_path: Path) -> None:
    """The workers count what PostgreSQL has to count, and no count is repeated after an interruption."""
    queries = [Query(id=f"q{n}", sql=f"SELECT count(*) FROM a, b WHERE a.id < b.a + {n} AND a.v = {n}") for n in range(4)]
    asked: list[str] = []

    class Watched(WorkerPool):
        """A pool that is interrupted after some tasks."""

        def __init__(self, pool: WorkerPool, limit: int) -> None:
            self.pool, self.limit = pool, limit

        def submit(self, key: str, work: Any, task: Any) -> None:
            asked.append(task[0][0])
            self.pool.submit(key, work, task)

        def next(self) -> tuple[str, Any]:
            if self.limit == 0:
                raise KeyboardInterrupt
            self.limit -= 1
            return self.pool.next()

    with database.session() as session:
        options: dict[str, Any] = {"schema": read_schema(session), "fingerprint": database.fingerprint.data}
        with open_pool(scheduler, database) as pool, pytest.raises(KeyboardInterrupt):
            cardinalities(session, queries, cache_dir=tmp_path / "there", pool=lambda: nullcontext(Watched(pool, 2)), **options)
        assert len(asked) == 4
        with open_pool(scheduler, database) as pool:
            labels = cardinalities(session, queries, cache_dir=tmp_path / "there", pool=lambda: nullcontext(Watched(pool, 9)), **options)
        assert len(asked) == 6
        here = cardinalities(session, queries, cache_dir=tmp_path / "here", **options)
    assert {key: dict(found) for key, found in labels.items()} == {key: dict(found) for key, found in here.items()}
