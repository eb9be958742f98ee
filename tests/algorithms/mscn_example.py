"""A small schema with samples, queries and made-up labels, for tests of mscn that need no server."""

from __future__ import annotations

from random import Random

from pytest_pilotscope.algorithms.devices import seeded
from pytest_pilotscope.algorithms.mscn.estimation import TrainedModel
from pytest_pilotscope.algorithms.mscn.featurize import Featurizer
from pytest_pilotscope.algorithms.mscn.model import MscnNetwork
from pytest_pilotscope.algorithms.mscn.ragged import LabelledSubplans, labelled
from pytest_pilotscope.algorithms.mscn.vocabulary import Vocabulary
from pytest_pilotscope.algorithms.table_samples import Samples, TableSample
from pytest_pilotscope.queries.joins import JoinQuery
from pytest_pilotscope.queries.plainparser import read_plain

SCHEMA = {
    "users": {"id": "integer", "age": "integer", "name": "text", "born": "timestamp without time zone"},
    "posts": {"id": "integer", "userid": "integer", "score": "integer"},
    "votes": {"id": "integer", "postid": "integer", "userid": "integer"},
}
RANGES = {
    "users": {"id": (0.0, 199.0), "age": (0.0, 99.0), "born": (0.0, 1e15)},
    "posts": {"id": (0.0, 199.0), "userid": (0.0, 199.0), "score": (-10.0, 90.0)},
    "votes": {"id": (0.0, 199.0), "postid": (0.0, 199.0), "userid": (0.0, 199.0)},
}
SAMPLE_ROWS = 250
SIZE = 200

JOINS = (
    ("users u, posts p", "u.id = p.userid"),
    ("users u, votes v", "u.id = v.userid"),
    ("posts p, votes v", "p.id = v.postid"),
    ("users u, posts p, votes v", "u.id = p.userid AND p.id = v.postid"),
    ("users u, users w, posts p", "u.id = p.userid AND w.id = p.userid"),
)


def samples() -> Samples:
    """200 rows per table, of which every tenth value is NULL except in ids."""
    drawn = Random(1)  # noqa: S311  # test data
    tables = {}
    for table, types in SCHEMA.items():
        columns = {name: [value(drawn, name, row) for row in range(SIZE)] for name in types}
        tables[table] = TableSample(table, types, columns)
    return Samples(tables, rows=SAMPLE_ROWS)


def value(drawn: Random, column: str, row: int) -> str | None:
    """PostgreSQL's text of one value."""
    if column == "id":
        return str(row)
    if drawn.random() < 0.1:
        return None
    if column == "name":
        return "".join(drawn.choices("ab%", k=3))
    if column == "born":
        return f"20{drawn.randrange(10, 24)}-0{drawn.randrange(1, 9)}-15 12:00:00"
    return str(drawn.randrange(-10, 90) if column == "score" else drawn.randrange(100))


def featurizer(*, bitmaps: bool = True) -> Featurizer:
    """A featurizer of the schema."""
    return Featurizer(Vocabulary(schema=SCHEMA, ranges=RANGES), samples() if bitmaps else None)


def untrained(*, bitmaps: bool = True) -> TrainedModel:
    """A model with random weights."""
    made = featurizer(bitmaps=bitmaps)
    with seeded(5):
        network = MscnNetwork(made.widths, hidden=8)
    network.set_label_range(0.0, 12.0, 5.0)
    return TrainedModel(vocabulary=made.vocabulary, samples=made.samples, network=network)


def queries(count: int, *, seed: int = 0) -> list[JoinQuery]:
    """Joins of two or three relations, self-joins among them, with up to two predicates."""
    drawn = Random(seed)  # noqa: S311  # test data
    made: list[JoinQuery] = []
    for _ in range(count):
        sources, joined = drawn.choice(JOINS)
        filters = [f" AND u.age < {drawn.randrange(100)}"] if "u," in sources else []
        filters += [f" AND p.score >= {drawn.randrange(-10, 90)}"] if "posts p" in sources and drawn.random() < 0.5 else []
        made.append(read_plain(f"SELECT COUNT(*) FROM {sources} WHERE {joined}{''.join(filters)}", SCHEMA))
    return made


def counted(parsed: list[JoinQuery]) -> list[tuple[JoinQuery, dict[int, int]]]:
    """Rows that follow from the text: more relations, more rows; a smaller age, fewer."""
    return [(query, {mask: 7 ** mask.bit_count() * (1 + len(query.sql) % 13) for mask in query.masks}) for query in parsed]


def training_set(count: int, *, seed: int = 0, bitmaps: bool = True) -> LabelledSubplans:
    """Labelled subplans of some queries."""
    return labelled(featurizer(bitmaps=bitmaps), counted(queries(count, seed=seed)))
