"""The jobs for CI of docs/ci.md, run step by step as written: only less is installed and less is measured. It takes some 30 s of CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LESS = "--scale 0.01 --limit 3 --rounds 3 --epochs 2 --training-size 30 --gate-delta 900% --gate-query-delta 900%"
"""Three rounds of three queries on a busy machine say little about time, so only the exact figures are really held."""

PYTHON = """#!/bin/sh
# Stands in for `python -m venv FOLDER`: an environment whose pip looks at what it is given, and whose pytest is that of this test.
mkdir -p "$3/bin" && cp "$STAND_INS/pip" "$STAND_INS/pytest" "$3/bin"
"""
PIP = """#!/bin/sh
[ "$*" = "install --quiet --constraint $4 --editable $6" ] && [ -f "$4" ] && [ -f "${6%%\\[all\\]}/pyproject.toml" ]
"""
PYTEST = f"""#!/bin/sh
echo "$PWD: $*" >> "$STAND_INS/calls"
[ -n "$ONLY_CALLED" ] || exec '{sys.executable}' -m pytest -p no:cacheprovider "$@" {LESS}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A repository with two commits, of which `base` is the older one, and a folder for temporary files."""

    folder: Path
    temporary: Path
    base: str
    environment: Mapping[str, str]

    @property
    def calls(self) -> list[str]:
        """Return the calls of pytest and their folders, in order."""
        text = Path(self.environment["STAND_INS"], "calls").read_text(encoding="utf-8")
        return text.replace(str(self.folder), "<checkout>").replace(str(self.temporary), "<temporary>").splitlines()

    def run(self, script: str, **variables: str) -> str:
        """Run a script in a shell that stops at the first failure; returns what it printed."""
        environment = {**self.environment, **variables}
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture
def checkout(tmp_path: Path, prepared: Path) -> Checkout:
    """The folder of a job: the benchmark and what is installed, checked out at the head of a pull request."""
    folder, temporary, stand_ins = (tmp_path / name for name in ("checkout", "temporary", "stand-ins"))
    for needed in (folder / "benchmarks", temporary, stand_ins):
        needed.mkdir(parents=True)
    for name, text in (("python", PYTHON), ("pip", PIP), ("pytest", PYTEST)):
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    for name in ("benchmarks/test_workload.py", "constraints.txt", "pyproject.toml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "MLFLOW_", "PILOTSCOPE_", "PYTEST_"))}
    environment = {
        **ours,
        "PATH": f"{stand_ins}:{os.environ['PATH']}",
        "STAND_INS": str(stand_ins),
        "PILOTSCOPE_CACHE": str(prepared),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        **{f"GIT_{who}_{what}": "nobody@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    made = Checkout(folder=folder, temporary=temporary, base="", environment=environment)
    base = made.run("git init -q . && git add . && git commit -q -m base && git rev-parse HEAD && git commit -q --allow-empty -m head")
    return Checkout(folder=folder, temporary=temporary, base=base.strip(), environment=environment)


def job(name: str) -> Any:
    """The block of this name."""
    page = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"<!-- {name} -->\n```yaml\n(.*?)```\n<!-- end -->", page, re.DOTALL)
    return yaml.safe_load(block)


def run_github(checkout: Checkout, **variables: str) -> list[str]:
    """Run the steps with the environment that GitHub gives them; returns what each printed."""
    given = {"RUNNER_TEMP": str(checkout.temporary), "GITHUB_WORKSPACE": str(checkout.folder), **variables}
    event = {"${{ github.event.pull_request.base.sha }}": checkout.base}
    steps = [step for step in job("github")["jobs"]["gate"]["steps"] if "run" in step]
    return [checkout.run(step["run"], **given, **{name: event[value] for name, value in step.get("env", {}).items()}) for step in steps]


@pytest.mark.slow
def test_the_github_job_measures_base_and_head_and_gates(checkout: Checkout) -> None:
    """It ends with a gate that passes, and leaves what is to be kept."""
    printed = run_github(checkout)
    assert [line for line in printed[-1].splitlines() if line.startswith("mscn on stats_tiny: gate against the reference: PASSED")]
    keep = job("github")["jobs"]["gate"]["steps"][-1]
    assert keep["if"] == "always()"
    assert all((checkout.folder / path).exists() for path in keep["with"]["path"].splitlines())


def test_the_gitlab_job_does_the_same(checkout: Checkout) -> None:
    """Its script, with `/tmp` elsewhere, calls pytest with the same arguments in the same places, and keeps the same files."""
    run_github(checkout, ONLY_CALLED="1")
    theirs = checkout.calls
    gate = job("gitlab")["gate"]
    script = "\n".join(gate["script"]).replace("/tmp/", f"{checkout.temporary}/")  # noqa: S108 - a container's own
    checkout.run(f"rm -rf {checkout.temporary}/* {checkout.environment['STAND_INS']}/calls")
    checkout.run(script, CI_MERGE_REQUEST_DIFF_BASE_SHA=checkout.base, CI_PROJECT_DIR=str(checkout.folder), ONLY_CALLED="1")
    assert len(theirs) == 2
    assert checkout.calls == theirs
    assert gate["artifacts"]["when"] == "always"
    assert gate["artifacts"]["paths"] == job("github")["jobs"]["gate"]["steps"][-1]["with"]["path"].splitlines()
