"""
Streams: queries in the order in which a database meets them, with repeats and with writes in between.

A share of the queries repeats an earlier one, as in the workloads that Redbench (2025) describes: exactly, or with its template and other
parameters. Lengths and shares are exact, and only the order and the choice of queries are drawn, so the same seed gives the same stream.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from pytest_pilotscope.errors import WorkloadError, counted
from pytest_pilotscope.queries.queries import Query
from pytest_pilotscope.queries.templates import template_of

Repeat: TypeAlias = Literal["new", "exact", "template"]
"""The first query of its template; one that was there before; or another one of a template that was there before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """
    The description of a stream, called `name`.

    It has `queries` in all, of which the share `repeated` repeats an earlier one: the share `exact` of those exactly, the others with other
    parameters. After every `write_every` queries one of the `writes` runs: they take turns.
    """

    name: str
    queries: int
    repeated: float
    exact: float = 1.0
    seed: int | None = None
    write_every: int = 0
    writes: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[Repeat, int]:
        """The number of queries of each kind; the first query of all is always new."""
        repeated = min(round(self.queries * self.repeated), self.queries - 1)
        exact = round(repeated * self.exact)
        return {"new": self.queries - repeated, "exact": exact, "template": repeated - exact}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A query of a stream, under an id of its own. `original` is its id in the workload, and `write` the statement that runs before it."""

    query: Query
    original: str
    repeat: Repeat
    write: str | None = None


def described_stream(steps: Sequence[Step]) -> str:
    """Return the numbers of a stream in words."""
    kinds = Counter(step.repeat for step in steps)
    writes = sum(step.write is not None for step in steps)
    return (
        f"{counted(len(steps), 'query', 'queries')}: {kinds['new']} new, {kinds['exact']} repeated exactly, {kinds['template']} with other "
        f"parameters; {counted(writes, 'write')} in between"
    )


def drawn_stream(spec: StreamSpec, queries: Sequence[Query], dataset: str, seed: int) -> tuple[Step, ...]:
    """Draw a stream from the queries of a dataset; raise `WorkloadError` if it has too few templates, or too few queries of them."""
    rng = random.Random(spec.seed if spec.seed is not None else seed)  # noqa: S311 - not for secrets
    templates: dict[str, list[Query]] = {}
    for query in rng.sample(queries, len(queries)):
        templates.setdefault(template_of(query.sql), []).append(query)
    chosen = _chosen(spec, list(templates.values()), dataset)
    digits, steps = len(str(spec.queries)), []
    for number, (repeat, query) in enumerate(_in_order(spec, chosen, rng), start=1):
        writes = spec.writes if number > 1 and spec.write_every and (number - 1) % spec.write_every == 0 else ()
        write = writes[((number - 1) // spec.write_every - 1) % len(writes)] if writes else None
        own = Query(id=f"{number:0{digits}}-{query.id}", sql=query.sql, place=query.place)
        steps.append(Step(query=own, original=query.id, repeat=repeat, write=write))
    return tuple(steps)


def _chosen(spec: StreamSpec, templates: list[list[Query]], dataset: str) -> list[list[Query]]:
    """Return as many templates as there are new queries; if these have too few other queries, take those that have the most."""
    counts = spec.counts
    chosen = templates[: counts["new"]]
    if sum(len(one) - 1 for one in chosen) < counts["template"]:
        chosen = sorted(templates, key=len, reverse=True)[: counts["new"]]
    others = sum(len(one) - 1 for one in chosen)
    if len(chosen) < counts["new"] or others < counts["template"]:
        raise WorkloadError(
            f"--stream {spec.name}: it needs {counted(counts['new'], 'template')} and {counts['template']} more queries of them; the test "
            f"queries of {dataset} have {counted(len(templates), 'template')}, and the {len(chosen)} largest have {others} more; make the "
            f"stream shorter, or give a larger share for '{'repeated' if len(chosen) < counts['new'] else 'exact'}'"
        )
    return chosen


def _in_order(spec: StreamSpec, templates: list[list[Query]], rng: random.Random) -> Iterator[tuple[Repeat, Query]]:
    """Yield the queries; a kind is drawn by how many of it are left, among those that are possible now."""
    left = dict(spec.counts)
    unseen, seen, unused = list(templates), [], []  # type: list[list[Query]], list[Query], list[Query]
    for _ in range(spec.queries):
        possible = {kind: number for kind, number in left.items() if number and (kind == "new" or (unused if kind == "template" else seen))}
        (kind,) = rng.choices(list(possible), weights=list(possible.values()))
        left[kind] -= 1
        if kind == "exact":
            yield kind, rng.choice(seen)
            continue
        if kind == "new":
            query, *others = unseen.pop(0)
            unused += others
        else:
            query = unused.pop(rng.randrange(len(unused)))
        seen.append(query)
        yield kind, query
