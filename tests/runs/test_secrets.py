"""A planted secret is in nothing that a run shows or writes, even with pytest's --showlocals."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_pilotscope.postgres.embedded import EmbeddedServer
from tests.projects import BENCHMARK

PLANTED = "pl4nted"

FAILING = """
    import pytest
    from pytest_pilotscope.options.settings import Settings
    from pytest_pilotscope.provision.database import PostgreSQLConfig

    class Bad:
        name = "bad"

        def train(self, training):
            settings, config, session = training.settings, training.database.config, training.session
            raise ValueError("broken on purpose")

        def prepare(self, database):
            raise AssertionError

    def pytest_pilotscope_register(registry):
        registry.add_algorithm("bad", Bad, origin=__name__)
"""


def found(folder: Path, secret: str) -> list[str]:
    """Return the files below a folder that hold a text."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and secret.encode() in path.read_bytes()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "store",
    [
        f"http://me:{PLANTED}@127.0.0.1:1/?token={PLANTED}&x={{}}",
        f"http://me:1/{PLANTED}@x@127.0.0.1:1",
        f"http://{PLANTED}@127.0.0.1:1",
        f"postgresql://me:{PLANTED}@127.0.0.1:1/mlflow",
        f"postgresql://me:a@{PLANTED}@127.0.0.1:1/mlflow",
    ],
)
@pytest.mark.parametrize("algorithm", ["baseline", "bad"])
def test_a_planted_secret(store: str, algorithm: str, pytester: pytest.Pytester, newest_server: EmbeddedServer) -> None:
    """It is in no output, record, page, summary or log, whether the run ends well or in a traceback with all variables."""
    pytester.makepyfile(test_workload=BENCHMARK)
    pytester.makeconftest(FAILING)
    (pytester.path / "mine.sql").write_text("SELECT count(*) FROM pg_class;\n")
    dsn = f"postgresql://postgres:{PLANTED}@/postgres?host={newest_server._sockets}&password={PLANTED}"
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, PLANTED)
        patch.delenv("PYTEST_XDIST_WORKER", raising=False)
        shown = ("--showlocals", "--full-trace", "-vv", "-rA", "--report", "page.html", "--benchmark-json", "b.json", "--junitxml", "j.xml")
        workload = ("--queries-dir", "mine.sql", "--generate-training", "0", "--rounds", "1", "--algo", algorithm)
        result = pytester.runpytest_subprocess(*shown, *workload, "--server", dsn, "--tracking-uri", store)
    assert PLANTED not in result.stdout.str() + result.stderr.str()
    assert found(pytester.path, PLANTED) == []
    if algorithm == "bad":
        result.stdout.fnmatch_lines(["*broken on purpose*"])
    for path in (pytester.path / "results").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0
