"""
Measure how time and memory grow, as tables for docs/growth.md.

    python -m benchmarks.growth > growth.md             # minutes; --quick for the smallest two sizes of each table
    python -m benchmarks.growth rows samples            # only the tables whose names begin so

Each case runs in a process of its own, so the largest memory of it and its server is that of the case. Times are those of the clock, as
multiples of the first row of a table; servers work beside the process, so processor time would leave them out. The load of the machine is
printed beside them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np

from pytest_pilotscope.gate.rules import Policy, decide
from pytest_pilotscope.labels import cardinalities, read_schema
from pytest_pilotscope.provision.database import Database, PostgreSQLConfig, open_database
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.record import read_record
from pytest_pilotscope.report.page import page

Times = dict[str, float]


@contextmanager
def _timed(times: Times, name: str) -> Iterator[None]:
    started_s = perf_counter()
    yield
    times[name] = perf_counter() - started_s


def _bytes_of(folder: Path) -> int:
    """Return the disk space of a folder; a file with several links counts once."""
    found = {(stat.st_dev, stat.st_ino): stat.st_blocks * 512 for path in folder.rglob("*") if (stat := path.lstat())}
    return sum(found.values())


def _label(database: Database, queries: Sequence[Query], folder: Path, workers: int) -> int:
    """Count all sets of queries in an empty cache; return their number."""
    with database.session() as session:
        labels = cardinalities(
            session,
            queries,
            schema=read_schema(session),
            fingerprint="growth",
            cache_dir=folder / "labels",
            workers=workers,
            timeout_ms=10_000,
        )
    return sum(len(of_query) for of_query in labels.values())


def rows(millions: float, folder: Path, *, workers: int = 2) -> Times:
    """Prepare STATS at a scale (1 is 1.03 M rows), start on what is prepared, and count the sets of its test queries."""
    times: Times = {}
    config = PostgreSQLConfig("stats_synthetic", scale=millions, server="embedded")
    with _timed(times, "prepare"), open_database(config):
        pass
    with _timed(times, "start"), open_database(config):
        pass
    times["data MB"] = _bytes_of(folder / "cache") / 1e6
    with open_database(config) as database:
        assert database.dataset is not None
        queries = database.dataset.workload().test
        with _timed(times, "true rows"):
            _label(database, queries, folder, workers)
    times["columns for true rows MB"] = _bytes_of(folder / "labels") / 1e6
    return times


def processes(workers: float, folder: Path) -> Times:
    """Count the sets of the test queries of 10.3 M rows with one process or several; of fewer rows, one process counts all."""
    return {"true rows": rows(10, folder, workers=int(workers))["true rows"]}


def relations(number: float, folder: Path) -> Times:
    """Plan so many relations, each two of which can be joined, with the list of all their sets, and count these."""
    members = range(1, int(number))
    tables = ["users AS u", *(f"badges AS b{member}" for member in members)]
    return _planned(tables, [f"u.id = b{member}.userid AND b{member}.id <= {40 * member}" for member in members], folder)


def chain(number: float, folder: Path) -> Times:
    """Plan so many relations, each joined with the next by a key of its own, and count their sets."""
    members = range(1, int(number) + 1)
    return _planned(
        [f"badges AS b{member}" for member in members], [f"b{member}.userid = b{member + 1}.id" for member in members[:-1]], folder
    )


def _planned(tables: Sequence[str], conditions: Sequence[str], folder: Path) -> Times:
    times: Times = {}
    with open_database(PostgreSQLConfig("stats_tiny", server="embedded")) as database, database.session() as session:
        session.execute("SET geqo = off; SET join_collapse_limit = 30; SET from_collapse_limit = 30")
        sql = f"SELECT count(*) FROM {', '.join(tables)} WHERE {' AND '.join(conditions)}"  # noqa: S608 - constants
        session.explain(sql)
        with _timed(times, "planning"):
            session.explain(sql)
        with _timed(times, "planning, all sets listed"):
            times["sets"] = len(session.subplans(sql))
        with _timed(times, "true rows"):
            labels = cardinalities(
                session, [Query(id="q", sql=sql)], schema=read_schema(session), fingerprint="growth", cache_dir=folder / "labels"
            )
        assert len(labels["q"]) == times["sets"]
    return times


def queries(number: float, folder: Path) -> Times:
    """Read, gate and show a record of so many queries on six sides in five rounds."""
    from benchmarks.speed.test_report import write_record

    times: Times = {}
    path = folder / "record.jsonl"
    write_record(path, int(number))
    times["disk MB"] = path.stat().st_size / 1e6
    with _timed(times, "json.loads"), path.open() as lines:
        for line in lines:
            json.loads(line)
    with _timed(times, "read"):
        record = read_record(path)
    with _timed(times, "gate"):
        decide(record, record, Policy())
    with _timed(times, "page"):
        page([record])
    return times


def samples(number: float, _folder: Path) -> Times:
    """Train MSCN, without bitmaps, for one epoch over so many subplans."""
    from functools import partial
    from math import e

    from benchmarks.speed.test_mscn import BATCH_SIZE, fresh, generated_stats, labelled_subplans, step, varied
    from pytest_pilotscope.algorithms.devices import one_thread
    from pytest_pilotscope.algorithms.mscn.learning import loss_of

    times: Times = {}
    generated = generated_stats()
    featurizer = generated.featurizer(bitmaps=False)
    with _timed(times, "features"):
        texts = [varied(generated.workload.train, at) for at in range(int(number / 21.9))]
        made = labelled_subplans(featurizer, texts)
    network, optimizer = fresh(featurizer, made)
    order = np.random.default_rng(0).permutation(len(made.queries) - 1)
    batches = made.batches(BATCH_SIZE, order)
    step(network, optimizer, partial(loss_of, network, next(batches), e))  # PyTorch prepares its kernels
    with one_thread(), _timed(times, "an epoch"):
        for batch in batches:
            step(network, optimizer, partial(loss_of, network, batch, e))
    return times


CASES: Mapping[str, tuple[Callable[[float, Path], Times], tuple[float, ...]]] = {
    "rows of STATS (M)": (rows, (0.1, 1, 10)),
    "processes that count, 10 M rows": (processes, (1, 2)),
    "relations joined by one key": (relations, (5, 10, 15)),
    "relations in a chain": (chain, (5, 10, 15, 17)),
    "queries of a record, six sides": (queries, (100, 1_000, 5_000)),
    "samples of MSCN": (samples, (100_000, 1_000_000)),
}


def _measured(name: str, size: float) -> Times:
    """Run a case in a process of its own, with an empty cache; return its times and the largest memory of a process."""
    with tempfile.TemporaryDirectory(prefix="pilotscope-growth-") as folder:
        Path(folder).chmod(0o755)
        environment = {**os.environ, "PILOTSCOPE_CACHE": f"{folder}/cache"}
        command = [sys.executable, "-m", "benchmarks.growth", "--case", name, str(size), folder]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))


def _table(name: str, sizes: Sequence[float]) -> Iterator[str]:
    """Yield the lines of one table: times as multiples of those of the first row."""
    first: Times = {}
    for size in sizes:
        found = _measured(name, size)
        first = first or found
        if found is first:
            yield f"| {name} | {' | '.join(found)} |"
            yield f"|{' --- |' * (len(found) + 1)}"
        cells = [f"{value:,.0f}" if key.endswith("MB") or key == "sets" else f"{value / first[key]:.3g}" for key, value in found.items()]
        yield f"| {size:,.10g} | {' | '.join(cells)} |"
    yield ""


def main(arguments: Sequence[str]) -> None:
    """Print all tables, or those that are named, or run one case and print its figures as JSON."""
    if "--case" in arguments:
        _, name, size, folder = arguments
        figures = CASES[name][0](float(size), Path(folder))
        largest = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(json.dumps({**figures, "memory MB": largest / 1024}))  # noqa: T201 - told to the process that started this one
        return
    wanted = tuple(argument for argument in arguments if argument != "--quick")
    for name, (_, sizes) in CASES.items():
        if wanted and not name.startswith(wanted):
            continue
        load = os.getloadavg()[0]
        for line in _table(name, sizes[:2] if "--quick" in arguments else sizes):
            print(line, flush=True)  # noqa: T201 - the tables are the purpose
        print(f"Load {load:.1f} before and {os.getloadavg()[0]:.1f} after, {os.cpu_count()} processors.\n", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
