"""Databases with workloads, on every PostgreSQL there is, with the library and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_pilotscope.datasets.stats import StatsDataset
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query
from tests.conftest import LibraryOf

from .corpora import MODES, Corpus, load_dump

Load = Callable[[Session], None]


@pytest.fixture(scope="session")
def library(server: EmbeddedServer, library_of: LibraryOf) -> Path:
    """Return the library for the server of the test."""
    return library_of(server)


@pytest.fixture
def steered(scratch: Session, library: Path) -> Session:
    """Open a session with the library in an empty database of its own."""
    scratch.execute(f"LOAD '{library}'")
    return scratch


@pytest.fixture(scope="session")
def generated() -> tuple[StatsDataset, tuple[Query, ...]]:
    """Open a small generated STATS database with its test queries."""
    dataset = StatsDataset(name="steering", scale=0.01)
    return dataset, dataset.workload().test


def _opened(server: EmbeddedServer, library: Path, name: str, queries: tuple[Query, ...], load: Load) -> Iterator[Corpus]:
    with server.connect() as administrator:
        administrator.execute(f"CREATE DATABASE {name}")
        with server.connect(name) as stock, server.connect(name) as steered:
            load(stock)
            stock.execute("SET default_statistics_target = 10000")
            stock.execute("VACUUM ANALYZE")
            stock.execute("RESET default_statistics_target")
            stock.execute("RESET search_path")
            steered.execute(f"LOAD '{library}'")
            yield Corpus(name=name, queries=queries, steered=steered, stock=stock)
        administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def generated_corpus(server: EmbeddedServer, library: Path, generated: tuple[StatsDataset, tuple[Query, ...]]) -> Iterator[Corpus]:
    """Return the generated workload: 146 queries of 2 to 8 relations."""
    dataset, queries = generated
    yield from _opened(server, library, "proof_generated", queries, dataset.load)


@pytest.fixture(scope="session")
def stats_corpus(server: EmbeddedServer, library: Path, shared_data: Path) -> Iterator[Corpus]:
    """Open a sample of the real STATS data with the 146 queries of STATS-CEB."""
    lines = (shared_data / "stats_tiny" / "test.sql").read_text(encoding="utf-8").splitlines()
    queries = tuple(Query(id=str(number), sql=sql) for number, sql in enumerate(lines, start=1))
    yield from _opened(
        server, library, "proof_stats", queries, lambda session: load_dump(session, shared_data / "stats_tiny" / "stats_tiny.sql")
    )


@pytest.fixture(scope="session")
def imdb_corpus(server: EmbeddedServer, library: Path, shared_data: Path) -> Iterator[Corpus]:
    """Open a sample of IMDB with queries of the Join Order Benchmark: self-joins, LIKE, OR, up to 17 relations."""
    paths = sorted((shared_data / "imdb_tiny" / "queries").glob("*.sql"))
    queries = tuple(Query(id=path.stem, sql=path.read_text(encoding="utf-8").strip().rstrip(";")) for path in paths)
    yield from _opened(
        server, library, "proof_imdb", queries, lambda session: load_dump(session, shared_data / "imdb_tiny" / "imdb_tiny.sql")
    )


@pytest.fixture(scope="session", params=["generated", "stats", "imdb"])
def corpus(request: pytest.FixtureRequest, server: EmbeddedServer, library: Path) -> Corpus:
    """Each of the three corpora in turn."""
    found = request.getfixturevalue(f"{request.param}_corpus")
    assert isinstance(found, Corpus)
    return found


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, corpus: Corpus) -> Iterator[str]:
    """Set a way to plan in both sessions of the corpus."""
    settings = MODES[request.param]
    corpus.set(settings)
    yield str(request.param)
    for session in (corpus.steered, corpus.stock):
        for name in settings:
            session.execute(f"RESET {name}")
