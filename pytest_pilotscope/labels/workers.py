"""Counting in several processes: subprocesses that share the column files, so that nothing is pickled and none outlives its parent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from pytest_pilotscope.errors import LabelError
from pytest_pilotscope.labels.columnstore import Column
from pytest_pilotscope.labels.memory import Memory
from pytest_pilotscope.labels.query_json import to_message
from pytest_pilotscope.labels.task import Task
from pytest_pilotscope.places.environment import COMPILING, clean_environment

_PACKAGES = str(Path(__file__).parents[2])
WORKER = ["-m", "pytest_pilotscope.labels.worker"]
"""Arguments with which Python starts as a worker."""


class Worker:
    """One counting process; a context manager that ends it."""

    def __init__(self, folder: Path, context: str, classes: Sequence[Sequence[Column]], memory_bytes: int) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        path = os.pathsep.join(filter(None, (_PACKAGES, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, *WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={
                **clean_environment(*COMPILING, "CC", "PILOTSCOPE_CACHE", "XDG_CACHE_HOME"),
                "PYTHONPATH": path,
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            },
        )
        self._opening = {"folder": str(folder), "context": context, "classes": classes, "memory_bytes": memory_bytes}

    def __enter__(self) -> Worker:
        self._send(self._opening)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                _close(stream)
        self._errors.close()

    def stop(self) -> None:
        """End the process at once; a `count` that waits for it raises."""
        self._process.kill()
        self._process.wait()

    def count(self, task: Task) -> list[int | None]:
        """Count the masks of a task; LabelError when the process ended instead."""
        self._send({"query": to_message(task.query), "masks": task.masks, "empty": task.empty})
        assert self._process.stdout is not None  # noqa: S101  # opened above
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        counted: list[int | None] = json.loads(line)
        return counted

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None  # noqa: S101  # opened above
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _ended(self) -> LabelError:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return LabelError(f"a labelling process ended with status {code}: {said[-1] if said else 'it said nothing (out of memory?)'}")


def count_all(
    tasks: Sequence[Task], *, processes: int, folder: Path, context: str, classes: Sequence[Sequence[Column]], memory: Memory
) -> Iterator[tuple[Task, list[int | None]]]:
    """Count tasks in several processes, which share the memory, and yield each as soon as it is done, in no particular order."""
    with ExitStack() as stack:
        idle = [stack.enter_context(Worker(folder, context, classes, memory.total_bytes // processes)) for _ in range(processes)]
        threads = stack.enter_context(ThreadPoolExecutor(max_workers=processes))
        running: dict[Future[list[int | None]], tuple[Worker, Task]] = {}
        waiting = list(reversed(tasks))
        try:
            while waiting or running:
                while waiting and idle:
                    worker, task = idle.pop(), waiting.pop()
                    running[threads.submit(worker.count, task)] = (worker, task)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    worker, task = running.pop(future)
                    idle.append(worker)
                    yield task, future.result()
        finally:
            for worker, _ in running.values():  # else leaving the block waits for the threads, which wait for answers
                worker.stop()


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:  # the process ended before it read everything
        return
