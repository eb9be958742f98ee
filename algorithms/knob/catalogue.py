"""
The knobs that are tuned: a curated list for analytical queries, each with its reason.

The list has no knob that trades durability away, whatever it would gain, none that only helps writing, none that affects only JIT or huge
pages, and none that needs ANALYZE to act (default_statistics_target).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

MB = 1 << 20
GB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The bounds of memory and parallelism: `memory_bytes` that the server may use, `cpus`, and the size of the data."""

    memory_bytes: int
    cpus: int
    data_bytes: int = 1 << 62


Bound = Callable[[Machine], float]
"""A limit in bytes for amounts of memory, else in the knob's own unit."""


def fixed(value: float) -> Bound:
    """Return a limit that is the same on every machine."""
    return lambda machine: value


def share(part: float, most: float = float("inf")) -> Bound:
    """Return a limit that is a share of the machine's memory, in bytes, and never more than `most`."""
    return lambda machine: min(machine.memory_bytes * part, most)


def buffers(machine: Machine) -> float:
    """Return four times the data, beyond which a cache only takes longer to set up; 40 % of the memory at most."""
    return min(0.4 * machine.memory_bytes, max(4 * machine.data_bytes, 256 * MB))


def processors(machine: Machine) -> float:
    """Return the number of processors, and 8 at most."""
    return min(machine.cpus, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """
    One knob of the list. `low` and `high` are our limits, within PostgreSQL's own; the value in force is always allowed.

    `special` is a value that means something else than its neighbours (0 switches a feature off). `parent` names a knob, and `active` the
    value of it under which this knob has an effect; None stands for every value of the parent that is not special. A `coarse` knob is only
    halved and doubled: neighbouring values make no difference, and settings that share the value need no restart.
    """

    why: str
    low: Bound | None = None
    high: Bound | None = None
    log: bool = False
    coarse: bool = False
    special: int | None = None
    parent: str | None = None
    active: str | None = None


_PARALLEL = "max_parallel_workers_per_gather"

CATALOGUE: Mapping[str, Entry] = {
    "shared_buffers": Entry(
        why="PostgreSQL's own cache: tables and indexes in it are read without a system call",
        low=fixed(16 * MB),
        high=buffers,
        log=True,
        coarse=True,
    ),
    "work_mem": Entry(
        why="memory of each sort and hash before it goes to disk; with little of it the planner avoids hashing",
        low=fixed(1 * MB),
        high=share(1 / 16, 2 * GB),
        log=True,
    ),
    "hash_mem_multiplier": Entry(why="memory of a hash table, in multiples of work_mem", low=fixed(1), high=fixed(8), log=True),
    "effective_cache_size": Entry(
        why="the planner's guess of the data in memory: index scans look cheaper with more",
        low=fixed(64 * MB),
        high=share(1),
        log=True,
    ),
    "effective_io_concurrency": Entry(
        why="pages that bitmap scans request in advance; 0 requests none", low=fixed(1), high=fixed(512), log=True, special=0
    ),
    "io_combine_limit": Entry(why="size of one read", low=fixed(32 << 10), high=fixed(128 << 10)),
    "io_method": Entry(why="reader of pages: the backend itself, or separate processes"),
    "io_workers": Entry(why="number of reading processes", low=fixed(1), high=fixed(16), log=True, parent="io_method", active="worker"),
    "bgwriter_lru_maxpages": Entry(
        why="a separate process writes pages that reading has changed (hint bits), or, with 0, the query that needs the buffer does",
        low=fixed(10),
        high=fixed(1000),
        log=True,
        special=0,
    ),
    "bgwriter_delay": Entry(
        why="time between two rounds of that process", low=fixed(10), high=fixed(1000), log=True, parent="bgwriter_lru_maxpages"
    ),
    "random_page_cost": Entry(
        why="index scans against sequential ones; 4 is for disks, and data in memory has no random pages",
        low=fixed(0.5),
        high=fixed(8),
        log=True,
    ),
    "cpu_tuple_cost": Entry(why="processing a row against reading its page", low=fixed(0.001), high=fixed(0.1), log=True),
    "cpu_index_tuple_cost": Entry(why="the same for an entry of an index", low=fixed(0.0005), high=fixed(0.05), log=True),
    "cpu_operator_cost": Entry(
        why="evaluating a condition, and with it hashing and sorting", low=fixed(0.00025), high=fixed(0.025), log=True
    ),
    "from_collapse_limit": Entry(why="number of subqueries that are planned together with the outer query", low=fixed(1), high=fixed(16)),
    "join_collapse_limit": Entry(
        why="number of explicit joins that are ordered freely; planning takes exponentially longer", low=fixed(1), high=fixed(16)
    ),
    "geqo": Entry(why="genetic instead of exhaustive search for large joins"),
    "geqo_threshold": Entry(
        why="number of relations from which the search is genetic", low=fixed(2), high=fixed(16), parent="geqo", active="on"
    ),
    "geqo_effort": Entry(why="planning time against the quality of the plan", low=fixed(1), high=fixed(10), parent="geqo", active="on"),
    "enable_bitmapscan": Entry(
        why="between index and sequential scans; a bitmap that is built in vain costs most when estimates are wrong"
    ),
    "enable_hashjoin": Entry(why="one of the three ways to join"),
    "enable_mergejoin": Entry(why="one of the three ways to join; it sorts"),
    "enable_nestloop": Entry(why="one of the three ways to join: the best for few rows, the worst when they were underestimated"),
    "enable_material": Entry(why="keeping the inner side of a join"),
    "enable_memoize": Entry(why="keeping the answers of the inner side by key; a loss when keys do not repeat"),
    _PARALLEL: Entry(why="processes that help one scan or join; 0 for none", low=fixed(1), high=processors, special=0),
    "parallel_setup_cost": Entry(why="estimated cost of starting them", low=fixed(10), high=fixed(10_000), log=True, parent=_PARALLEL),
    "parallel_tuple_cost": Entry(why="estimated cost of handing over a row", low=fixed(0.001), high=fixed(1), log=True, parent=_PARALLEL),
    "min_parallel_table_scan_size": Entry(
        why="tables below are read by one process", low=fixed(64 << 10), high=fixed(64 * MB), log=True, parent=_PARALLEL
    ),
    "min_parallel_index_scan_size": Entry(why="the same for indexes", low=fixed(32 << 10), high=fixed(16 * MB), log=True, parent=_PARALLEL),
    "parallel_leader_participation": Entry(why="the leader reads, too, or only gathers", parent=_PARALLEL),
}
"""In the order of the documentation: memory, reading, costs, the planner's search, methods, parallel plans."""

REFUSED: Mapping[str, str] = {
    "fsync": "a power cut would destroy the database",
    "full_page_writes": "a power cut would destroy pages",
    "synchronous_commit": "a crash would lose commits that were acknowledged",
    "wal_level": "archives and replicas would stop working",
    "wal_sync_method": "on some systems the wrong one writes nothing to disk",
    "commit_delay": "it only delays commits",
    "data_sync_retry": "data that was not written would be taken for written",
    "ignore_checksum_failure": "broken pages would be read as if they were right",
    "zero_damaged_pages": "damaged pages would be deleted",
    "autovacuum": "tables would bloat and transaction ids run out",
    "archive_mode": "backups would stop",
    "max_wal_senders": "replicas would stop",
}
"""Knobs that are never tuned, with the loss that each could cause."""
