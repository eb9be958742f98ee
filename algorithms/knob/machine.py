"""Memory and processors that a server may use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pytest_pilotscope.algorithms.knob.catalogue import GB, Machine
from pytest_pilotscope.postgres.knobs import KnobRow

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def this_machine() -> Machine:
    """Return this machine, within the limits of the container we may be in."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [int(text) for path in _CGROUP_LIMITS if path.exists() and (text := path.read_text().strip()).isdigit()]
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Machine(memory_bytes=min([memory_bytes, *limits]), cpus=cpus)


def within(machine: Machine, memory_bytes: int | None, cpus: float | None) -> Machine:
    """Return the part of a machine that a container with these limits has; at least one processor."""
    return replace(
        machine,
        memory_bytes=min(machine.memory_bytes, memory_bytes or machine.memory_bytes),
        cpus=max(1, min(machine.cpus, int(cpus or machine.cpus))),
    )


def machine_behind(rows: Mapping[str, KnobRow]) -> Machine:
    """
    Guess the machine of a remote server from its settings: 4 times its shared_buffers, at least 1 GB, and its parallel workers.

    A quarter of the memory is what PostgreSQL's documentation recommends for shared_buffers, so the guess is rather too small.
    """
    buffers, workers = rows.get("shared_buffers"), rows.get("max_parallel_workers_per_gather")
    buffer_bytes = int(buffers.value) * (buffers.unit_bytes or 1) if buffers is not None else 0
    return Machine(memory_bytes=max(4 * buffer_bytes, GB), cpus=max(int(workers.value) if workers is not None else 0, 2))
