"""Lero from Python, without pytest: the preset schedulers on a small generated database."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from pytest_pilotscope.algorithms import get_lero_dynamic_preset_scheduler, get_lero_preset_scheduler
from pytest_pilotscope.algorithms.lero.chooser import Lero
from pytest_pilotscope.algorithms.lero.saved_ranker import model_metadata, read_model
from pytest_pilotscope.builtins import load_workload
from pytest_pilotscope.errors import UsageError
from pytest_pilotscope.provision.database import PostgreSQLConfig

SMALL = PostgreSQLConfig("stats_tiny", server="embedded", scale=0.01)
FEW: dict[str, Any] = {"num_collection": 4, "num_epoch": 2, "use_mlflow": False}


@pytest.mark.slow
def test_it_trains_executes_and_learns_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statement has its answer; after three different ones the model is another one, and what was learned on the way is kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    scheduler, tracker = get_lero_dynamic_preset_scheduler(SMALL, update_every=3, **{**FEW, "use_mlflow": True})
    assert tracker is not None
    queries = load_workload("stats_tiny", scale=0.01).test[:4]
    lero = scheduler.algorithm
    assert isinstance(lero, Lero)
    with scheduler:
        first = lero.model
        assert first is not None
        for query in (*queries[:3], queries[0]):
            result = scheduler.execute(query.sql)
            assert len(result.rows) == 1
            assert result.inference_ms > 0
        assert lero.model is first
        scheduler.execute(queries[3].sql)
        assert lero.model is not first
        text = "scheduler.execute runs one statement, and these are 2: SELECT 1; DELETE FROM users; execute one after the other"
        with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
            scheduler.execute("SELECT 1; DELETE FROM users")
        assert scheduler.execute("SELECT count(*) > 0 FROM users").rows == [(True,)]
    assert lero.model is not None
    kept = Path(tracker.client.download_artifacts(str(tracker.run_id), "", str(tmp_path)))
    (update,) = [json.loads(line) for line in (kept / "lero_updates.jsonl").read_text(encoding="utf-8").splitlines()]
    last = read_model(kept / "updated")
    assert model_metadata(kept / "updated").model_id == update["model_id"] == lero.model_id
    assert torch.equal(last.network.output.weight, lero.model.network.output.weight)
    assert len((kept / "lero_choices.jsonl").read_text(encoding="utf-8").splitlines()) == 5


def test_the_usual_scheduler_does_not_learn_on() -> None:
    """Nothing is started before `with`, and the dynamic mode is off."""
    scheduler, _ = get_lero_preset_scheduler(SMALL, **FEW)
    assert isinstance(scheduler.algorithm, Lero)
    assert (scheduler.settings.options["lero"]["dynamic"], scheduler.settings.collection_size, scheduler.settings.epochs) == (False, 4, 2)
