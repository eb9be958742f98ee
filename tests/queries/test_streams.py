"""Streams of queries, drawn from a workload."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from pytest_pilotscope.errors import WorkloadError
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.queries.streams import StreamSpec, described_stream, drawn_stream
from pytest_pilotscope.queries.templates import template_of

POOL = tuple(
    Query(id=f"{table}{number}", sql=f"SELECT count(*) FROM a, {table} WHERE a.id = {table}.id AND a.n = {number}")
    for table in "bcdefghi"
    for number in range(3 if table in "bcd" else 1)
)
"""Three templates of three queries and five of one."""

SPEC = StreamSpec(name="s", queries=20, repeated=0.7, exact=0.8, write_every=6, writes=("one", "two"))


def test_a_stream_has_exactly_the_shares_of_its_description() -> None:
    """Of 20 queries 6 are the first of their template, 11 were there before, and 3 have a template that was there with other parameters."""
    steps = drawn_stream(SPEC, POOL, "w", seed=3)
    assert Counter(step.repeat for step in steps) == {"new": 6, "exact": 11, "template": 3}
    assert described_stream(steps) == "20 queries: 6 new, 11 repeated exactly, 3 with other parameters; 3 writes in between"
    assert steps[0].query.id == f"01-{steps[0].original}"
    assert len({step.query.id for step in steps}) == 20
    seen: set[str] = set()
    templates: set[str] = set()
    for step in steps:
        known = (step.query.sql in seen, template_of(step.query.sql) in templates)
        assert known == {"new": (False, False), "exact": (True, True), "template": (False, True)}[step.repeat]
        seen.add(step.query.sql)
        templates.add(template_of(step.query.sql))


def test_writes_take_turns_between_queries() -> None:
    """One runs before the 7th, the 13th and the 19th query, and the first follows the last."""
    steps = drawn_stream(SPEC, POOL, "w", seed=3)
    assert {number: step.write for number, step in enumerate(steps, start=1) if step.write} == {7: "one", 13: "two", 19: "one"}
    assert not any(step.write for step in drawn_stream(replace(SPEC, writes=(), write_every=0), POOL, "w", seed=3))


def test_the_seed_decides() -> None:
    """That of the description comes before that of the run."""
    assert drawn_stream(SPEC, POOL, "w", seed=3) == drawn_stream(SPEC, POOL, "w", seed=3)
    assert drawn_stream(SPEC, POOL, "w", seed=3) != drawn_stream(SPEC, POOL, "w", seed=4)
    assert drawn_stream(replace(SPEC, seed=3), POOL, "w", seed=4) == drawn_stream(SPEC, POOL, "w", seed=3)


@pytest.mark.parametrize(("repeated", "counts"), [(0.0, (5, 0, 0)), (1.0, (1, 4, 0))])
def test_the_first_query_is_new(repeated: float, counts: tuple[int, int, int]) -> None:
    """A stream that only repeats repeats its first query."""
    steps = drawn_stream(StreamSpec(name="s", queries=5, repeated=repeated), POOL, "w", seed=0)
    found = Counter(step.repeat for step in steps)
    assert (found["new"], found["exact"], found["template"]) == counts


def test_templates_with_more_queries_are_taken_if_they_are_needed() -> None:
    """Three new queries and six more of their templates: only the three largest have them."""
    steps = drawn_stream(StreamSpec(name="s", queries=9, repeated=6 / 9, exact=0.0), POOL, "w", seed=0)
    assert {step.original for step in steps} == {f"{table}{number}" for table in "bcd" for number in range(3)}


@pytest.mark.parametrize(
    ("spec", "problem", "share"),
    [
        (StreamSpec(name="s", queries=9, repeated=0.0), "9 templates and 0 more queries of them; {} the 8 largest have 6 more", "repeated"),
        (
            StreamSpec(name="s", queries=8, repeated=7 / 8, exact=0.0),
            "1 template and 7 more queries of them; {} the 1 largest have 2 more",
            "exact",
        ),
    ],
)
def test_too_few_queries_for_a_stream(spec: StreamSpec, problem: str, share: str) -> None:
    """The message says what is needed, what there is, and which share would help."""
    with pytest.raises(WorkloadError) as found:
        drawn_stream(spec, POOL, "w", seed=0)
    problem = problem.format("the test queries of w have 8 templates, and")
    assert str(found.value) == f"--stream s: it needs {problem}; make the stream shorter, or give a larger share for '{share}'"
