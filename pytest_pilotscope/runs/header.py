"""The header of a run: everything that a reader needs to understand its figures later."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING
from uuid import uuid4

from pytest_pilotscope.errors import MissingExtension, RecordExists, UsageError, named
from pytest_pilotscope.places.environment import clean_environment
from pytest_pilotscope.record.conditions import conditions_text
from pytest_pilotscope.record.names import file_name
from pytest_pilotscope.record.record import RecordWriter
from pytest_pilotscope.record.results import BASELINE, BASELINE_AGAIN, PARTIAL, RunHeader, Scalar
from pytest_pilotscope.runs.machine_load import machine_load

if TYPE_CHECKING:
    from pytest_pilotscope.options.settings import Settings
    from pytest_pilotscope.provision.database import Database
    from pytest_pilotscope.queries.queries import Query, Workload
    from pytest_pilotscope.registry import Registry

DISTRIBUTION = "pytest-pilotscope"


def run_header(
    algorithm: str,
    *,
    database: Database,
    workload: Workload,
    queries: Sequence[Query],
    settings: Settings,
    opponents: Sequence[str] = (),
) -> RunHeader:
    """Describe a run that begins now. `opponents` are the sides of a comparison; a baseline by itself is paired with itself."""
    from pytest_pilotscope.provision.variants import differences

    now = datetime.now(timezone.utc)
    report = database.report
    sides = (BASELINE, *(opponents or (BASELINE_AGAIN if algorithm == BASELINE else algorithm,)))
    variants = [side for side in sides if side in database.variants]
    fingerprints = {**database.fingerprint.as_mapping(), "workload": workload.fingerprint}
    if workload.writes is not None:
        fingerprints["writes"] = workload.writes.fingerprint
    return RunHeader(
        run_name=_free_name(f"{file_name(algorithm)}_{file_name(workload.dataset)}_{now:%Y%m%d_%H%M%S}", settings.results),
        algorithm=algorithm,
        dataset=workload.dataset,
        started_at=now.isoformat(),
        sides=sides,
        variants=differences(database, sides),
        other_servers=tuple(side for side in variants if database.variants[side].server is not database.server),
        rounds=settings.fewest_rounds,
        seed=settings.seed,
        suite_version=version(DISTRIBUTION),
        queries={query.id: query.sql for query in queries},
        conditions=settings.conditions,
        parameters=_parameters(algorithm, workload, settings, report.version, learns=algorithm not in (BASELINE, *variants)),
        tags={
            **_tags(workload, database.name, fingerprints),
            **_partial(workload, len(queries)),
            **({"conditions": conditions_text(settings.conditions)} if settings.conditions else {}),
            **({"variant": variant} if (variant := differences(database, [algorithm]).get(algorithm)) else {}),
        },
        fingerprints=fingerprints,
        server={
            "provider": report.provider,
            "why": report.why,
            "version": report.version,
            "version_num": report.version_num,
            "debug_assertions": report.debug_assertions,
            "optimized": report.optimized,
            "configure": report.configure,
        },
        settings=report.settings,
        timeout_ms=settings.query_timeout_ms,
        parallel="PYTEST_XDIST_WORKER" in os.environ,
        machine_load=machine_load(),
    )


def restrictions(algorithms: Iterable[str], registry: Registry, database: Database, *, trains: bool) -> Iterator[str]:
    """
    Yield a line for each algorithm that is restricted on the server of a database, and for tables that no query can read there.

    Raise `MissingExtension` for algorithms that cannot steer it, and `DatasetError` or `UsageError` for one that would change what nobody
    has allowed to change, and for one that cannot learn there, if it `trains`.
    """
    from pytest_pilotscope.learning.algorithm import needs_library
    from pytest_pilotscope.postgres.databases import our_name, require_databases
    from pytest_pilotscope.provision.obstacles import no_library, unusable_relations

    parts = tuple(chain.from_iterable(map(registry.parts, algorithms)))
    steering = [part.name for part in parts if needs_library(part.resolve())]
    if steering and (problem := no_library(database.server, database.name, named(steering))):
        raise MissingExtension(problem)
    with database.session() as session:
        yield from unusable_relations(session)
    for part in parts:
        algorithm = part.resolve()
        if getattr(algorithm, "copies", False):
            require_databases(database.server, f"--algo {part.name}", our_name(database.name, "_..."))
        if trains and (check := getattr(algorithm, "check_training", None)) is not None:
            check(database)
        restriction = getattr(algorithm, "restriction", None)
        if restriction is not None and (reason := restriction(database)):
            yield f"{part.name} on this server: {reason}"


def check_folder(option: str, folder: Path) -> None:
    """Raise `UsageError` if nothing can be written to the folder of an option. Leave no file there."""
    there = folder
    try:
        while not there.exists():
            there = there.parent
        if not there.is_dir():
            raise UsageError(f"{option} {folder}: {there} is a file; name a folder")
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UsageError(f"{option} {folder}: nothing can be written to {there} ({error.strerror}); name another folder") from error


def check_page(path: Path) -> None:
    """Raise `UsageError` if the page of --report cannot be written."""
    if path.is_dir():
        raise UsageError(f"--report {path}: this is a folder; name a file in it")
    check_folder(f"--report {path}: its folder", path.parent)
    if path.exists() and not os.access(path, os.W_OK):
        raise UsageError(f"--report {path}: this file cannot be written; name another one")


def open_record(header: RunHeader, results: Path) -> RecordWriter:
    """Open the record of a run. If another process has taken the name meanwhile, take another; `writer.header` has it."""
    while True:
        try:
            return RecordWriter(results / f"{header.run_name}.jsonl", header)
        except RecordExists:
            header = replace(header, run_name=_free_name(header.run_name, results))


def _free_name(name: str, results: Path) -> str:
    """Return the name, with a number appended if a run of the same second has taken it."""
    candidates = chain([name], (f"{name}_{number}" for number in count(2)))
    return next(candidate for candidate in candidates if not os.path.lexists(results / f"{candidate}.jsonl"))


def _parameters(algorithm: str, workload: Workload, settings: Settings, server_version: str, *, learns: bool) -> dict[str, Scalar]:
    return {
        "algorithm": algorithm,
        "dataset": workload.dataset,
        "enable_collection": learns and settings.collection,
        "enable_training": learns and settings.training,
        "num_epoch": settings.epochs if learns else 0,
        "num_collection": min(settings.collection_size or len(workload.train), len(workload.train)) if learns else 0,
        "test_templates_seen": workload.templates_seen if learns else None,
        "register_model": learns and settings.register_model,
        "load_model": settings.load_model if learns else None,
        "scale": settings.scale,
        "queries": ",".join(settings.queries) or None,
        "limit": settings.limit,
        "rounds": settings.rounds,
        **({"writes": ",".join(settings.writes), "writes_per_query": settings.writes_per_query} if settings.writes else {}),
        "seed": settings.seed,
        "query_timeout_ms": settings.query_timeout_ms,
        "postgresql_version": server_version,
        "git_commit": git_commit(),
        "suite_version": version(DISTRIBUTION),
    }


def _tags(workload: Workload, database: str, fingerprints: Mapping[str, str]) -> dict[str, str]:
    return {
        "record_id": uuid4().hex,
        "test_dataset": workload.dataset,
        "dataset.name": workload.dataset,
        "dataset.db": database,
        "dataset.workload": f"{len(workload.train)} train, {len(workload.validation)} validation, {len(workload.test)} test",
        **({"dataset.training": workload.origin} if workload.origin else {}),
        **({"dataset.unmeasured": ", ".join(one.id for one in workload.unmeasured)} if workload.unmeasured else {}),
        **{f"fingerprint.{part}": value for part, value in fingerprints.items()},
    }


def _partial(workload: Workload, measured: int) -> dict[str, str]:
    """Return the tag of a run of some test queries only, because its times are not those of the workload."""
    return {PARTIAL: f"{measured} of {len(workload.test)} queries"} if measured < len(workload.test) else {}


def git_commit() -> str | None:
    """Return the commit of the current directory, with `+` appended if files have changed; None without a repository or git."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        environment = clean_environment("GIT_DIR", "GIT_WORK_TREE", "GIT_CEILING_DIRECTORIES", "GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME")
        described = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    except FileNotFoundError:
        return None
    return described.stdout.strip() or None
