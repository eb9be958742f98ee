"""A dataset of a few kilobytes, for tests of everything around datasets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytest_pilotscope.postgres.session import Session
from pytest_pilotscope.queries.queries import Query, Workload


@dataclass(frozen=True, kw_only=True)
class Toy:
    """Two tables of `rows` rows with a foreign key; `during` is called when they are loaded, `backwards` loads them in reverse order."""

    rows: int = 100
    backwards: bool = False
    during: Callable[[], None] = lambda: None
    test_queries: int = 1
    name: str = "toy"
    database: str = "toy"

    @property
    def key(self) -> str:
        """By everything that changes what is loaded."""
        return f"toy-{self.rows}-{self.backwards}"

    def load(self, session: Session) -> None:
        """Make and fill the tables `a` and `b`."""
        session.execute("CREATE TABLE a (id int PRIMARY KEY, v int, t text)")
        session.execute("CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a, w text)")
        order = "DESC" if self.backwards else "ASC"
        session.execute(f"INSERT INTO a SELECT i, i % 10, 'text ' || i FROM generate_series(1, {self.rows}) i ORDER BY i {order}")
        self.during()
        session.execute(f"INSERT INTO b SELECT i, i / 2 + 1, repeat('x', 20) FROM generate_series(1, {self.rows}) i ORDER BY i {order}")
        session.execute("CREATE INDEX ON b (a)")

    def workload(self) -> Workload:
        """One query per split, and as many test queries as there are to be."""
        made = range(2 + self.test_queries)
        queries = [Query(id=f"q{i}", sql=f"SELECT count(*) FROM a JOIN b ON b.a = a.id WHERE a.v = {i}") for i in made]
        return Workload(dataset=self.name, train=(queries[0],), validation=(queries[1],), test=tuple(queries[2:]))
