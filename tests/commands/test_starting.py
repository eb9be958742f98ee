"""`pilotscope init` writes a project that works as it is: its contract holds, its algorithm can be measured, its job runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.commands.conftest import Command
from tests.projects import SMALL

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    "conftest.py",
    "tests/test_contract.py",
    "benchmarks/test_workload.py",
    ".github/workflows/benchmarks.yml",
    "pytest.ini",
    "requirements.txt",
]


def run(folder: Path, *arguments: str) -> str:
    """Run pytest in a project and return its output; it has to succeed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MLFLOW_"))}
    environment["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_files(pilotscope: Command, workplace: Path) -> None:
    """They are named, with the next commands; what is there already is not touched, and then nothing is written."""
    result = pilotscope("init", "mine")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        *(f"mine/{name}" for name in FILES),
        "test the contract of the algorithm: cd mine && pytest",
        "measure it: cd mine && pytest benchmarks --algo baseline,mine --db stats_tiny",
    ]
    (workplace / "pytest.ini").write_text("[pytest]\n")
    result = pilotscope("init")
    assert (result.exit_code, result.stderr) == (2, "Error: .: pytest.ini is there already; name another folder, or move it away\n")
    assert sorted(path.name for path in workplace.iterdir()) == ["mine", "pytest.ini"]
    (workplace / "pytest.ini").unlink()
    assert json.loads(pilotscope("init", "--json").stdout) == FILES
    assert (workplace / "benchmarks/test_workload.py").read_bytes() == (ROOT / "benchmarks/test_workload.py").read_bytes()


def test_the_job_uses_what_is_there(pilotscope: Command, workplace: Path) -> None:
    """The job is YAML; it installs the requirements, tests, measures base and head, and keeps what they write."""
    pilotscope("init")
    steps = yaml.safe_load((workplace / ".github/workflows/benchmarks.yml").read_text())["jobs"]["gate"]["steps"]
    commands = [step["run"] for step in steps if "run" in step]
    assert commands[:2] == ["python -m pip install --quiet --requirement requirements.txt", "python -m pytest"]
    assert all("benchmarks --algo mine --db stats_tiny --no-mlflow" in command for command in commands[2:])
    assert "--gate base-results --report report.html" in commands[3]
    assert '--results "$GITHUB_WORKSPACE/base-results"' in commands[2]
    assert steps[-1]["with"]["path"].split() == ["report.html", "results/", "base-results/"]


@pytest.mark.slow
def test_the_project_works(pilotscope: Command, workplace: Path, cache: Path) -> None:
    """As it was written, the algorithm keeps its contract, and it is trained, steered and measured."""
    pilotscope("init", "my project")
    folder = workplace / "my project"
    assert " passed" in run(folder)
    printed = run(folder, "benchmarks", "--algo", "mine", "--no-mlflow", "--limit", "3", "--mine-queries", "12", *SMALL)
    assert "mine_stats_tiny_" in printed
    (record,) = (folder / "results").glob("*.jsonl")
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    (training,) = [line for line in lines if line["kind"] == "training"]
    assert training["num_training"] == 12
    assert {line["steered_ratio"] for line in lines if line["kind"] == "query_report" and line["side"] == "mine"} == {1.0}
