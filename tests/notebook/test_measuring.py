"""Measuring from a script and from a notebook, with a real PostgreSQL."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode, read

from pytest_pilotscope import benchmark, read_results
from pytest_pilotscope.errors import TooManyLeft, UnknownName, UsageError
from pytest_pilotscope.learning.algorithm import Cardinalities
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.record.results import TrainingReport

DOCS = Path(__file__).resolve().parents[2] / "docs"
FEW: dict[str, Any] = {"scale": 0.01, "limit": 3, "rounds": 2, "mlflow": False}


class Doubled:
    """Twice PostgreSQL's own estimates."""

    name = "doubled"
    learns = False

    def __init__(self, factor: float = 2.0) -> None:
        self.factor = factor

    def train(self, training: Training) -> TrainingReport:
        """Learn nothing."""
        return TrainingReport(side=self.name, duration_s=0.0, num_training=0)

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Return all estimates times the factor."""
        return {aliases: self.factor * rows for aliases, rows in subplans.items()}


@pytest.fixture
def here(tmp_path: Path, prepared_cache: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_an_object_is_measured_and_its_record_read_again(here: Path) -> None:
    """`read_results` reads later what `benchmark` returned."""
    result = benchmark(Doubled(factor=3.0), **FEW)
    assert result.summary.set_index("side").status.to_dict() == {"baseline": "FINISHED", "doubled": "FINISHED"}
    rows = result.subplans.set_index(["query_id", "aliases", "side"]).estimated.unstack()
    assert len(rows) > 3
    assert (rows.doubled == 3 * rows.baseline).all()
    assert read_results("results").records == result.records


@pytest.mark.slow
def test_a_query_that_fails_is_a_warning(here: Path) -> None:
    """The others are measured; nobody has to look for it."""
    (here / "own.sql").write_text("SELECT count(*) FROM users; SELECT 1 / (count(*) - count(*)) FROM users;", encoding="utf-8")
    with pytest.warns(UserWarning, match=r"^q002: .*division by zero"):
        result = benchmark("baseline", queries_dir="own.sql", generate_training=0, **FEW)
    assert result.queries.set_index(["query_id", "side"]).error.notna().to_dict() == {
        ("q001", "baseline"): False,
        ("q001", "baseline-again"): False,
        ("q002", "baseline"): True,
        ("q002", "baseline-again"): True,
    }


class Partial(Doubled):
    """Knows one subplan of each query, and does not say what it leaves out."""

    name = "partial"

    def steer(self, query: Query, subplans: Cardinalities) -> Cardinalities:
        """Return the first estimate only."""
        return dict(list(subplans.items())[:1])


@pytest.mark.slow
def test_what_was_measured_before_an_error_can_be_read(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that fails at its end has a complete record, and the user is told the call that reads it."""
    with pytest.raises(TooManyLeft, match=r"^partial left 3 of 3 queries \(100\.0%\) to PostgreSQL, "):
        benchmark(Partial(), **FEW)
    (path,) = Path("results").glob("*.jsonl")
    assert f"pilotscope: what was measured is kept: read_results({str(path)!r})\n" in re.sub(r"\x1b\[K", "", capsys.readouterr().err + "\n")
    assert len(read_results(str(path)).queries) == 6


@pytest.mark.slow
def test_several_take_turns_in_one_run(here: Path) -> None:
    """A class and a name; one baseline for both."""
    result = benchmark([Doubled, "oracle,baseline", "oracle"], **FEW)
    (record,) = result.records
    assert record.header.sides == ("baseline", "doubled", "oracle")


def test_wrong_arguments_are_refused_before_anything_starts(here: Path) -> None:
    """Names as the command line refuses them, values too, and what is no algorithm."""
    with pytest.raises(
        UnknownName, match=r"^unknown option 'limt' of benchmark\(\); did you mean 'limit' or 'split'\? known: allow_changes, "
    ):
        benchmark("mscn", limt=3)
    with pytest.raises(UsageError, match=r"^limit: expected a whole number of at least 1, got 'x'$"):
        benchmark("mscn", limit="x")
    with pytest.raises(UsageError, match=r"^benchmark measures an algorithm with a `name` and a method `train`, or a name, got 3$"):
        benchmark(3)  # type: ignore[arg-type]
    assert list(here.iterdir()) == []


def _run(notebook: NotebookNode, folder: Path) -> list[str]:
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    return [json.dumps(cell.get("outputs", [])) for cell in notebook.cells]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_the_example_notebook_runs(here: Path) -> None:
    """From data to figures: tables, three plots' images, and the table of a paper."""
    notebook = read(DOCS / "notebook.ipynb", as_version=4)
    printed = "".join(_run(notebook, here))
    assert "compare_stats_tiny_" in printed
    assert printed.count("image/png") == 2
    assert r"\\toprule" in printed.replace("\\\\\\\\", "\\\\")


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # Jupyter's own
def test_the_page_runs_in_a_notebook_as_written(here: Path) -> None:
    """Each block is a cell, on a smaller database."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "notebook.md").read_text(encoding="utf-8"), re.DOTALL)
    smaller = 'db="stats_tiny", scale=0.01, rounds=2, epochs=2, training_size=50'
    notebook = read(DOCS / "notebook.ipynb", as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "code"][: len(blocks)]
    for cell, block in zip(notebook.cells, blocks, strict=True):
        cell.source = block.replace('db="stats_tiny"', smaller).replace("limit=40", "limit=6")
    printed = _run(notebook, here)
    assert "<progress" in printed[0] or "HTML" in printed[0]
    assert "image/png" in printed[-1]
