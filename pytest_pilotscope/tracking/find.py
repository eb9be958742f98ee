"""Finding experiments and runs in the store, and one run by the beginning of its id or by its name."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import isfinite, nan
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import UnknownName, UsageError
from pytest_pilotscope.places.secret import StoreUri
from pytest_pilotscope.record.results import PARTIAL
from pytest_pilotscope.tracking.sqlite_store import read_experiments, read_runs
from pytest_pilotscope.tracking.store import missing_store, open_existing, paged, resolve_uri, sqlite_path, translated
from pytest_pilotscope.tracking.tracker import MLflowTracker, flat

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

COUNT_LIMIT = 100
"""The largest number of runs of an experiment that are counted; beyond it, there are "more"."""

CANDIDATES = 8
"""The largest number of runs that a message lists."""

SHORT_ID = 8
"""The number of characters shown of a run's id; enough to find the run again."""

_ID = re.compile(r"[0-9a-f]{1,32}")
_NOT_A_NAME = re.compile(r"['\"`\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment: its number of runs (`more` is set if there are more than counted), and its newest run in the form of `list_runs`."""

    name: str
    runs: int
    more: bool
    newest: Mapping[str, Any] | None


def experiments(tracking_uri: str | StoreUri | None = None) -> tuple[Experiment, ...]:
    """Return all experiments by name, without MLflow's own empty `Default`."""
    found = _read_locally(tracking_uri)
    if found is None:
        client = open_existing(tracking_uri)
        found = []
        for identifier, name in _experiments(client):
            with translated(f"experiment {name!r}"):
                page = client.search_runs([identifier], max_results=COUNT_LIMIT + 1, order_by=["attributes.start_time DESC"])
            found.append((name, len(page), flat(page[0]) if page else None))
    return tuple(
        Experiment(name=name, runs=min(runs, COUNT_LIMIT), more=runs > COUNT_LIMIT, newest=newest)
        for name, runs, newest in sorted(found, key=itemgetter(0))
        if runs or name != "Default"
    )


def _read_locally(tracking_uri: str | StoreUri | None) -> list[tuple[str, int, Mapping[str, Any] | None]] | None:
    """Return the experiments of a local store; None for any other, and for one that only MLflow can read."""
    path = sqlite_path(resolve_uri(tracking_uri))
    return read_experiments(path, limit=COUNT_LIMIT + 1) if path is not None and path.is_file() else None


def runs_of(experiment: str, *, limit: int | None = None, tracking_uri: str | StoreUri | None = None) -> list[dict[str, Any]]:
    """Return the runs of an experiment, newest first; raise `UnknownName` if there is no such experiment."""
    local = _runs_locally(experiment, limit, tracking_uri)
    if local is not None:
        return local
    _check_experiment(experiment, [found for _, found in _experiments(open_existing(tracking_uri))])
    return MLflowTracker.list_runs(experiment, limit, tracking_uri=tracking_uri)


def best_of(
    experiment: str, metric: str, *, ascending: bool, partial: bool = False, tracking_uri: str | StoreUri | None = None
) -> dict[str, Any]:
    """
    Return the best finished run of an experiment by a metric, in the form of `MLflowTracker.get_best_run`.

    Raise `UnknownName` if there is no such experiment, or no run with that metric; `UsageError` if only partial runs have it.
    """
    local = _runs_locally(experiment, None, tracking_uri)
    if local is None:
        _check_experiment(experiment, [found for _, found in _experiments(open_existing(tracking_uri))])
    best = None
    if local is not None:
        best = _best_of(local, metric, ascending=ascending, partial=partial)
    elif not _NOT_A_NAME.search(metric):
        best = MLflowTracker.get_best_run(experiment, metric, ascending, partial=partial, tracking_uri=tracking_uri)
    if best is not None:
        return best
    runs = MLflowTracker.list_runs(experiment, COUNT_LIMIT, tracking_uri=tracking_uri) if local is None else local
    finished = [run for run in runs if run["status"] == "FINISHED"]
    if not finished:
        raise UsageError(f"experiment {experiment!r} has no finished run; `pilotscope runs {experiment}` shows the others")
    if any(f"metrics.{metric}" in run for run in finished):
        raise UsageError(
            f"experiment {experiment!r} has no finished run of the whole workload with {metric!r}, only runs of some of its queries; "
            "use --partial to include these"
        )
    known = {key.removeprefix("metrics.") for run in finished for key in run if key.startswith("metrics.")}
    raise UnknownName(f"metric of experiment {experiment!r}", metric, known)


def _best_of(runs: Sequence[Mapping[str, Any]], metric: str, *, ascending: bool, partial: bool) -> dict[str, Any] | None:
    """Return the best finished run of these, in the form of `MLflowTracker.get_best_run`; of equal ones the newest, which comes first."""
    key = f"metrics.{metric}"
    fit = [run for run in runs if run["status"] == "FINISHED" and isfinite(run.get(key, nan)) and (partial or f"tags.{PARTIAL}" not in run)]
    if not fit:
        return None
    best = (min if ascending else max)(fit, key=itemgetter(key))
    return {
        "run_id": best["run_id"],
        "run_name": best["run_name"],
        "metric_name": metric,
        "metric_value": best[key],
        "params": {name.removeprefix("params."): value for name, value in best.items() if name.startswith("params.")},
        "artifact_uri": best["artifact_uri"],
    }


def find_run(reference: str, *, tracking_uri: str | StoreUri | None = None, elsewhere: str = "") -> dict[str, Any]:
    """
    Return the only run whose id starts with `reference`, or whose name is `reference`, in the form of `list_runs`.

    Raise `UsageError`, which lists candidates, if there is none or more than one, or no store; `elsewhere` says where else there is none.
    """
    if (missing := missing_store(tracking_uri)) is not None:
        raise UsageError(
            f"no run {reference!r}: there is no MLflow store {missing}{elsewhere}; check the name, --tracking-uri and --results"
        )
    client = open_existing(tracking_uri)
    identifiers = [identifier for identifier, _ in _experiments(client)]
    matching: dict[str, Run] = {}
    for condition in _conditions(reference):
        matching |= {run.info.run_id: run for run in _search(client, identifiers, condition)}
    if len(matching) == 1:
        return flat(next(iter(matching.values())))
    if matching:
        raise UsageError(f"{reference!r} matches several runs; give more of the id:{_listed(list(matching.values()))}")
    store = resolve_uri(tracking_uri)
    newest = _search(client, identifiers, "")
    if not newest:
        raise UsageError(f"no run {reference!r}: there are no runs at all in {store}{elsewhere}")
    nearest = _nearest(reference, newest)
    raise UsageError(f"no run of {store} has the name {reference!r} or an id that starts with it{elsewhere}; {nearest}")


def _runs_locally(experiment: str, limit: int | None, tracking_uri: str | StoreUri | None) -> list[dict[str, Any]] | None:
    """Return the runs of an experiment of a local store; None for any other. Raise `UsageError` without the experiment."""
    if (missing := missing_store(tracking_uri)) is not None:
        raise UsageError(
            f"unknown experiment {experiment!r}: there is no MLflow store {missing}; check --tracking-uri, or run a benchmark first"
        )
    path = sqlite_path(resolve_uri(tracking_uri))
    found = read_runs(path, experiment, limit=limit) if path is not None else None
    if found is None:
        return None
    names, runs = found
    _check_experiment(experiment, names)
    return runs


def _check_experiment(name: str, known: Collection[str]) -> None:
    if name not in known:
        raise UnknownName("experiment", name, known)


def _experiments(client: MlflowClient) -> Iterator[tuple[str, str]]:
    """Yield id and name of every experiment that is not deleted."""
    with translated("the list of experiments"):
        for experiment in paged(lambda token: client.search_experiments(page_token=token)):
            yield str(experiment.experiment_id), experiment.name


def _conditions(reference: str) -> Iterator[str]:
    if _ID.fullmatch(reference):
        yield f"attributes.run_id LIKE '{reference}%'"
    if reference and not _NOT_A_NAME.search(reference):
        yield f"attributes.run_name = '{reference}'"


def _search(client: MlflowClient, identifiers: list[str], condition: str) -> Sequence[Run]:
    with translated("the list of runs"):
        return client.search_runs(identifiers, condition, max_results=COUNT_LIMIT, order_by=["attributes.start_time DESC"])


def _nearest(reference: str, newest: Sequence[Run]) -> str:
    near = get_close_matches(reference, {run.info.run_name for run in newest}, n=CANDIDATES)
    if near:
        return f"did you mean:{_listed([run for run in newest if run.info.run_name in near])}"
    return f"the newest runs:{_listed(newest)}"


def _listed(runs: Sequence[Run]) -> str:
    lines = [f"\n  {run.info.run_id[:12]}  {run.info.run_name}  {run.info.status}" for run in runs[:CANDIDATES]]
    return "".join([*lines, *(["\n  ..."] if len(runs) > CANDIDATES else [])])
