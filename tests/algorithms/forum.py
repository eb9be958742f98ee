"""A small database on which the order of joins matters: users, their posts, comments and votes, most of them on few posts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.learning.training import Training
from pytest_pilotscope.options.progress import silent
from pytest_pilotscope.options.settings import Settings
from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.provision.database import Database
from pytest_pilotscope.queries.queries import Query, Workload

_STATEMENTS = (
    "CREATE TABLE users (id int PRIMARY KEY, age int)",
    "CREATE TABLE posts (id int PRIMARY KEY, userid int, score int)",
    "CREATE TABLE comments (id int PRIMARY KEY, postid int, userid int, score int)",
    "CREATE TABLE votes (id int PRIMARY KEY, postid int, kind int)",
    "INSERT INTO users SELECT i, i * 7 % 80 FROM generate_series(1, 800) AS i",
    "INSERT INTO posts SELECT i, i * i % 800 + 1, i % 50 FROM generate_series(1, 3000) AS i",
    "INSERT INTO comments SELECT i, sqrt(i * 700)::int % 3000 + 1, i * 13 % 800 + 1, i % 20 FROM generate_series(1, 9000) AS i",
    "INSERT INTO votes SELECT i, sqrt(i * 700)::int % 3000 + 1, i % 10 FROM generate_series(1, 12000) AS i",
    "CREATE INDEX ON posts (userid)",
    "CREATE INDEX ON comments (postid)",
    "CREATE INDEX ON votes (postid)",
)
_JOINS = (
    ("users AS u, posts AS p, comments AS c", "u.id = p.userid AND p.id = c.postid"),
    ("posts AS p, comments AS c, votes AS v", "p.id = c.postid AND p.id = v.postid"),
    ("users AS u, posts AS p, comments AS c, votes AS v", "u.id = p.userid AND p.id = c.postid AND p.id = v.postid"),
    ("posts AS p, votes AS v", "p.id = v.postid"),
)
_FILTERS = {"u": "u.age < {}", "p": "p.score < {}", "c": "c.score < {}", "v": "v.kind = {}"}


@dataclass(frozen=True, kw_only=True)
class Forum:
    """800 users, 3000 posts, 9000 comments, 12,000 votes."""

    name: str = "forum"
    database: str = "forum"
    key: str = "forum-1"

    def load(self, session: Session) -> None:
        """Make and fill the tables."""
        for statement in _STATEMENTS:
            session.execute(statement)

    def workload(self) -> Workload:
        """Joins of two to four relations: 24 for training, 8 for validation and 8 for testing."""
        return Workload(dataset=self.name, train=queries("t", 24), validation=queries("v", 8), test=queries("q", 8))


def queries(split: str, count: int) -> tuple[Query, ...]:
    """Joins with a random filter on each relation."""
    drawn = Random(split)  # noqa: S311  # test data
    made = []
    for number in range(count):
        sources, joined = _JOINS[number % len(_JOINS)]
        aliases = [source.split()[-1] for source in sources.split(", ")]
        filters = [_FILTERS[alias].format(drawn.randrange(1, 12)) for alias in aliases]
        made.append(Query(id=f"{split}{number}", sql=f"SELECT count(*) FROM {sources} WHERE {joined} AND {' AND '.join(filters)}"))
    return tuple(made)


def training(
    database: Database,
    session: Session,
    folder: Path,
    *,
    options: Mapping[str, Any] | None = None,
    algorithm: str = "lero",
    **chosen: Any,
) -> Training:
    """Make the argument of `train`: few epochs unless chosen otherwise, and options of the algorithm."""
    return Training.of(
        Forum().workload(),
        algorithm=algorithm,
        database=database,
        session=session,
        settings=Settings(**{"epochs": 5, **chosen}),
        options=builtin_registry().options(algorithm, {algorithm: options or {}}),
        folder=folder,
        progress=silent,
    )
