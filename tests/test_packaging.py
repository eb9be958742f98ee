"""The files around the code agree with each other: workflows, tox.ini, the site, the lock, the citation. Nothing here takes long."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import pytest_pilotscope
from pytest_pilotscope.commands.cli import cli
from pytest_pilotscope.options import commandline as options

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ANECDOTE = re.compile(r"\d\.\d+ \[\d|\(load \d|at load \d|machine (?:of|with) \d cores|times as fast (?:in total )?\[")
PAGES = sorted(str(path.relative_to(ROOT)) for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
BESIDE_DOCS = {"README.md": "index.md", "CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
FENCED = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^    (?=(?:\w+=\S+ )?(?:pytest|pilotscope|tox) ).*", re.MULTILINE)
OUR_PATH = re.compile(r"`((?:pytest_pilotscope|algorithms|benchmarks|tests|docker|docs)/[\w./-]*)")
COMMAND = re.compile(r"(?<![\w'.-])(pytest|pilotscope|tox) ([^#|&)\n]+)")


def _read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _steps(workflow: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each step of a workflow with its job."""
    for job in yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values():
        for step in job["steps"]:
            yield job, step


def _tox_environments() -> set[str]:
    return {"py", *re.findall(r"^\[testenv:(\w+)\]", _read("tox.ini"), re.MULTILINE)}


def _commands(page: str) -> list[tuple[str, list[str]]]:
    """Return the calls of pytest, pilotscope and tox on a page, as program and arguments."""
    text = _read(page)
    lines = "\n".join((*FENCED.findall(text), *INDENTED.findall(text)))
    return [(program, shlex.split(arguments)) for program, arguments in COMMAND.findall(lines)]


def _leaves(nav: Any) -> Iterator[str]:
    """Yield the pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    else:
        for below in nav.values() if isinstance(nav, dict) else nav:
            yield from _leaves(below)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_what_there_is(workflow: Path) -> None:
    """Every `tox -e` names an environment of tox.ini, every other file that is run can be run."""
    ran = 0
    for job, step in _steps(workflow):
        command = step.get("run", "")
        if command.startswith("tox -e "):
            matrix = job.get("strategy", {}).get("matrix", {}).get("environment", [])
            asked = set(matrix) if "matrix.environment" in command else {command.removeprefix("tox -e ")}
            assert asked
            assert asked <= _tox_environments()
            ran += 1
        elif command.startswith("."):
            assert os.access(ROOT / command, os.X_OK)
            ran += 1
    assert ran


def test_the_workflows_cover_both_ends_of_python_and_every_check() -> None:
    """Tests on 3.10 and 3.13; lint, types, docs, the lock and the wheel."""
    jobs = yaml.safe_load(_read(".github/workflows/tests.yml"))["jobs"]
    assert jobs["tests"]["strategy"]["matrix"] == {"python": ["3.10", "3.13"]}
    assert jobs["checks"]["strategy"]["matrix"] == {"environment": ["lint", "type", "docs", "lock", "wheel"]}


def test_every_action_is_pinned_by_its_major_version() -> None:
    """No action is taken from a branch that may change under us."""
    actions = [step["uses"] for workflow in WORKFLOWS for _, step in _steps(workflow) if "uses" in step]
    assert actions
    assert [action for action in actions if not re.fullmatch(r"[\w/-]+@(release/)?v\d+", action)] == []


def test_only_the_job_that_publishes_may_ask_for_an_identity() -> None:
    """It publishes what another job has built, and holds no password."""
    release = yaml.safe_load(_read(".github/workflows/release.yml"))
    assert release["permissions"] == {"contents": "read"}
    assert "permissions" not in release["jobs"]["build"]
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert release["jobs"]["publish"]["needs"] == "build"
    assert release["jobs"]["publish"]["steps"][-1] == {"uses": "pypa/gh-action-pypi-publish@release/v1"}


def test_the_citation_names_this_version() -> None:
    """CITATION.cff and pyproject.toml have the same version."""
    (version,) = re.findall(r'^version = "(.+)"$', _read("pyproject.toml"), re.MULTILINE)
    assert yaml.safe_load(_read("CITATION.cff"))["version"] == version


def test_the_navigation_has_every_page_once() -> None:
    """All of docs/, and the three pages that are made from files beside it."""
    listed = sorted(_leaves(yaml.safe_load(_read("mkdocs.yml"))["nav"]))
    assert listed == sorted(BESIDE_DOCS.get(page, page.removeprefix("docs/")) for page in PAGES)


def test_the_site_begins_with_the_ways_in() -> None:
    """Four ways in, then concepts, guides, reference, help and the appendix, in this order."""
    nav = yaml.safe_load(_read("mkdocs.yml"))["nav"]
    assert [title for part in nav for title in part] == [
        "Start",
        "Concepts",
        "Guides",
        "Algorithms",
        "Reference",
        "Help",
        "Appendix",
        "Project",
    ]
    assert [title for entry in nav[0]["Start"][:4] for title in entry] == ["Try it (2 minutes)", "My database", "My algorithm", "My CI"]
    assert nav[5] == {"Help": ["troubleshooting.md", "glossary.md"]}


def test_single_measurements_are_in_the_appendix() -> None:
    """No page of an algorithm, and no guide, tells a measured interval or the machine and the load of one run."""
    nav = {title: entries for part in yaml.safe_load(_read("mkdocs.yml"))["nav"] for title, entries in part.items()}
    pages = [page for part in ("Concepts", "Guides", "Algorithms", "Help") for page in nav[part]]
    prose = {page: re.sub(r"^```.*?^```$", "", _read(f"docs/{page}"), flags=re.MULTILINE | re.DOTALL) for page in pages}
    assert {page: told for page, text in prose.items() if (told := ANECDOTE.findall(text))} == {}


def test_every_path_on_a_page_exists() -> None:
    """The files and folders that README, CONTRIBUTING and docs name in code are in the repository."""
    named = {(page, path) for page in PAGES for path in OUR_PATH.findall(_read(page))}
    assert len(named) > 50
    assert sorted(f"{page}: {path}" for page, path in named if not (ROOT / path).exists()) == []


def test_the_reference_has_every_public_name() -> None:
    """The page of the package documents exactly `pytest_pilotscope.__all__`."""
    documented = re.findall(r"^::: pytest_pilotscope\.(\w+)$", _read("docs/api/pytest_pilotscope.md"), re.MULTILINE)
    assert documented == pytest_pilotscope.__all__


@pytest.mark.parametrize("page", [page for page in PAGES if _commands(page)])
def test_the_commands_of_a_page_are_understood(pytester: pytest.Pytester, page: str) -> None:
    """The parsers of pytest and of pilotscope take them as they stand, and tox has the environments."""
    pytester.mkdir("my_queries")  # a user's folder that pages name
    for program, arguments in _commands(page):
        if program == "pytest":
            options.settings(pytester.parseconfig(*arguments))
        elif program == "tox":
            assert set(arguments[1].split(",")) <= _tox_environments()
        else:
            command: click.Command | None = cli
            while isinstance(command, click.Group):
                _, command, arguments = command.resolve_command(click.Context(command), arguments)
            assert command is not None
            command.make_context(program, arguments).close()


def test_the_lock_is_up_to_date() -> None:
    """`uv lock` would not change uv.lock; checked without the network."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    check = [sys.executable, "-m", "uv", "lock", "--check", "--offline", "--no-config", "--no-cache", "--python", sys.executable]
    done = subprocess.run(check, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_lock_takes_everything_from_pypi() -> None:
    """No index but PyPI's, no file from anywhere else."""
    assert set(re.findall(r'(?:registry|url) = "(\w+://[^/"]+)', _read("uv.lock"))) == {
        "https://pypi.org",
        "https://files.pythonhosted.org",
    }


def test_pip_and_uv_are_held_to_the_same_releases() -> None:
    """constraints.txt is for pip; uv reads the same from pyproject.toml."""
    (listed,) = re.findall(r"^constraint-dependencies = \[(.*?)\]", _read("pyproject.toml"), re.MULTILINE)
    assert re.findall(r'"(.+?)"', listed) == _read("constraints.txt").splitlines()


def test_commits_are_checked_by_the_tools_of_tox() -> None:
    """pre-commit installs the tools that tox.ini installs."""
    hooks = [hook for repository in yaml.safe_load(_read(".pre-commit-config.yaml"))["repos"] for hook in repository["hooks"]]
    asked = {requirement for hook in hooks for requirement in hook["additional_dependencies"]}
    assert asked == {"ruff>=0.9", "uv>=0.9"}
    assert asked <= set(re.findall(r"^deps = (.+)$", _read("tox.ini"), re.MULTILINE))


@pytest.mark.parametrize("chosen", [["--pyargs", "pytest_pilotscope.benchmarks"], [str(ROOT / "benchmarks")]])
def test_the_benchmarks_are_those_of_databases(chosen: list[str], tmp_path: Path) -> None:
    """In a project of somebody's own, and by an editable installation, too, nothing measures the speed of the suite's own parts."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "--collect-only", "-q", *chosen]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert set(re.findall(r"test_\w+(?=\[)", done.stdout)) == {"test_workload", "test_estimation", "test_inference"}, done.stdout
