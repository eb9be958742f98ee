"""Read the queries of a run, divide them, complete them with generated training queries, and describe them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_pilotscope.errors import DatasetError, MissingWorkload, StatementFailed, UsageError, WorkloadError, counted, shortened
from pytest_pilotscope.options.progress import ShowProgress
from pytest_pilotscope.queries.queries import Query, Workload
from pytest_pilotscope.queries.splitting import check_disjoint, divide
from pytest_pilotscope.queries.statements import single

if TYPE_CHECKING:
    from pytest_pilotscope.datasets.base import Dataset
    from pytest_pilotscope.options.settings import Settings
    from pytest_pilotscope.postgres.session import Session
    from pytest_pilotscope.provision.database import Database

GENERATED = 500
"""Number of training queries generated when there are none and --generate-training is not given."""

_NAMED = 5
_DENIED = "42501"  # insufficient_privilege
_UNDEFINED_TABLE = "42P01"
_UNDEFINED_FUNCTION = "42883"  # or operator
_NAME = re.compile(r'["«„“]\s?(.+?)\s?["»“”]')  # quoted in the language of the server's messages


def given_workload(name: str, dataset: Dataset | None, settings: Settings) -> Workload:
    """
    Read the queries of `--queries-dir` and `--workload`, or the dataset's own, and divide them as `--split` says; add those that write.

    Raises `WorkloadError` for files that cannot be read and queries in two splits, `MissingWorkload` when there are none.
    """
    from pytest_pilotscope.datasets.files import load_workload_files, named_workload
    from pytest_pilotscope.provision.writes import given_writes

    own, missing = _own(name, dataset)
    path = settings.queries_dir
    if settings.workload is not None:
        folder = path or settings.data_dir
        if folder is None:
            raise UsageError(f"--workload {settings.workload} is looked for in the folder of --queries-dir or --data-dir; name one of them")
        path = named_workload(folder, settings.workload)
    if path is not None:
        workload = load_workload_files(path, name, own)
    elif own is not None:
        workload = own
    else:
        raise missing
    if settings.split != "given":
        workload = divide(workload, settings.split, settings.seed)
    check_disjoint(workload)
    return replace(workload, writes=given_writes(settings))


def _own(name: str, dataset: Dataset | None) -> tuple[Workload | None, MissingWorkload]:
    missing = MissingWorkload(f"database {name!r} is no dataset of the suite and has no queries of its own; name them with --queries-dir")
    try:
        return (dataset.workload() if dataset is not None else None), missing
    except MissingWorkload as error:
        return None, error


def completed(workload: Workload, database: Database, settings: Settings, *, learns: bool, show_progress: ShowProgress) -> Workload:
    """
    Return the workload with generated training queries, when they are asked for or there is nothing else to learn from.

    Raises `WorkloadError` for a query of the user's that PostgreSQL cannot plan, `DatasetError` if there is no table to make queries of.
    """
    wanted = settings.generate_training
    if wanted is None:
        wanted = 0 if workload.train or not learns else GENERATED
    with database.measuring_session() as session:
        _check_plannable((*workload.test, *workload.train, *workload.validation), database, session)
        if wanted:
            workload = _generated(workload, database, session, wanted, settings.seed, show_progress)
    return workload


def _generated(workload: Workload, database: Database, session: Session, wanted: int, seed: int, show_progress: ShowProgress) -> Workload:
    from pytest_pilotscope.datasets.generated import generate_training
    from pytest_pilotscope.postgres.catalog import read_schema
    from pytest_pilotscope.provision.obstacles import outside_search_path

    if not read_schema(session):
        found = outside_search_path(database, session)
        remedy = f"it has tables in {found}" if found else "name a database with tables"
        raise DatasetError(
            f"there is no table to make training queries of for {workload.dataset}: none is in the search path of database "
            f"{session.database!r}; {remedy}, or make none (--generate-training 0)"
        )
    made = generate_training(
        session,
        workload,
        count=wanted,
        seed=seed,
        references=getattr(database.dataset, "references", {}),
        data_fingerprint=database.fingerprint.data,
        show_progress=show_progress,
    )
    check_disjoint(made)
    return made


def _check_plannable(queries: Iterable[Query], database: Database, session: Session) -> None:
    """Raise `WorkloadError`, with file and line, for queries of the user's files that PostgreSQL refuses: one would stop a training."""
    from pytest_pilotscope.postgres.catalog import unpopulated_views

    refused: dict[str, str] = {}
    unpopulated = unpopulated_views(session)
    for query in queries:
        try:
            if query.place is not None:
                session.execute(f"EXPLAIN (COSTS off) {single(query.sql)}")
                nodes = session.explain(query.sql, verbose=True).nodes() if unpopulated else ()
                for schema, name in {(str(node.schema), str(node.relation)) for node in nodes} & unpopulated:
                    problem = f"materialized view {schema}.{name} has not been populated; run REFRESH MATERIALIZED VIEW {schema}.{name}"
                    refused[str(query.place)] = f"{problem}, or leave this query out: {shortened(query.sql)}"
        except StatementFailed as error:
            if session.closed:
                raise
            refused[str(query.place)] = f"{error.reason}; {_remedy(error, database, session)}: {shortened(query.sql)}"
    if refused:
        (place, problem), *others = refused.items()
        more = f" (refused, too: {', '.join(other for other, _ in others)})" if others else ""
        raise WorkloadError(f"{place}: {problem}{more}")


def _remedy(error: StatementFailed, database: Database, session: Session) -> str:
    """Return what to do about a query that PostgreSQL refuses to plan."""
    from pytest_pilotscope.datasets.dumped import DumpedDataset
    from pytest_pilotscope.provision.obstacles import outside_search_path

    if error.sqlstate == _DENIED:
        right = "USAGE of the schema, and SELECT," if "schema" in error.reason else "SELECT"
        return f"grant {right} to role {session.scalar('SELECT current_user::text')!r}, or leave this query out"
    is_left_out = error.sqlstate == _UNDEFINED_TABLE or (error.sqlstate == _UNDEFINED_FUNCTION and error.reason.startswith("function "))
    if isinstance(database.dataset, DumpedDataset) and is_left_out:
        return "a dump is restored without its views and functions: write what it stands for in its place, or mend this query"
    name = _NAME.search(error.reason) if error.sqlstate == _UNDEFINED_TABLE else None
    found = outside_search_path(database, session, name[1]) if name else None
    return f"it is in {found}, or mend this query" if found else "mend this query"


def described(workload: Workload) -> Iterable[str]:
    """Describe in sentences the queries that are trained on, measured and left out."""
    seen = workload.templates_seen
    overlap = f"; {seen:.0%} of the test templates are trained on" if seen is not None else ""
    origin = workload.origin or f"{len(workload.train)} training"
    yield f"{origin}, {len(workload.validation)} validation and {counted(len(workload.test), 'test query', 'test queries')}{overlap}"
    left_out = [f"{one.id} ({one.reason})" for one in workload.unmeasured]
    if left_out:
        more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        yield f"{counted(len(left_out), 'is no query', 'are no queries')}, so not run: {', '.join(left_out[:_NAMED])}{more}"


def too_few(workload: Workload, settings: Settings) -> Iterable[str]:
    """Describe in sentences each option that asks for more training queries than there are."""
    for option, wanted in (("--training-size", settings.training_size), ("--collection-size", settings.collection_size)):
        if wanted is not None and wanted > len(workload.train):
            yield f"{option} {wanted} asks for more training queries than there are: {len(workload.train)}"
