"""The algorithm `lero`: it learns from timed candidate plans of the training queries, and makes PostgreSQL run the plan it ranks first."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from shutil import rmtree
from time import perf_counter
from typing import TYPE_CHECKING, Any

from pytest_pilotscope.algorithms.devices import device
from pytest_pilotscope.algorithms.lero import serving
from pytest_pilotscope.algorithms.lero.candidates import Candidates
from pytest_pilotscope.algorithms.lero.choice import Choice, choose
from pytest_pilotscope.algorithms.lero.collected import CollectedQuery, collected
from pytest_pilotscope.algorithms.lero.collection import collect, rules_of, store_of
from pytest_pilotscope.algorithms.lero.evaluation import figures, write_explanations
from pytest_pilotscope.algorithms.lero.saved_ranker import model_metadata, read_model, write_model
from pytest_pilotscope.algorithms.lero.scoring import TrainedModel
from pytest_pilotscope.algorithms.lero.trainer import Trained, parameters_of, scored, trained
from pytest_pilotscope.algorithms.model_files import Metadata, new_metadata
from pytest_pilotscope.algorithms.plans.collecting import known, nothing_collected
from pytest_pilotscope.algorithms.plans.experience import Experience
from pytest_pilotscope.algorithms.plans.signature import signature_of
from pytest_pilotscope.algorithms.plans.timed import sql_key
from pytest_pilotscope.algorithms.plans.timing import Outcome
from pytest_pilotscope.errors import AlgorithmError, ModelError, counted
from pytest_pilotscope.learning.decision import Decision
from pytest_pilotscope.places.privatefiles import open_private, private_folder, write_private
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import Scalar, TrainingReport

if TYPE_CHECKING:
    from pytest_pilotscope.learning.training import Training
    from pytest_pilotscope.postgres.session import Session

logger = logging.getLogger(__name__)

LEAST_VALIDATION = 20
"""Least number of validation queries to collect; else it is a fifth of the number of training queries."""

CHOICES, UPDATES, UPDATED = "lero_choices.jsonl", "lero_updates.jsonl", "updated"
"""Names in the run's folder: the log of choices, the log of updates, and the folder of the last updated model."""


Rows = frozenset[tuple[frozenset[str], float]]
"""The rows that make PostgreSQL run a plan: its identity between two choices for a statement."""

OWN: Rows = frozenset()


@dataclass(slots=True)
class _Seen:
    """The queries since the last update, in the dynamic mode; `known` has the `sql_key` of these and of all earlier ones."""

    every: int
    known: set[str]
    queries: list[Query] = field(default_factory=list)


class Lero:
    """
    Learning-to-rank query optimizer (Zhu et al., PVLDB 16(6), 2023).

    `model` is None before `train` or `load`. With `--lero-dynamic` it learns on from the measured queries. In a stream it learns from the
    executions of its choices.
    """

    name = "lero"
    selection = ("best_validation_loss", True)

    def __init__(self) -> None:
        self.model_id = ""
        self.model: TrainedModel | None = None
        self._metadata: Metadata | None = None
        self._training: Training | None = None
        self._records: tuple[list[CollectedQuery], list[CollectedQuery]] = ([], [])
        self._noted: set[str] = set()
        self._choice: Choice | None = None
        self._seen: _Seen | None = None
        self._experience: Experience[Rows] = Experience(own=OWN)
        self._met: dict[str, tuple[Query, Candidates]] = {}
        self._compared: dict[str, CollectedQuery] = {}
        self._settled: Rows | None = None
        self._updates = 0

    def train(self, training: Training) -> TrainingReport:
        """Collect, learn to rank, tune the policy, save; AlgorithmError if there is nothing to learn from."""
        device(training.settings.device)  # one that is missing is named before anything is collected
        started_s = perf_counter()
        rules = rules_of(training)
        store = store_of(training, rules)
        validation = validation_queries(training)
        collect(training, [*training.queries, *validation], store, rules)
        self._records = (known(training.queries, store), known(validation, store))
        if not self._records[0]:
            raise AlgorithmError(nothing_collected(training, store.path, "these factors"))
        collected_s = perf_counter()
        with training.progress("lero epochs", training.settings.epochs) as advance:
            done = trained(*self._records, training=training, rules=rules, advance=advance)
        self._take(done, training)
        model, metadata = self._ready()
        paths = [*write_model(training.folder, model, metadata), *self._explain(training.folder), *self._start_noting(training)]
        return training.report(
            metrics=done.metrics,
            parameters={"model_id": self.model_id, **parameters_of(done, training, rules)},
            scalars={"collection_time_seconds": collected_s - started_s, **done.scalars, **self._figures()},
            artifacts=paths,
        )

    def decide(self, query: Query, session: Session) -> Decision:
        """Choose a plan, and decide on the rows that make PostgreSQL run it; on nothing for PostgreSQL's own plan."""
        model, _ = self._ready()
        key = sql_key(query.sql)
        self._settled = self._experience.settled(key)
        if self._settled is not None:
            self._choice = None
            return Decision(rows=dict(self._settled))
        choice = choose(model, session, query.sql)
        chosen = frozenset(choice.cardinalities.items())
        self._choice = choice if self._experience.next(key, chosen) == chosen else replace(choice, plan=0)
        return Decision(rows=self._choice.cardinalities)

    def observe(self, query: Query, decision: Decision, execution_ms: float) -> None:
        """
        Keep the time of a plan that ran for a query.

        Rank anew when PostgreSQL's own plan and another one have run for `--update-every` more queries: a single plan teaches no order.
        """
        key = sql_key(query.sql)
        self._experience.note(key, frozenset(decision.rows.items()), execution_ms)
        if self._choice is not None and self._choice.candidates is not None:
            self._met[key] = (query, self._choice.candidates)
        if key in self._met and self._experience.settled(key) is not None and key not in self._recorded():
            self._compared[key] = self._observed(key)
        if self._training is not None and len(self._compared) >= self._training.settings.update_every:
            found, self._compared = list(self._compared.values()), {}
            self._learn_from(found, self._training, len(found), collection_s=0.0)

    def learn_on(self, query: Query) -> None:
        """Before a new query in the dynamic mode, learn from the queries since the last update if they are enough; keep this one."""
        key = sql_key(query.sql)
        if self._seen is None or key in self._seen.known:
            return
        self._update_if_due(self._seen)
        self._seen.known.add(key)
        self._seen.queries.append(query)

    def explain(self, query: Query) -> dict[str, Scalar]:
        """
        Return facts about the last choice, see `Choice.facts`, and the margin that the score had to gain.

        The first choice for a query also goes to a log in the run's folder. A statement that is settled by executions was not looked at.
        """
        if self._settled is not None:
            return {"looked": False, "chosen_by": "executions", "own_plan": self._settled == OWN}
        if self.model is None or self._choice is None:
            return {}
        self._note(query, self._choice)
        return {**self._choice.facts(), "margin": round(self.model.policy.margin, 5)}

    def save(self, folder: Path) -> None:
        """Write the model below `folder`: `model/<model_id>/` and `metadata/<model_id>.json`."""
        write_model(folder, *self._ready())

    def load(self, folder: Path, training: Training) -> None:
        """Read a saved model for the database of `training`; ModelError if it is broken or belongs to another schema or other data."""
        metadata = model_metadata(folder)
        metadata.check(data_fingerprint=training.data_fingerprint, schema=training.schema)
        self.model = read_model(folder)
        self.model_id, self._metadata = metadata.model_id, metadata
        self._start_noting(training)

    @staticmethod
    def decider(folder: Path) -> Callable[[str], dict[str, Any]]:
        """
        Return a function from one SQL statement to a saved model's choice and its reasons; see `Choice.served`.

        A planner makes the candidate plans, so the function connects to the database in the environment variable PILOTSCOPE_DSN; ModelError
        without it.
        """
        return serving.decider(folder)

    def _take(self, done: Trained, training: Training) -> None:
        about = {**asdict(done.parameters), "best_epoch": done.learned.best_epoch, "validation_loss": done.learned.validation_loss}
        self.model, self._metadata = done.model, new_metadata("lero_pair", training, about)
        self.model_id = self._metadata.model_id

    def _ready(self) -> tuple[TrainedModel, Metadata]:
        if self.model is None or self._metadata is None:
            raise ModelError("lero has no model yet; train it, or load one")
        return self.model, self._metadata

    def _figures(self) -> dict[str, int | float]:
        model, _ = self._ready()
        training, validation = ([scored(model, query) for query in queries] for queries in self._records)
        return {**figures(training, model.policy, "training"), **figures(validation, model.policy, "validation")}

    def _explain(self, folder: Path) -> list[Path]:
        model, _ = self._ready()
        return [write_explanations(folder / "lero_validation.jsonl", [scored(model, query) for query in self._records[1]], model.policy)]

    def _start_noting(self, training: Training) -> list[Path]:
        """Start the log of choices and, in the dynamic mode, the list of queries and the log of updates."""
        self._training = training
        self._noted.clear()
        self._seen = _Seen(training.settings.update_every, self._recorded()) if training.options["dynamic"] else None
        private_folder(training.folder)
        paths = [training.folder / name for name in (CHOICES, UPDATES)[: 1 if self._seen is None else 2]]
        for path in paths:
            write_private(path, "")
        return paths

    def _recorded(self) -> set[str]:
        """Return the `sql_key` of every training and validation query."""
        return {query.sql_key for part in self._records for query in part}

    def _note(self, query: Query, choice: Choice) -> None:
        """Log the first choice for a query."""
        if self._training is None or query.sql in self._noted:
            return
        self._noted.add(query.sql)
        with open_private(self._training.folder / CHOICES, "a", encoding="utf-8") as file:
            file.write(json.dumps(choice.explained(query.id)) + "\n")

    def _update_if_due(self, seen: _Seen) -> None:
        """Collect the queries since the last update and learn on, if they are enough."""
        if len(seen.queries) < seen.every or self._training is None:
            return
        training, started_s = self._training, perf_counter()
        rules = rules_of(training)
        queries, seen.queries = seen.queries, []
        store = store_of(training, rules)
        try:
            found = collect(training, queries, store, rules)
        finally:
            training.close()  # so that no worker runs during the measurements that follow
        self._learn_from(found, training, len(queries), collection_s=perf_counter() - started_s)
        seen.known |= self._recorded()

    def _observed(self, key: str) -> CollectedQuery:
        """Return a statement with the times of its plans that ran on the way; nothing is known of the others."""
        query, candidates = self._met[key]
        seen = self._experience.seen[key]
        times = [seen.get(frozenset(candidates.cardinalities(plan).items()) if plan else OWN) for plan in range(len(candidates.plans))]
        outcomes = [Outcome(censored_ms=0.0) if ms is None else Outcome(times_ms=(ms,)) for ms in times]
        return collected(query, signature_of(query.sql), candidates, outcomes)

    def _learn_from(self, found: Sequence[CollectedQuery], training: Training, queries: int, *, collection_s: float) -> None:
        """Continue the training with more queries, save the model, and log the update."""
        rules = rules_of(training)
        if not any(self._records):  # a loaded model: its training queries, as far as the store has them
            store = store_of(training, rules)
            self._records = (known(training.queries, store), known(validation_queries(training), store))
        recorded = self._recorded()
        self._records = ([*self._records[0], *(query for query in found if query.sql_key not in recorded)], self._records[1])
        self._updates += 1
        done = trained(*self._records, training=training, rules=rules, advance=lambda steps: None, start=self.model)
        self._take(done, training)
        rmtree(training.folder / UPDATED, ignore_errors=True)
        self.save(training.folder / UPDATED)
        about = {
            "update": self._updates,
            "model_id": self.model_id,
            "queries": queries,
            "collection_time_seconds": collection_s,
            **done.scalars,
            **self._figures(),
        }
        with open_private(training.folder / UPDATES, "a", encoding="utf-8") as file:
            file.write(json.dumps(about) + "\n")
        logger.info("lero update %d with %s: %s", self._updates, counted(queries, "query", "queries"), about)


def validation_queries(training: Training) -> Sequence[Query]:
    """Return the validation queries to collect: a fifth of the number of training queries, at least `LEAST_VALIDATION`."""
    return training.validation[: max(LEAST_VALIDATION, len(training.queries) // 5)]
