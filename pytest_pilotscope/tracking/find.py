"""What is in the store: experiments with their runs, and one run by the beginning of its id or by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.errors import UnknownName, UsageError
from pytest_pilotscope.tracking.store import open_existing, resolve_uri, shown_uri, translated
from pytest_pilotscope.tracking.tracker import MLflowTracker, flat

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

COUNT_LIMIT = 100
"""How many runs of an experiment are counted before it becomes "more"."""

CANDIDATES = 8
"""How many runs a message lists at most."""

SHORT_ID = 8
"""How many characters of a run's id are shown; enough to find it again."""

_ID = re.compile(r"[0-9a-f]{1,32}")
_NOT_A_NAME = re.compile(r"['\"`\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment: its number of runs (`more` says that there are more than counted), and its newest run as `list_runs` gives it."""

    name: str
    runs: int
    more: bool
    newest: Mapping[str, Any] | None


def experiments(tracking_uri: str | None = None) -> tuple[Experiment, ...]:
    """All experiments, by name; MLflow's own empty `Default` is left out."""
    client = open_existing(tracking_uri)
    found = []
    for identifier, name in _experiments(client):
        with translated(f"experiment {name!r}"):
            page = client.search_runs([identifier], max_results=COUNT_LIMIT, order_by=["attributes.start_time DESC"])
        if page or name != "Default":
            found.append(Experiment(name=name, runs=len(page), more=bool(page.token), newest=flat(page[0]) if page else None))
    return tuple(sorted(found, key=lambda experiment: experiment.name))


def runs_of(experiment: str, *, limit: int | None = None, tracking_uri: str | None = None) -> list[dict[str, Any]]:
    """The runs of an experiment, newest first; `UnknownName` when there is no such experiment."""
    _check_experiment(experiment, tracking_uri)
    return MLflowTracker.list_runs(experiment, limit, tracking_uri=tracking_uri)


def best_of(experiment: str, metric: str, *, ascending: bool, partial: bool = False, tracking_uri: str | None = None) -> dict[str, Any]:
    """
    The best finished run of an experiment by a metric, as `MLflowTracker.get_best_run` gives it.

    `UnknownName` when there is no such experiment, or no run with that metric; `UsageError` when only partial runs have it.
    """
    _check_experiment(experiment, tracking_uri)
    if not _NOT_A_NAME.search(metric):
        best = MLflowTracker.get_best_run(experiment, metric, ascending, partial=partial, tracking_uri=tracking_uri)
        if best is not None:
            return best
    runs = MLflowTracker.list_runs(experiment, COUNT_LIMIT, tracking_uri=tracking_uri)
    finished = [run for run in runs if run["status"] == "FINISHED"]
    if not finished:
        raise UsageError(f"experiment {experiment!r} has no finished run yet; `pilotscope runs {experiment}` shows the others")
    if any(f"metrics.{metric}" in run for run in finished):
        raise UsageError(
            f"experiment {experiment!r} has no finished run of the whole workload with {metric!r}, only runs of some of its queries; "
            "--partial takes these"
        )
    known = {key.removeprefix("metrics.") for run in finished for key in run if key.startswith("metrics.")}
    raise UnknownName(f"metric of experiment {experiment!r}", metric, known)


def find_run(reference: str, *, tracking_uri: str | None = None) -> dict[str, Any]:
    """
    The one run whose id starts with `reference`, or whose name it is, as `list_runs` gives it.

    `UsageError` with the candidates when there is none or more than one.
    """
    client = open_existing(tracking_uri)
    identifiers = [identifier for identifier, _ in _experiments(client)]
    matching: dict[str, Run] = {}
    for condition in _conditions(reference):
        matching |= {run.info.run_id: run for run in _search(client, identifiers, condition)}
    if len(matching) == 1:
        return flat(next(iter(matching.values())))
    if matching:
        raise UsageError(f"{reference!r} could be any of these runs; give more of the id:{_listed(list(matching.values()))}")
    store = shown_uri(resolve_uri(tracking_uri))
    newest = _search(client, identifiers, "")
    if not newest:
        raise UsageError(f"no run {reference!r}: there are no runs at all in {store}")
    raise UsageError(f"no run of {store} has an id that starts with {reference!r}, or that name; {_nearest(reference, newest)}")


def _check_experiment(name: str, tracking_uri: str | None) -> None:
    known = [found for _, found in _experiments(open_existing(tracking_uri))]
    if name not in known:
        raise UnknownName("experiment", name, known)


def _experiments(client: MlflowClient) -> Iterator[tuple[str, str]]:
    """Id and name of every experiment that is not deleted."""
    token: str | None = None
    while True:
        with translated("the list of experiments"):
            page = client.search_experiments(page_token=token)
        yield from ((str(experiment.experiment_id), experiment.name) for experiment in page)
        token = page.token
        if not token:
            return


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
