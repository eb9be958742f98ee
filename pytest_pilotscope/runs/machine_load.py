"""The load of the machine that measures, for the record."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_pilotscope.record.results import MachineLoad

_STAT = Path("/proc/stat")
_STEAL, _GUEST = 7, 8  # the times of a guest are in those of a user, too


def machine_load(stat: Path = _STAT) -> MachineLoad | None:
    """Return the present load; None where the operating system does not tell."""
    if not hasattr(os, "getloadavg"):
        return None
    try:
        average = os.getloadavg()[0]
    except OSError:
        return None
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    stolen_s, elapsed_s = _processor_times(stat)
    return MachineLoad(processors=processors, load_average=average, stolen_s=stolen_s, elapsed_s=elapsed_s)


def _processor_times(stat: Path) -> tuple[float | None, float | None]:
    """Return the time since the start of the machine that all processors were kept from it, and all their time; None without Linux."""
    try:
        first = stat.read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None, None
    ticks = [int(text) for text in first[1 : _GUEST + 1]]
    second = os.sysconf("SC_CLK_TCK")
    return (ticks[_STEAL] / second, sum(ticks) / second) if len(ticks) > _STEAL else (None, None)
