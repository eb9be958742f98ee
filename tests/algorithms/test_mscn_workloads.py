"""Every filter of STATS-CEB and JOB: bitmaps count what PostgreSQL counts, and every query is estimated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pytest_pilotscope.algorithms.devices import seeded
from pytest_pilotscope.algorithms.mscn.estimation import TrainedModel
from pytest_pilotscope.algorithms.mscn.featurize import Featurizer
from pytest_pilotscope.algorithms.mscn.meaning import text_says
from pytest_pilotscope.algorithms.mscn.model import MscnNetwork
from pytest_pilotscope.algorithms.mscn.vocabulary import Vocabulary, read_ranges
from pytest_pilotscope.algorithms.table_samples import Samples, draw
from pytest_pilotscope.postgres.catalog import read_schema
from pytest_pilotscope.postgres.embedded import EmbeddedServer
from pytest_pilotscope.postgres.meaning import read_meaning
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.joins import Schema
from pytest_pilotscope.queries.meaning import Level
from tests.conftest import LibraryOf
from tests.labels.dumps import load_dump

EVERY_ROW = 6000  # more than the largest table of the two dumps has


@contextmanager
def loaded(library_of: LibraryOf, server: EmbeddedServer, dump: Path) -> Iterator[Session]:
    """A session in a database that holds a dump."""
    name = f"mscn_{dump.stem}"
    with server.connect() as administrator:
        administrator.execute(f"CREATE DATABASE {name}")
        with server.connect(name) as session:
            load_dump(session, dump)
            session.execute(f"LOAD '{library_of(server)}'")
            yield session
        administrator.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "pattern", "queries", "by_text"), [("stats_tiny", "*t*.sql", 1146, 61), ("imdb_tiny", "queries/*.sql", 59, 44)]
)
def test_bitmaps_and_estimates(
    newest_server: EmbeddedServer, shared_data: Path, name: str, pattern: str, queries: int, by_text: int, library_of: LibraryOf
) -> None:
    """
    On samples of whole tables each bitmap has as many bits as PostgreSQL finds rows.

    An untrained network estimates every subplan of every query: all kinds of predicates have features. The text of most is enough.
    """
    folder = shared_data / name
    with loaded(library_of, newest_server, folder / f"{name}.sql") as session:
        schema = read_schema(session)
        files = [path for path in sorted(folder.glob(pattern)) if path.stem != name]
        texts = [text for path in files for text in path.read_text(encoding="utf-8").split(";\n") if text.strip()]
        assert len(texts) == queries
        samples = Samples(draw(session, schema, rows=EVERY_ROW), session=session, rows=EVERY_ROW)
        levels = [level for level in (read_meaning(session, text).outermost for text in texts) if level is not None]
        assert len(levels) == queries
        assert_bitmaps(session, samples, levels)
        model = untrained(schema, session, samples)
        some = [level.query for level in levels[:: max(1, queries // 60)]]
        assert all(np.isfinite(model.rows(query, query.masks)).all() for query in some)
        parsed = [model.plain(query.sql) for query in some]
        alike = [
            of is not None and text_says(query, of, query.subplans(), model.featurizer) for query, of in zip(some, parsed, strict=True)
        ]
        assert sum(alike) == by_text


def assert_bitmaps(session: Session, samples: Samples, levels: list[Level]) -> None:
    """Compare the bits of each distinct filter with a COUNT(*)."""
    found = {
        relation.filter_key: (relation, level, 1 << position)
        for level in levels
        for position, relation in enumerate(level.query.relations.values())
    }
    for relation, level, mask in found.values():
        assert samples.bitmap(relation).sum() == session.scalar(level.count_sql(mask).sql), relation.filter_key


def untrained(schema: Schema, session: Session, samples: Samples) -> TrainedModel:
    """A model with random weights."""
    vocabulary = Vocabulary(schema=schema, ranges=read_ranges(session, schema))
    with seeded(0):
        network = MscnNetwork(Featurizer(vocabulary, samples).widths, hidden=8)
    return TrainedModel(vocabulary=vocabulary, samples=samples, network=network)
