"""Divides the queries of a workload into splits, and checks that no query is in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, combinations, count
from typing import Literal

from pytest_pilotscope.errors import WorkloadError
from pytest_pilotscope.queries.queries import SPLITS, Query, Split, Workload
from pytest_pilotscope.queries.templates import normalized, same_queries, template_of

SHARES: Mapping[Split, float] = {"train": 0.7, "validation": 0.1, "test": 0.2}
"""The share of the queries (or, by template, of the templates) that each split gets."""


def divide(workload: Workload, how: Literal["random", "template"], seed: int) -> Workload:
    """
    Divide all queries of a workload anew, by seed and text only. A query that occurs twice is kept once.

    Raises `WorkloadError` if there are too few queries, or templates, for three splits.
    """
    queries = list({normalized(query.sql): query for split in reversed(SPLITS) for query in workload.of(split)}.values())
    group = (lambda query: query.sql) if how == "random" else (lambda query: template_of(query.sql))
    groups: dict[str, list[Query]] = {}
    for query in queries:
        groups.setdefault(group(query), []).append(query)
    if len(groups) < len(SPLITS):
        what = "queries" if how == "random" else "templates"
        raise WorkloadError(f"{workload.dataset}: {len(groups)} different {what} cannot be divided into training, validation and test")
    dealt = _dealt(sorted(groups, key=lambda text: hashlib.sha256(f"{seed}\0{text}".encode()).digest()))
    order = {query.id: position for position, query in enumerate(queries)}
    chosen = {
        split: sorted((query for text in texts for query in groups[text]), key=lambda query: order[query.id])
        for split, texts in dealt.items()
    }
    return replace(workload.with_splits({split: list(_distinct(found)) for split, found in chosen.items()}), origin=None)


def check_disjoint(workload: Workload) -> None:
    """Raise `WorkloadError` when the same query is in two splits: measuring a query that was trained on proves nothing."""
    for one, other in combinations(SPLITS, 2):
        for first, second in same_queries(workload.of(one), workload.of(other)):
            raise WorkloadError(
                f"{workload.dataset}: query {second.id!r} of {other} is the same as {first.id!r} of {one}; "
                "remove one of them, or have the queries divided anew with --split random"
            )


def without_test_queries(workload: Workload) -> Workload:
    """Leave out training and validation queries that are test queries too: published workloads have some. `origin` has their number."""
    repeated = {normalized(query.sql) for query in workload.test}
    train, validation = (
        tuple(query for query in part if normalized(query.sql) not in repeated) for part in (workload.train, workload.validation)
    )
    dropped = len(workload.train) + len(workload.validation) - len(train) - len(validation)
    if not dropped:
        return workload
    origin = f"{len(train)} training ({dropped} more are test queries too and are left out)"
    return replace(workload, train=train, validation=validation, origin=origin)


def _dealt(texts: Sequence[str]) -> dict[Split, Sequence[str]]:
    """Give each split its share, at least one text, and training the rest."""
    test = max(1, round(SHARES["test"] * len(texts)))
    validation = max(1, round(SHARES["validation"] * len(texts)))
    return {"test": texts[:test], "validation": texts[test : test + validation], "train": texts[test + validation :]}


def _distinct(queries: Iterable[Query]) -> Iterator[Query]:
    """Give a query whose id another one of the split has a number: queries of different files may have one id."""
    seen: set[str] = set()
    for query in queries:
        id_ = next(name for name in chain([query.id], (f"{query.id}-{number}" for number in count(2))) if name not in seen)
        seen.add(id_)
        yield replace(query, id=id_)
