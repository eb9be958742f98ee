"""Libraries that take seconds to import are not imported before somebody needs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.projects import measure

WATCHING = """
    import sys
    from pathlib import Path

    HEAVY = {"mlflow", "sqlalchemy", "matplotlib", "scipy", "sklearn", "pandas", "torch", "sqlglot", "smac"}

    class Watching:
        name = "watching"

        def train(self, training):
            self.note("train")
            return training.report()

        def steer(self, query, subplans):
            self.note("steer")
            return dict(subplans)

        def note(self, where):
            with open("loaded.txt", "a") as file:
                print(where, *sorted(HEAVY & sys.modules.keys()), file=file)

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("watching", Watching, origin="tests")

    def pytest_unconfigure():
        print("at the end", *sorted({"mlflow", "torch"} & sys.modules.keys()))
"""


@pytest.mark.slow
def test_a_run_that_learns_and_measures_has_nothing_heavy_in_memory(pytester: pytest.Pytester) -> None:
    """MLflow is imported when the record is complete, and is sent what it says; PyTorch by algorithms that use it."""
    result = measure(pytester, "--algo", "watching", "--limit", "3", "-s", conftest=WATCHING)
    assert result.ret == 0
    assert set(Path(pytester.path, "loaded.txt").read_text().splitlines()) == {"train", "steer"}
    result.stdout.fnmatch_lines(["*at the end mlflow"])
